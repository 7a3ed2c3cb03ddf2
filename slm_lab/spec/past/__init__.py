"""What older spec files meant: tables and steps of `spec.migrate`, which alone uses them.

Everything that knows a format of SLM-Lab 4 or 5 is here, and nothing else is.
"""
