"""Ids of older gyms: what they are called now, and which are gone."""

import re

from slm_lab.spec.variables import VARIABLE

_OTHER_BODY = "the robot and the reward differ: scores can't be compared"
_SKIP = "4 frames are skipped, instead of 2 to 5 at random"
_STICKY = "actions now stick with probability 0.25, unless env.repeat_action_probability says otherwise"

MUJOCO = (
    "Ant",
    "HalfCheetah",
    "Hopper",
    "Humanoid",
    "HumanoidStandup",
    "InvertedDoublePendulum",
    "InvertedPendulum",
    "Pusher",
    "Reacher",
    "Swimmer",
    "Walker2d",
)
"""gymnasium's tasks, at version 5."""

_TASK = "|".join(MUJOCO)

OLD_IDS = (
    (r"CartPole-v0", "CartPole-v1", "an episode may last 500 steps, not 200"),
    (rf"({_TASK})-v[0-4]", "{}-v5", "rewards and observations changed a little"),
    (rf"Roboschool({_TASK})-v\d", "{}-v5", _OTHER_BODY),
    (rf"({_TASK})(?:Py)?BulletEnv-v\d", "{}-v5", _OTHER_BODY),
)
"""What old ids look like, what they are now, and what is to be said of it. Others are an older version of an env that
gymnasium still has: the newest is taken, when the env is made."""

OLD_ATARI_IDS = (
    (r"(\w+?)(?:NoFrameskip|Deterministic)-v0", "ALE/{}-v5", ""),
    (r"(\w+?)-v0", "ALE/{}-v5", _SKIP),
    (r"(\w+?)(?:NoFrameskip|Deterministic)-v4", "ALE/{}-v5", _STICKY),
    (r"(\w+?)-v4", "ALE/{}-v5", f"{_SKIP}; {_STICKY}"),
    (r"(\w+)", "ALE/{}-v5", ""),
)
"""The same for names of games."""

_BUMPED = {
    "Acrobot-v0": "Acrobot-v1",
    "BipedalWalker-v2": "BipedalWalker-v3",
    "BipedalWalkerHardcore-v2": "BipedalWalkerHardcore-v3",
    "CarRacing-v0": "CarRacing-v3",
    "LunarLander-v2": "LunarLander-v3",
    "LunarLanderContinuous-v2": "LunarLanderContinuous-v3",
    "Pendulum-v0": "Pendulum-v1",
}
"""Ids whose version went up with small changes; the ones that old specs use."""

_PLAIN_GAMES = "BeamRider|Breakout|Enduro|MsPacman|Pong|Qbert|Seaquest|SpaceInvaders|VideoPinball"
"""Games whose plain ids (`VideoPinball-v0`) old specs use."""

UNITY = "Unity's envs need the package mlagents-envs, and a module of yours that registers them with gymnasium"
VIZDOOM = (
    "VizDoom's envs come with the package vizdoom: install it, and name them as "
    "'vizdoom.gymnasium_wrapper:VizdoomBasic-v1'"
)

_GONE = (
    (r"Unity.*|3DBall|2DBall|tennis|gridworld", UNITY),
    (r"vizdoom.*", VIZDOOM),
    (r"SLM.(Pavlovian|Sensorimotor).*", "its code was never part of SLM-Lab"),
    (rf"Roboschool(?!(?:{_TASK})-).*", "Roboschool is no longer maintained, and gymnasium has no such robot"),
)
MANY_JOINTS = re.compile(
    rf"(?:Roboschool)?(?!Inverted)(?:{_TASK})(?:(?:Py)?BulletEnv)?-v\d|BipedalWalker\w*-v\d|LunarLanderContinuous-v\d"
)
"""Envs with several continuous actions."""


def why_gone(env_id: str) -> str | None:
    """Why an env of an old spec can't be made; None where nothing is known against it.

    >>> why_gone("Unity3DBall-v0"), why_gone("CartPole-v0")
    ("Unity's envs need the package mlagents-envs, and a module of yours that registers them with gymnasium", None)
    """
    for pattern, why in _GONE:
        if re.fullmatch(pattern, env_id, re.IGNORECASE):
            return why
    return None


def is_open(env_id: str) -> bool:
    """Whether the id holds a variable without a value."""
    return VARIABLE.search(env_id) is not None


def is_atari(env_id: str) -> bool:
    """Whether an id means an Atari game.

    >>> is_atari("PongNoFrameskip-v4"), is_atari("ALE/Pong-v5"), is_atari("VideoPinball-v0"), is_atari("Pendulum-v0")
    (True, True, True, False)
    """
    return (
        env_id.startswith("ALE/")
        or re.fullmatch(rf"\w+(NoFrameskip|Deterministic)-v\d|({_PLAIN_GAMES})-v\d", env_id) is not None
    )


def modern(env_id: str) -> tuple[str, str]:
    """What an id is called now, and what is to be said of it.

    >>> modern("LunarLander-v2"), modern("PongNoFrameskip-v0")
    (('LunarLander-v3', ''), ('ALE/Pong-v5', ''))
    """
    if env_id in _BUMPED:
        return _BUMPED[env_id], ""
    found = replaced(env_id, OLD_IDS)
    if found is None and is_atari(env_id):
        found = replaced(env_id, OLD_ATARI_IDS[:-1])
    return found or (env_id, "")


def replaced(env_id: str, table: tuple[tuple[str, str, str], ...]) -> tuple[str, str] | None:
    """The new id and the remark that a table has for an old one; None where it has none."""
    for pattern, template, remark in table:
        # PyBullet spells it Walker2DBulletEnv
        if match := re.fullmatch(pattern, env_id.replace("Walker2D", "Walker2d")):
            return template.format(*match.groups()), remark
    return None
