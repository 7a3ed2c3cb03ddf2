#!/usr/bin/env bash
# skrl 2.1.1: with the default settings of PPO, an episode that is cut off by its time limit does not end for the advantages. The
# setting time_limit_bootstrap is False, and is documented as "Whether to bootstrap at timeout termination (episode truncation)":
# off, one expects a plain end, without bootstrapping. compute_gae then looks at `terminated` alone. In memory the row after a
# truncated step is the first of the next episode, so that the value and all advantages of the next episode flow into the returns of
# the one before. Rewards of the second episode, changed alone, change the returns of the first. With time_limit_bootstrap=True the
# episodes are apart; after a termination they are so in both.
#
# Output seen (skrl 2.1.1, torch 2.15.0; two episodes of two steps, discount 1, lambda 1, all values 0, each reward of the first 1):
#   first ends by termination, default: returns of the first [2.0, 1.0], where the second is paid 100 a step: [2.0, 1.0]
#   first ends by truncation, default: returns of the first [2.0, 1.0], where the second is paid 100 a step: [202.0, 201.0]
#   first ends by truncation, time_limit_bootstrap: returns of the first [2.0, 1.0], where the second is paid 100 a step: [2.0, 1.0]
# Exits non-zero where that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
uv venv -q --python 3.11 venv
uv pip install -q --python venv/bin/python skrl==2.1.1 gymnasium==1.4.0 torch==2.15.0 numpy==2.4.6
cat > check.py <<'PY'
import torch
from skrl.agents.torch.ppo import PPO_CFG
from skrl.agents.torch.ppo.ppo import compute_gae

assert PPO_CFG().time_limit_bootstrap is False


def first(paid, end, **settings):
    """Returns of the first episode, where each step of the second is paid that much."""
    ends, never = torch.tensor([0, 1, 0, 1], dtype=torch.bool).view(4, 1, 1), torch.zeros(4, 1, 1, dtype=torch.bool)
    returns, _ = compute_gae(
        rewards=torch.tensor([1.0, 1.0, paid, paid]).view(4, 1, 1),
        terminated=ends if end == "termination" else ends & torch.tensor([0, 0, 0, 1], dtype=torch.bool).view(4, 1, 1),
        truncated=never if end == "termination" else ends & torch.tensor([0, 1, 0, 0], dtype=torch.bool).view(4, 1, 1),
        values=torch.zeros(4, 1, 1),
        last_values=torch.zeros(1, 1),
        discount_factor=1.0,
        lambda_coefficient=1.0,
        **settings,
    )
    return returns.flatten()[:2].tolist()


lines = []
for end, name, settings in (
    ("termination", "default", {}),
    ("truncation", "default", {}),
    ("truncation", "time_limit_bootstrap", {"time_limit_bootstrap": True}),
):
    same, other = first(0.0, end, **settings), first(100.0, end, **settings)
    lines.append(f"first ends by {end}, {name}: returns of the first {same}, where the second is paid 100 a step: {other}")
print("\n".join(lines))
assert [line.rpartition("step: ")[2] for line in lines] == ["[2.0, 1.0]", "[202.0, 201.0]", "[2.0, 1.0]"]
assert all("first [2.0, 1.0]," in line for line in lines)
PY
venv/bin/python check.py
