#!/usr/bin/env bash
# skrl 2.1.1: what goes into a memory is not what comes out of it, in two ways that its documentation names.
# One: add_samples() of several samples at once into a memory of one env ("store multiple samples and increment the memory index by
# the number of samples") moves the index after each tensor, not after the batch. The second tensor lies behind the first, so that
# the observation of a sample comes with the action of none, and half of the rows are what the memory was filled with, NaN. The
# length says 6 after 3 samples. One sample at a time is stored as it should be.
# Two: load() of a file that save() wrote reads the data, and nothing uses it: it becomes an attribute of another name, while
# sampling, get_tensor_by_name() and the length go on with the empty memory. No error, no warning.
#
# Output seen (skrl 2.1.1, torch 2.15.0):
#   3 samples, one by one: length 3, (0, 0) (1, 1) (2, 2)
#   3 samples, at once: length 6, (0, nan) (1, nan) (2, nan) (nan, 0) (nan, 1) (nan, 2)
#   loaded from pt: length 0, [nan, nan, nan]; in the file: [0.0, 1.0, 2.0]
#   loaded from npz: length 0, [nan, nan, nan]; in the file: [0.0, 1.0, 2.0]
# Exits non-zero where that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
uv venv -q --python 3.11 venv
uv pip install -q --python venv/bin/python skrl==2.1.1 gymnasium==1.4.0 torch==2.15.0 numpy==2.4.6
cat > check.py <<'PY'
import glob

import numpy as np
import torch
from skrl.memories.torch import RandomMemory

data = torch.arange(3.0).view(3, 1)


def memory(size, *names):
    result = RandomMemory(memory_size=size, num_envs=1, device="cpu")
    for name in names:
        result.create_tensor(name, size=1)
    return result


def pairs(memory):
    rows = torch.cat(memory.sample_all(["observations", "actions"])[0], dim=1)
    return f"length {len(memory)}, " + " ".join(f"({a:g}, {b:g})" for a, b in rows[: len(memory)].tolist())


lines = []
one_by_one, at_once = memory(6, "observations", "actions"), memory(6, "observations", "actions")
for row in data:
    one_by_one.add_samples(observations=row[None], actions=row[None])
at_once.add_samples(observations=data, actions=data)
lines += [f"3 samples, one by one: {pairs(one_by_one)}", f"3 samples, at once: {pairs(at_once)}"]

full = memory(3, "observations")
for row in data:
    full.add_samples(observations=row[None])
for form, read in ("pt", torch.load), ("npz", np.load):
    full.save(".", format=form)
    (path,) = glob.glob(f"memories/*.{form}")
    loaded = memory(3, "observations")
    loaded.load(path)
    seen = loaded.sample_all(["observations"])[0][0].flatten().tolist()
    assert str(seen) == str(loaded.get_tensor_by_name("observations").flatten().tolist())
    lines.append(f"loaded from {form}: length {len(loaded)}, {seen}; in the file: {read(path)['observations'].flatten().tolist()}")
print("\n".join(lines))
assert lines == [
    "3 samples, one by one: length 3, (0, 0) (1, 1) (2, 2)",
    "3 samples, at once: length 6, (0, nan) (1, nan) (2, nan) (nan, 0) (nan, 1) (nan, 2)",
    "loaded from pt: length 0, [nan, nan, nan]; in the file: [0.0, 1.0, 2.0]",
    "loaded from npz: length 0, [nan, nan, nan]; in the file: [0.0, 1.0, 2.0]",
]
PY
venv/bin/python check.py
