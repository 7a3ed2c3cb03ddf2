"""The agent: when to act, store and learn; its algorithm, memory and nets; and the tracker of its metrics."""
