"""From SLM-Lab 4: agents and envs in lists, frames joined by the env, an OpenAI gym."""

from typing import Any

from slm_lab.spec.past.common import ACTOR_CRITICS
from slm_lab.spec.past.draft import Draft, number, text
from slm_lab.spec.past.envs import MANY_JOINTS, is_atari, is_open

DOWNSIZED = [84, 84]


def unwrap(draft: Draft) -> None:
    """One agent, one env; no body, no sweep."""
    lists = [key for key in ("agent", "env") if isinstance(draft.spec.get(key), list)]
    for key in lists:
        [draft.spec[key]] = draft.spec[key]
    if lists:
        draft.note(" and ".join(lists), "an object, in place of a list of one")
    draft.spec.pop("spec_params", None)


def env(draft: Draft) -> None:
    """What the env did to observations and rewards."""
    env_id = text(draft.env.get("name"))
    images = text(draft.net.get("type")).endswith("ConvNet")
    if is_atari(env_id) or (is_open(env_id) and images):
        _atari(draft, env_id)
    else:
        _other(draft)
    if number(draft.env.get("max_t")) is not None and draft.num_envs > 1:
        del draft.env["max_t"]
        draft.note("env.max_t", "left out: it had no effect with several envs")


def _atari(draft: Draft, env_id: str) -> None:
    here = draft.env
    here.pop("frame_op", None)
    length = here.pop("frame_op_len", None)
    frames = number(length) or 1
    if frames != 4:
        told = f"{frames:g} pictures at once, as frame_op_len said; by default there are 4"
        draft.put("env.stack_num", int(frames), told)
    elif length is not None:
        draft.note("env.frame_op", "left out: Atari envs show the last 4 pictures by themselves")
    size = here.pop("image_downsize", None)
    if isinstance(size, list) and len(size) == 2 and size != DOWNSIZED:
        here["img_width"], here["img_height"] = size
        draft.note("env.image_downsize", "now img_width and img_height")
    _drop_normalize_state(draft)
    scale = here.get("reward_scale")
    if scale == "sign":
        del here["reward_scale"]
        draft.note("env.reward_scale", "'sign' is the default of Atari games: env.clip_reward 1")
    elif scale is None or number(scale) is not None:
        if scale in (None, 1):
            here.pop("reward_scale", None)
        draft.put("env.clip_reward", False, "false: without reward_scale 'sign', rewards were not clipped")
    draft.put("env.life_loss_info", True, "true: a lost life ended an episode in training")
    if env_id.endswith("-v4") or is_open(env_id):
        draft.put("env.repeat_action_probability", 0.0, "0: actions did not stick")


def _other(draft: Draft) -> None:
    here = draft.env
    length = number(here.get("frame_op_len"))
    if here.get("frame_op") is None or length is None:
        stated = [key for key in ("frame_op", "frame_op_len") if here.pop(key, None) is not None]
        if stated:
            draft.note(f"env.{stated[0]}", "left out: it had no effect here")
    if "image_downsize" in here:
        draft.drop("env", "image_downsize")
    _drop_normalize_state(draft)


def _drop_normalize_state(draft: Draft) -> None:
    if draft.env.pop("normalize_state", None):
        draft.env["normalize_obs"] = True
        told = "now normalize_obs: each element by its own mean and deviation, not all by one"
        draft.note("env.normalize_state", told)


def agent(draft: Draft) -> None:
    """Defaults and names that differ from those of version 5."""
    algorithm, memory = draft.algorithm, draft.memory
    name = algorithm.get("name")
    if name == "Reinforce":
        draft.note("agent.algorithm.name", "Reinforce learns from standardized returns; it took them as they were")
    if name in ("ActorCritic", "SIL") and algorithm.get("lam") is None:
        draft.note("agent.algorithm.name", f"{name} standardizes advantages over the batch, those without lam too")
    if name == "SoftActorCritic":
        _soft_actor_critic(draft)
    greedy = algorithm.get("action_policy") == "epsilon_greedy"
    if greedy and name not in ACTOR_CRITICS and algorithm.get("action_pdtype") in ("default", "Categorical", None):
        told = "epsilon_greedy takes the best action; without action_pdtype Argmax it drew from softmax(Q)"
        draft.note("agent.algorithm.action_policy", told)
    many = MANY_JOINTS.fullmatch(text(draft.env.get("name")))
    if many and name in (*ACTOR_CRITICS, "Reinforce") and algorithm.get("action_pdtype") in ("default", None):
        told = "MultivariateNormal, as by default it was: the net gives variances"
        draft.put("agent.algorithm.action_pdtype", "MultivariateNormal", told)
    if memory.get("use_cer") is True:
        draft.note("agent.memory.use_cer", "all transitions since the last batch are in the next one; the newest was")
    _net(draft)


def _soft_actor_critic(draft: Draft) -> None:
    algorithm = draft.algorithm
    size: Any = draft.memory.get("batch_size")
    if algorithm.get("training_start_step") is None and number(size) is not None:
        draft.put("agent.algorithm.training_start_step", size, f"{size}, as by default it was: batch_size")
    if algorithm.get("action_pdtype") == "GumbelSoftmax":
        draft.put(
            "agent.algorithm.action_pdtype",
            "Categorical",
            "Categorical: expectations over discrete actions are exact, not by GumbelSoftmax samples; "
            "their target entropy is 0.6 ln n, as -n can't be reached",
        )


def _net(draft: Draft) -> None:
    for path, net in draft.nets():
        if text(net.get("type")).endswith("MLPNet") and "batch_norm" in net:
            draft.drop(path, "batch_norm")
        if "gpu" not in net:
            draft.put(f"{path}.gpu", False, "false, as by default it was (now: auto)")
    for path, optim in draft.net_parts("optim_spec"):
        name = optim.get("name")
        if name in ("Lookahead", "RAdam"):
            for key in ("optimizer", "alpha", "k"):
                optim.pop(key, None)
            draft.put(f"{path}.name", "AdamW", f"{name} is AdamW, as in SLM-Lab 5")
