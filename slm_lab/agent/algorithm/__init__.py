"""Algorithms: one file each, a lecture with its loss. A new one is one file with `@register("algorithm")`."""
