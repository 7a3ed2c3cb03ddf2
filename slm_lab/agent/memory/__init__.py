"""Memories: preallocated stores of experience. A new one is one file with `@register("memory")`."""
