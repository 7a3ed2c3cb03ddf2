"""Many sessions of one spec: started, watched, stopped, averaged. Draws no random number and updates no weight.

- Before: `check` (the spec), `build` (env and agent are built once, as a test), `origin` (weights to start from).
- At work: `trial`, its processes `pool`, `nursery` and `worker`; `contain` keeps a crash inside one session.
- Meanwhile: `progress` shows how far each is; `stopping` hears Ctrl-C.
"""
