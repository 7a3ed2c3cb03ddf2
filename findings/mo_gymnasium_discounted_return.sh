#!/usr/bin/env bash
# mo-gymnasium 1.3.2: the vector wrapper MORecordEpisodeStatistics never starts the discounted return of a sub-environment anew. Its
# documentation calls info["episode"]["dr"] the discounted reward of each sub-environment that is done, beside the plain one, "r".
# From the second episode on, "dr" holds the sum over all episodes since the reset of the wrapper. The plain return and the length
# are right, and so is the wrapper of the same name for one env. Without discount (gamma=1, the default) both must be equal.
#
# Output seen (mo-gymnasium 1.3.2, gymnasium 1.4.0; the treasure of 0.7 is one step down, at a cost of 1 for time):
#   vector, episode 1: r [0.7, -1.0], dr [0.7, -1.0]
#   vector, episode 2: r [0.7, -1.0], dr [1.4, -2.0]
#   vector, episode 3: r [0.7, -1.0], dr [2.1, -3.0]
#   one env, episode 1: r [0.7, -1.0], dr [0.7, -1.0]
#   one env, episode 2: r [0.7, -1.0], dr [0.7, -1.0]
#   one env, episode 3: r [0.7, -1.0], dr [0.7, -1.0]
# Exits non-zero where that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
uv venv -q --python 3.11 venv
uv pip install -q --python venv/bin/python mo-gymnasium==1.3.2 gymnasium==1.4.0 numpy==2.4.6
cat > check.py <<'PY'
import warnings

warnings.simplefilter("ignore")
import mo_gymnasium as mo
import numpy as np
from mo_gymnasium.wrappers import MORecordEpisodeStatistics as Single
from mo_gymnasium.wrappers.vector import MORecordEpisodeStatistics as Vector
from mo_gymnasium.wrappers.vector import MOSyncVectorEnv

ID, DOWN = "deep-sea-treasure-v0", 1


def vector():
    env = Vector(MOSyncVectorEnv([lambda: mo.make(ID)]))
    env.reset(seed=0)
    while True:
        info = env.step(np.array([DOWN]))[-1]
        if "episode" in info:
            yield info["episode"]["r"][0], info["episode"]["dr"][0]


def single():
    env = Single(mo.make(ID))
    while True:
        env.reset(seed=0)
        info = {}
        while "episode" not in info:
            info = env.step(DOWN)[-1]
        yield info["episode"]["r"], info["episode"]["dr"]


def rounded(values):
    return [round(float(value), 3) for value in values]


lines = []
for name, episodes in ("vector", vector()), ("one env", single()):
    for number in 1, 2, 3:
        r, dr = next(episodes)
        lines.append(f"{name}, episode {number}: r {rounded(r)}, dr {rounded(dr)}")
print("\n".join(lines))
assert [line.rpartition("dr ")[2] for line in lines] == ["[0.7, -1.0]", "[1.4, -2.0]", "[2.1, -3.0]"] + 3 * ["[0.7, -1.0]"]
assert all("r [0.7, -1.0]," in line for line in lines)
PY
venv/bin/python check.py
