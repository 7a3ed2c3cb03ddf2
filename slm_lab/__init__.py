"""slm_lab: a deep reinforcement learning laboratory. Start reading at `slm_lab/types.py`, run `slm-lab --help`."""

__version__ = "6.0.0"
