"""What a run has left, read and computed. Works without torch, draws nothing, and changes no run.

- Read: `runs` (run folders and their locks), `history`.
- Computed: `analysis`, `statistics`, `compare`, and `methods`, which says which runs are seeds of one method; `curves`
  for graphs; `baselines` is what they measure from.
- Told: `wording`, numbers and intervals in words.
"""
