"""Pictures: `plot` of a session, trial or search, `plot_runs` of several runs.

`draw` alone imports matplotlib; `ticks` places labels. Computes no score: series come from `records`.
"""
