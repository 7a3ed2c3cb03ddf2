#!/usr/bin/env bash
# tianshou 2.0.1: three helpers of statistics do not do what their documentation says.
# MovAvg, which the trainers keep their losses in, "will automatically exclude the infinity and NaN". It leaves out the object numpy.nan
# alone; a NaN that comes out of a computation or of a tensor is another object, enters, and makes the average NaN for `size` entries.
# RunningMeanStd(std=...), "the initial standard error estimation", takes it for the variance: with std=2 a 4 becomes 2.83, not 2.
# PrioritizedReplayBuffer(weight_norm=False) gives weights (p^alpha / p_min)^-beta, where its comment derives (p / p_min)^-beta of
# stored priorities: alpha is missing below the line. The rarest sample, whose weight is 1 by that formula, has another one, and by
# the smallness of p_min all weights grow or shrink together, which is a factor on the learning rate. weight_norm=True hides it.
#
# Output seen (tianshou 2.0.1, torch 2.8.0):
#   MovAvg of 1, numpy.nan, 3: 2.0; of 1, float("nan"), 3: nan; of a tensor (1, nan, 3): nan
#   RunningMeanStd(std=2).norm(4) = 2.8284
#   weight of the least priority, 0.01: 0.1000 (alpha 0.5, beta 1)
# Exits non-zero where that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
uv venv -q --python 3.11 venv
uv pip install -q --python venv/bin/python tianshou==2.0.1 torch==2.8.0 numpy==1.26.4 gymnasium==1.2.0
cat > check.py <<'PY'
import math
import warnings

warnings.simplefilter("ignore")
import numpy as np
import torch
from tianshou.data import Batch, PrioritizedReplayBuffer
from tianshou.utils import MovAvg, RunningMeanStd


def average(values):
    moving = MovAvg(size=10)
    moving.add(values)
    return moving.get()


averages = average([1.0, np.nan, 3.0]), average([1.0, float("nan"), 3.0]), average(torch.tensor([1.0, math.nan, 3.0]))
print("MovAvg of 1, numpy.nan, 3: {}; of 1, float(\"nan\"), 3: {}; of a tensor (1, nan, 3): {}".format(*averages))

normed = float(RunningMeanStd(std=2.0, clip_max=None).norm(4.0))
print(f"RunningMeanStd(std=2).norm(4) = {normed:.4f}")

buffer = PrioritizedReplayBuffer(4, alpha=0.5, beta=1.0, weight_norm=False)
for i in range(4):
    buffer.add(Batch(obs=i, act=0, rew=0.0, terminated=False, truncated=False, obs_next=i + 1, info={}))
buffer.update_weight(np.arange(4), np.array([0.01, 0.25, 0.25, 1.0]))
weight = float(buffer[np.arange(4)].weight[0])
print(f"weight of the least priority, 0.01: {weight:.4f} (alpha 0.5, beta 1)")

same = averages[0] == 2.0 and math.isnan(averages[1]) and math.isnan(averages[2]) and abs(normed - 8**0.5) < 1e-3 and abs(weight - 0.1) < 1e-3
raise SystemExit(0 if same else "the behaviour has changed")
PY
venv/bin/python check.py
