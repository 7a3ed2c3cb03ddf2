"""Did-you-mean: the known name nearest to a wrong one."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

OTHER_NAMES = {
    "a2c": "ActorCritic",
    "a3c": "ActorCritic",
    "advantageactorcritic": "ActorCritic",
    "sac": "SoftActorCritic",
    "vpg": "Reinforce",
    "policygradient": "Reinforce",
    "ddqn": "DoubleDQN",
    "qlearning": "DQN",
    "per": "PrioritizedReplay",
    "prioritizedexperiencereplay": "PrioritizedReplay",
    "experiencereplay": "Replay",
    "replaybuffer": "Replay",
    "mlp": "MLPNet",
    "cnn": "ConvNet",
    "rnn": "RecurrentNet",
    "lstm": "RecurrentNet",
    "gru": "RecurrentNet",
}
"""What others call the classes of the lab, in small letters and without signs."""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name most like `name` (case ignored), or what it is called here; None where nothing is near.

    >>> nearest("clip_val_loss", ["clip_vloss", "gamma"])
    'clip_vloss'
    >>> nearest("SAC", ["Sarsa", "SoftActorCritic"])
    'SoftActorCritic'
    """
    known = list(known)
    here = OTHER_NAMES.get(re.sub(r"[^a-z0-9]", "", name.lower()))
    if here in known:
        return here
    by_lower = {k.lower(): k for k in known}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` or the empty string; to be put after a message."""
    near = nearest(name, known)
    return f", did you mean '{near}'?" if near else ""
