"""The spec: its frozen model, how it is read from a file, and how a fault in it is explained."""
