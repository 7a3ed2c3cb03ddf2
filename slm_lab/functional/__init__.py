"""The mathematics: tensors in, tensors out, each function with its equation, its source and an example.

No state, no spec, no `.item()`. Whatever needs one of these calls a function from here.
"""
