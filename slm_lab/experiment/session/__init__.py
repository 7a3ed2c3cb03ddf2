"""One session: an agent, its env, one seed. Knows nothing of other sessions, but for what they share (`commons`).

- The loop: `session`; in tensor envs `rollouts` and `cycles` play many steps as one call.
- Which session it is, and what it gives back: `run`; cores, threads, devices: `resources`; a changed spec: `extend`.
- When something is due: `clock`; greedy episodes beside training: `evaluate`; a caller's functions: `callbacks`.
- What leaves it: `outlets` (rows, metrics), `checkpoint` (its whole state).
"""
