"""From SLM-Lab 5, and the state of November 2025 that it came from: they are written alike."""

from slm_lab.spec.past.common import ACTOR_CRITICS, PIXELS_AS_THEY_WERE, rollout_length
from slm_lab.spec.past.draft import Data, Draft, Gone, number, text
from slm_lab.spec.past.envs import is_atari
from slm_lab.spec.past.keys import net_defaults
from slm_lab.spec.search import leaves

_PERIODS = ("T_0", "T_max", "step_size", "step_size_down", "step_size_up", "total_iters", "total_steps")
"""Keys of torch's schedules that count their steps; `milestones` is a list of such."""
_APART = ("type", "shared", "use_same_optim", "gpu")
"""Keys of a net that are no role's own."""
_OLD, _NEW = "agent.critic_net.", "agent.net.critic_"


def env(draft: Draft) -> None:
    """Keys of `env` that had no effect."""
    if number(draft.env.get("max_t")) is not None:
        del draft.env["max_t"]
        draft.note("env.max_t", "left out: it had no effect")
    if draft.env.get("reward_scale") not in (None, 1):
        draft.note("env.reward_scale", "has an effect now")
    if is_atari(text(draft.env.get("name"))) and draft.num_envs == 1:
        draft.note("env.num_envs", "a single Atari env is like several now: pictures, clipped rewards and all")


def agent(draft: Draft) -> None:
    """Defects of its algorithms."""
    algorithm = draft.algorithm
    name = algorithm.get("name")
    if name == "DQN":
        draft.note("agent.algorithm.name", "DQN is the algorithm of its paper; it was the same as DoubleDQN")
    if name in ("SoftActorCritic", "CrossQ") and algorithm.get("action_pdtype") == "Categorical":
        draft.note("agent.algorithm.name", f"discrete {name} takes the smaller of its critics; it took their mean")
    if name == "Reinforce" and "center_return" in algorithm:
        draft.drop("agent.algorithm", "center_return")
    if name in ("PPO", "PPOSIL") and algorithm.get("clip_vloss") is True:
        draft.note("agent.algorithm.clip_vloss", "the clipped value loss counts in full; it was halved")
    if name in ACTOR_CRITICS:
        _heads(draft)


def _heads(draft: Draft) -> None:
    net = draft.net
    stated = [key for key in ("actor_init_std", "critic_init_std") if net.get(key) is not None]
    if stated:
        draft.note(f"agent.net.{stated[0]}", "has an effect now: the gain of the output layer")
    if net.get("log_std_init") is not None and net.get("shared") is True:
        draft.note("agent.net.log_std_init", "has an effect now, with a shared body too")


def net(draft: Draft) -> None:
    """Target nets, and the unit of learning-rate schedules."""
    for path, here in draft.nets():
        every = number(here.get("update_frequency"))
        if here.get("update_type") == "polyak" and every is not None and every != 1:
            told = f"1: polyak moved the target at every update, whatever its value ({every:g})"
            draft.put(f"{path}.update_frequency", 1, told)
        # only images are divided by 255
        images = "Conv2d" in f"{here.get('arc')}{here.get('actor_arc')}"
        if here.get("type") == "TorchArcNet" and "normalize" not in here and images:
            draft.put(f"{path}.normalize", False, PIXELS_AS_THEY_WERE)
    frames = frames_per_training(draft)
    for path, schedule in draft.net_parts("lr_scheduler_spec"):
        _to_frames(draft, path, schedule, frames)


def frames_per_training(draft: Draft) -> int | None:
    """Frames between two trainings, the unit of schedules; None where they vary.

    >>> frames_per_training(Draft({"agent": {"algorithm": {"training_frequency": 4}, "memory": {"name": "Replay"}}}))
    4
    """
    memory, n = draft.memory.get("name"), draft.num_envs
    every = number(rollout_length(draft))
    if every is None:
        return None
    if memory == "OnPolicyBatchReplay":
        return int(every * n)
    return max(int(every), n) if memory in ("Replay", "PrioritizedReplay") else None


def _to_frames(draft: Draft, path: str, schedule: Data, frames: int | None) -> None:
    if schedule.get("name") in (None, "LinearToZero", "LinearToMin"):
        return
    counted = [key for key in (*_PERIODS, "milestones") if key in schedule]
    decays = schedule.get("name") == "ExponentialLR" and number(schedule.get("gamma")) is not None
    if not counted and not decays:
        return
    if frames is None:
        draft.note(path, "its unit is frames; it was trainings")
        return
    for key in counted:
        value = schedule[key]
        if isinstance(value, list):
            schedule[key] = [int(v * frames) if number(v) is not None else v for v in value]
        elif number(value) is not None:
            schedule[key] = int(value * frames)
    if decays:
        schedule["gamma"] **= 1 / frames
    draft.note(path, f"its unit is frames; it was trainings, of {frames} frames each")


def join_nets(draft: Draft) -> None:
    """CrossQ's second net, `agent.critic_net`, as keys of `agent.net` with `critic_` before them.

    Paths of a search follow.

    Raises:
        Gone: the two nets are of different types.
    """
    agent, net, critic = draft.at("agent"), draft.net, draft.at("agent.critic_net")
    if draft.algorithm.get("name") != "CrossQ" or not critic or not net:
        return
    kinds = [part.get("type") for part in (net, critic)]
    if kinds[0] != kinds[1]:
        raise Gone(f"agent.critic_net.type: must be that of agent.net ({kinds[0]!r}), got {kinds[1]!r}")
    del agent["critic_net"]
    own = {key: value for key, value in critic.items() if key not in _APART}
    # what it left out had the default, not the value of the other net
    unsaid = {key: value for key, value in net_defaults(net.get("type")).items() if net.get(key, value) != value}
    net.update({f"critic_{key}": value for key, value in {**unsaid, **own}.items() if key not in _APART})
    for key in ("shared", "use_same_optim"):
        if net.get(key) is True:
            net[key] = False
    draft.note("agent.critic_net", "its keys are now keys of agent.net, with 'critic_' before them")
    space = draft.spec.get("search")
    paths = dict(leaves(space)) if isinstance(space, dict) else {}
    if any(path.startswith(_OLD) for path in paths):
        draft.spec["search"] = {
            _NEW + path.removeprefix(_OLD) if path.startswith(_OLD) else path: value for path, value in paths.items()
        }
    if "Renorm" in str(critic.get("arc", "")):
        text = "batch renormalization corrects in full after warmup_steps and not before; it did so more and more"
        draft.note("agent.net.critic_arc", text)
