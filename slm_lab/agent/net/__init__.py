"""Nets, their initialization and their optimizers. A new net is one file with `@register("net")`.

A net is a body and named heads. It owns no loss, no device and no optimizer: `optim` holds those of some modules.
"""
