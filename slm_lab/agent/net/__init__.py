"""Networks, their initialization and their optimizers. A new net is one file with `@register("net")`."""
