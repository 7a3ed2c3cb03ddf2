"""The mathematics: tensors in, tensors out; no state, no spec, no `.item()`."""
