#!/usr/bin/env bash
# torch 2.15.0: torch.vmap has no batching rule for some operations in place whose functional forms it has. `lerp_`, `addcmul_`,
# `addcdiv_` and `clamp_` warn of a performance drop and are done for each index by itself; `x.copy_(x.lerp(...))` and so on is one
# operation and gives the same. The first three are what Adam is made of, the last clips: whoever trains several seeds as one
# batch with torch.vmap meets all of them. `add_` has a rule.
#
# Output seen (torch 2.15.0, Python 3.11):
#   lerp_: falls back; as a copy: batched, equal
#   addcmul_: falls back; as a copy: batched, equal
#   clamp_: falls back; as a copy: batched, equal
#   add_: batched; as a copy: batched, equal
#   addcdiv_: falls back; as a copy: batched, equal
# Exits non-zero where that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/v"
uv pip install -q --python "$folder/v/bin/python" torch==2.15.0 numpy==2.4.6
cat > "$folder/script.py" <<'PY'
import warnings

import torch

OPS = {
    "lerp": lambda f, x, a, b: f(a, 0.1),
    "addcmul": lambda f, x, a, b: f(a, b, value=0.5),
    "clamp": lambda f, x, a, b: f(-0.5, 0.5),
    "add": lambda f, x, a, b: f(a),
    "addcdiv": lambda f, x, a, b: f(a, b, value=0.5),
}


def batched(fn, *args):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        out = torch.vmap(fn)(*args)
    return out, "falls back" if any("batching rule" in str(w.message) for w in seen) else "batched"


torch.manual_seed(0)
x, a, b = torch.randn(3, 4), torch.randn(3, 4), torch.rand(3, 4) + 1
for name, call in OPS.items():
    def in_place(x, a, b):
        x = x.clone()
        return call(getattr(x, name + "_"), x, a, b)

    def by_copy(x, a, b):
        x = x.clone()
        return x.copy_(call(getattr(x, name), x, a, b))

    (one, how), (two, other) = batched(in_place, x, a, b), batched(by_copy, x, a, b)
    print(f"{name}_: {how}; as a copy: {other}, {'equal' if torch.equal(one, two) else 'not equal'}")
PY
"$folder/v/bin/python" "$folder/script.py" | tee "$folder/out"
diff "$folder/out" <(printf '%s\n' \
  "lerp_: falls back; as a copy: batched, equal" "addcmul_: falls back; as a copy: batched, equal" \
  "clamp_: falls back; as a copy: batched, equal" "add_: batched; as a copy: batched, equal" \
  "addcdiv_: falls back; as a copy: batched, equal")
