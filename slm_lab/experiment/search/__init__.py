"""Hyper-parameter search on Ray Tune, the only part of the lab that knows Ray and Optuna.

Which trials there are: `sampler`, `scheduler`. Who runs them: `launch`, `cluster`, `trainable`. What is
remembered: `journal`, `store`. What comes out: `table`, `findings`, `importance`. Imported only when a search runs; a
trial is trained by `experiment.trial.trial`, never by code of its own.
"""
