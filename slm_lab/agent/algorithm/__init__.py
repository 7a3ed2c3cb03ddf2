"""Algorithms: one file each, a lecture with its loss. A new one is one file with `@register("algorithm")`.

An algorithm decides what is learned, the agent when. Equations are in `functional`; gradient steps, compiled or not,
are taken by `learner`. What is compiled is a function of tensors and constants: no `.item()`, no clock.
"""
