"""Environments: always vectorized, with autoreset in the same step and the true final observation.

The only package that imports gymnasium. Arrays are numpy; torch is for tensor envs alone (`tensor`, `classic`). It
knows nothing of agents: what reaches one is a `types.Step`.
"""
