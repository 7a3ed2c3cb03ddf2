"""Environments: always vectorized, same-step autoreset with the true final observation."""
