#!/usr/bin/env bash
# triton 3.9.0: a process that has imported triton and calls gc.freeze(), as fork servers and long-running services do after their
# imports, ends with dozens of lines "nanobind: leaked ... types!" on its standard error, though nothing leaks. nanobind counts what
# the interpreter has not collected when it ends, and frozen objects are never collected. PyTorch's inductor imports triton where it is
# installed, so programs that never heard of triton print them, too. Without gc.freeze() the end is silent; so is
# gc.freeze() followed by gc.unfreeze().
#
# Output seen (triton 3.9.0, Python 3.11):
#   ordinary end: 0 lines of nanobind
#   frozen: leak report of nanobind
#   frozen and unfrozen: 0 lines of nanobind
# Exits non-zero where that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
uv venv -q --python 3.11 venv
uv pip install -q --python venv/bin/python triton==3.9.0
count() { venv/bin/python -c "import gc, triton; $1" 2>&1 | grep -c '^nanobind: leaked' || true; }
plain=$(count "pass")
frozen=$(count "gc.freeze()")
unfrozen=$(count "gc.freeze(); gc.unfreeze()")
echo "ordinary end: $plain lines of nanobind"
[ "$frozen" -gt 0 ] && echo "frozen: leak report of nanobind" || echo "frozen: 0 lines of nanobind"
echo "frozen and unfrozen: $unfrozen lines of nanobind"
[ "$plain" = 0 ] && [ "$frozen" -gt 0 ] && [ "$unfrozen" = 0 ]
