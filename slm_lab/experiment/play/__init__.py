"""What was learned is used: `enjoy` watches, `measure` scores, `policy` is for the library, `export` makes one file.

Reads checkpoints and never writes into a run's training. `policy_graph` is the policy as a function of tensors.
"""
