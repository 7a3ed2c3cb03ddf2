"""Session < Trial < Experiment: what runs, what is written, what is measured, what is drawn.

- Before a run: `check`, `build`; `origin` and `extend` for runs that start from another; `run`, its options.
- One session: `session`, its env and agent; `clock`, `evaluate`, `outlets`, `rollouts` and
  `device_rollouts`, `cycles`; `contain` keeps a crash inside.
- Many: `trial`, `pool` and `worker`, `commons` (A3C), `resources`, `stopping`, `callbacks`; the package `search`.
- The way in, for command line and library: `launch`; to play: `enjoy`, `policy`, `measure`, `export` (`policy_graph`).
- Written and read: `checkpoint`, `results`, `runs`, `describe`, `history`.
- Computed from what was written: `analysis`, `baselines`, `references`, `statistics`, `compare`.
- Shown: `progress`, `draw`, `plot`, `plot_runs`, `curves`, `ticks`, `wording`; the package `report`.

No equation and no update rule lives here, and nothing imports gymnasium. `draw` alone imports matplotlib. What reads
run folders (`describe`, `history`, `runs`) works without torch.
"""
