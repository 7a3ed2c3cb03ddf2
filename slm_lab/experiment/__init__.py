"""Session < Trial < Experiment: what runs, what is written, what is measured, what is drawn.

`launch` is the way in, for the command line and the library. Behind it lie rooms; each may use those below it:

- `report`: a page about a run, a search or several runs.
- `search`: many trials, on Ray Tune.
- `trial`: many sessions side by side, and what is checked before any of them begins.
- `play`: what was learned is watched, scored, exported.
- `graphs`: pictures of runs.
- `session`: one agent learns in one env, from one seed.
- `records`: run folders, and what is computed from what was written there.

No equation and no update rule lives here, and nothing imports gymnasium. `graphs.draw` alone imports matplotlib. What
reads run folders (`records`) works without torch.
"""
