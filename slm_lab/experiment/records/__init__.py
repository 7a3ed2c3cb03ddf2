"""What a run has left, read and computed. Works without torch, draws nothing, and changes no run.

- Read: `runs` (run folders and their locks), `describe`, `history`.
- Computed: `analysis` and its `baselines`; `statistics`, `compare` and their `references`; `curves` for graphs.
- Told: `wording`, numbers and intervals in words.
"""
