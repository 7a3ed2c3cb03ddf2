"""The agent: when to act, store and learn; its algorithm, memory and nets; and the tracker of its metrics.

`agent` asks an `algorithm`, which uses a `memory` and a `net`; those two do not know each other. No env, no file and
no run folder here: rows go out through `sinks`, state through `state_dict`.
"""
