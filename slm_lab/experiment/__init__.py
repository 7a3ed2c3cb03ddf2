"""Session < Trial < Experiment: running specs, saving, resuming and measuring."""
