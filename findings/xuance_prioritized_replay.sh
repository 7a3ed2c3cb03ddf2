#!/usr/bin/env bash
# xuance 1.4.4: the prioritized replay of PerDQN (PerOffPolicyBuffer) does not correct its sampling as the paper does
# that the package cites (arXiv:1511.05952). There the weight of a sample is (N * P)**-beta over its maximum: 1 for the
# least probable sample, less for each other one. Here the exponent binds to N alone and cancels out. The weight is P
# over the least P: it grows with the priority, begins at 1, and is the same for each beta. The schedule of beta has no
# effect. A loss that used such weights would correct in the wrong direction; the learner of PerDQN reads none at all,
# so that the bias of the sampling stays in full, whatever PER_beta0 says. Besides, the last slot of each env is never
# sampled: the end of the range of the sum is exclusive, and 1 was taken from it. While the memory fills, that is the
# newest transition; once full, the last slot for ever.
#
# Output seen (xuance 1.4.4, numpy 1.26.4; priorities 1, 2, 4, 8, alpha 1):
#   by the paper, beta 0.4: 1.00 0.76 0.57 0.44
#   by the paper, beta 1.0: 1.00 0.50 0.25 0.12
#   in xuance, beta 0.4: 1.00 2.00 4.00
#   in xuance, beta 1.0: 1.00 2.00 4.00
#   full memory of 4, equal priorities, 40000 samples: slots drawn [0, 1, 2]
#   'weights' in the source of the learner of PerDQN: 0 times
# Exits non-zero where that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
uv venv -q --python 3.11 venv
uv pip install -q --python venv/bin/python --no-deps xuance==1.4.4
uv pip install -q --python venv/bin/python gymnasium==1.2.0 numpy==1.26.4 scipy==1.15.3 pyyaml==6.0.2 tqdm==4.67.1
cat > check.py <<'PY'
import importlib.util
import pathlib
import random

import numpy as np
from gymnasium.spaces import Box, Discrete
from xuance.common import PerOffPolicyBuffer


def memory(batch):
    """Four transitions; the observation of each is its slot."""
    box = Box(0, 9, (1,), np.float32)
    result = PerOffPolicyBuffer(box, Discrete(2), {}, n_envs=1, buffer_size=4, batch_size=batch, alpha=1.0)
    for slot in range(4):
        result.store(np.full((1, 1), slot), np.zeros(1), np.zeros(1), np.zeros(1), np.zeros((1, 1)))
    return result


random.seed(0)
lines, priorities = [], np.array([1.0, 2.0, 4.0, 8.0])
probabilities = priorities / priorities.sum()
for beta in 0.4, 1.0:
    weights = (4 * probabilities) ** -beta
    lines.append(f"by the paper, beta {beta}: " + " ".join(f"{w:.2f}" for w in weights / weights.max()))
for beta in 0.4, 1.0:
    buffer = memory(4)
    buffer.update_priorities(np.arange(4)[None], priorities)
    seen = {}
    for _ in range(200):
        batch = buffer.sample(beta)
        seen.update(zip(batch["step_choices"][0].tolist(), batch["weights"][0].tolist()))
    lines.append(f"in xuance, beta {beta}: " + " ".join(f"{seen[slot]:.2f}" for slot in sorted(seen)))
drawn = sorted(set(memory(40000).sample(0.4)["obs"].flatten().astype(int).tolist()))
lines.append(f"full memory of 4, equal priorities, 40000 samples: slots drawn {drawn}")
package = pathlib.Path(importlib.util.find_spec("xuance").origin).parent
source = (package / "torch/learners/qlearning_family/perdqn_learner.py").read_text()
lines.append(f"'weights' in the source of the learner of PerDQN: {source.count('weights')} times")
print("\n".join(lines))
assert lines == [
    "by the paper, beta 0.4: 1.00 0.76 0.57 0.44",
    "by the paper, beta 1.0: 1.00 0.50 0.25 0.12",
    "in xuance, beta 0.4: 1.00 2.00 4.00",
    "in xuance, beta 1.0: 1.00 2.00 4.00",
    "full memory of 4, equal priorities, 40000 samples: slots drawn [0, 1, 2]",
    "'weights' in the source of the learner of PerDQN: 0 times",
]
PY
venv/bin/python check.py
