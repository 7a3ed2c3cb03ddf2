"""Runs elsewhere: results on the Hugging Face Hub (`push`, `pull`), training on rented machines (`task`, `ship`).

Moves finished files and starts commands; it does not train, and imports no torch. `hub` alone imports
huggingface_hub, and `dstack` alone calls dstack.
"""
