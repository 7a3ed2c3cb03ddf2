#!/usr/bin/env bash
# d3rlpy 2.8.1: evaluators read an episode in windows of 1,024 steps and take each window for an episode. Two give another number
# than their documentation says as soon as episodes are longer, as those of Atari and of many simulators are.
# InitialStateValueEstimationEvaluator, "mean estimated action-values at the initial states", averages over the first observation of
# every window: steps 0, 1024, 2048 ... DiscountedSumOfAdvantageEvaluator starts its sum anew at the end of each window, though it is
# to run from a step to the end of the episode. The value functions here are exact by construction: the value of a state is the number
# of its step, and an action of the data is worth one less than the policy's.
#
# Output seen (d3rlpy 2.8.1, one episode of 2,500 steps, gamma 1):
#   initial value: 1024.0 (at step 0: 0.0)
#   mean sum of advantages: -460.79 (over the episode: -1250.5)
#   of an episode of 1,000 steps: 0.0 and -500.5 (over the episode: -500.5)
# Exits non-zero where that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
uv venv -q --python 3.11 venv
uv pip install -q --python venv/bin/python d3rlpy==2.8.1 torch==2.8.0 numpy==1.26.4
cat > check.py <<'PY'
import warnings

warnings.simplefilter("ignore")
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
from d3rlpy import ActionSpace
from d3rlpy.dataset import MDPDataset
from d3rlpy.metrics import DiscountedSumOfAdvantageEvaluator, InitialStateValueEstimationEvaluator


class Exact:
    """V(s) is the number of the step; the policy plays 1, and the action 0 is worth one less."""

    gamma = 1.0
    reward_scaler = None

    def predict(self, observations):
        return np.ones(len(observations), np.int64)

    def predict_value(self, observations, actions):
        return observations[:, 0] - (np.asarray(actions).reshape(-1) == 0)


def of_episode(steps):
    observations = np.arange(steps, dtype=np.float32)[:, None]
    ends = np.zeros(steps, np.float32)
    ends[-1] = 1
    actions = np.zeros((steps, 1), np.int64)
    actions[0] = 1  # so that there are two actions
    with redirect_stdout(StringIO()):
        data = MDPDataset(observations, actions, np.zeros(steps, np.float32), ends, action_space=ActionSpace.DISCRETE, action_size=2)
    first = InitialStateValueEstimationEvaluator()(Exact(), data)
    sums = DiscountedSumOfAdvantageEvaluator()(Exact(), data)
    advantages = -(actions[:, 0] == 0).astype(float)
    whole = np.cumsum(advantages[::-1]).mean()
    return round(first, 2), round(sums, 2), round(float(whole), 2)


first, sums, whole = of_episode(2500)
print(f"initial value: {first} (at step 0: 0.0)")
print(f"mean sum of advantages: {sums} (over the episode: {whole})")
short = of_episode(1000)
print(f"of an episode of 1,000 steps: {short[0]} and {short[1]} (over the episode: {short[2]})")
changed = (first, sums, whole, *short) != (1024.0, -460.79, -1250.5, 0.0, -500.5, -500.5)
raise SystemExit("the behaviour has changed" if changed else 0)
PY
venv/bin/python check.py
