"""Memories: preallocated stores of experience. A new one is one file with `@register("memory")`.

A memory stores, says when it is ready, and samples. It knows no net and no loss, and keeps the dtype of observations.
"""
