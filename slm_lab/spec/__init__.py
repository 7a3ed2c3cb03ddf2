"""The spec: its frozen model, how it is read from a file, and how a fault in it is explained.

A spec is never written to. Text becomes data in `parse`, older formats the present one in `migrate` and `past`, and
data a checked `Spec` in `load`. Works without torch; it looks classes up by name and imports none of them.
"""
