#!/usr/bin/env bash
# highway-env 1.12.1: the seed of the action space lasts until the next reset only. Every reset() builds both spaces anew, so that
# env.action_space is another object after it, and starts from fresh entropy. gymnasium's documentation of Env says
# that env.action_space.seed(123) makes sampling reproducible, and its own envs keep that over all episodes. Here, a run of random
# actions (as before the learning of an off-policy agent starts) that seeds the env and the space once, after the first reset,
# repeats in its first episode and in no later one; whoever seeds the space before the first reset has seeded nothing.
# reset() samples from the new space, too: info["action"] differs for one seed.
#
# Output seen (highway-env 1.12.1, gymnasium 1.4.0):
#   CartPole-v1: space kept by reset: True; actions of two equal runs: episode 1 equal, episode 2 equal
#   highway-v0: space kept by reset: False; actions of two equal runs: episode 1 equal, episode 2 differ
#   highway-v0, reset(seed=3) 20 times: 1 observation, several infos
# Exits non-zero where that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
uv venv -q --python 3.11 venv
uv pip install -q --python venv/bin/python highway-env==1.12.1 gymnasium==1.4.0 numpy==2.4.6
cat > check.py <<'PY'
import warnings

warnings.simplefilter("ignore")
import gymnasium as gym
import highway_env

gym.register_envs(highway_env)


def run(name):
    """Random actions of two episodes; env and space are seeded once, after the first reset."""
    env = gym.make(name)
    env.reset(seed=3)
    env.action_space.seed(3)
    episodes = []
    for _ in range(2):
        episodes.append([int(env.action_space.sample()) for _ in range(40)])
        before = env.action_space
        env.reset()
    return episodes, env.action_space is before


lines = []
for name in "CartPole-v1", "highway-v0":
    (one, kept), (two, _) = run(name), run(name)
    words = ["equal" if a == b else "differ" for a, b in zip(one, two)]
    lines.append(f"{name}: space kept by reset: {kept}; actions of two equal runs: episode 1 {words[0]}, episode 2 {words[1]}")
env = gym.make("highway-v0")
starts = [env.reset(seed=3) for _ in range(20)]
pictures, infos = len({obs.tobytes() for obs, _ in starts}), len({int(info["action"]) for _, info in starts})
lines.append(f"highway-v0, reset(seed=3) 20 times: {pictures} observation, {'several infos' if infos > 1 else 'one info'}")
print("\n".join(lines))
assert lines == [
    "CartPole-v1: space kept by reset: True; actions of two equal runs: episode 1 equal, episode 2 equal",
    "highway-v0: space kept by reset: False; actions of two equal runs: episode 1 equal, episode 2 differ",
    "highway-v0, reset(seed=3) 20 times: 1 observation, several infos",
]
PY
venv/bin/python check.py
