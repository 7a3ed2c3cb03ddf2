"""Pictures: `plot` of a session, a trial, a search, or several runs.

`draw` alone imports matplotlib. Computes no score: series come from `records`.
"""
