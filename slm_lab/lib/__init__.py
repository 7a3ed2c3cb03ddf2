"""Leaves: registry, seeding, files, log, the compiler. They import nothing of slm_lab outside this package.

No word of reinforcement learning here, and no spec. `compile` is the one door to the compilers.
"""
