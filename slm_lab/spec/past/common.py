"""Steps that the specs of all old versions take: defects corrected, and defaults that are others now."""

from typing import Any

from slm_lab.spec.past.draft import Data, Draft, Gone, number, text
from slm_lab.spec.past.envs import is_open, modern, why_gone

ACTION_VALUES = ("SARSA", "VanillaDQN", "DQN", "DoubleDQN")
ACTOR_CRITICS = ("ActorCritic", "PPO", "SIL", "PPOSIL")
POLICIES = ("Reinforce", *ACTOR_CRITICS)
REMEMBERING = ("Random", "Reinforce", "ActorCritic", "PPO", "SARSA")
"""Algorithms that learn from their own rollouts alone."""
SCHEDULES = ("clip_eps_spec", "entropy_coef_spec", "explore_var_spec")
WHOLE_EPISODES = ("OnPolicyReplay", "OnPolicyCrossEntropy")
PIXELS_AS_THEY_WERE = "false, as by default it was: pixels from 0 to 255 (now: from 0 to 1)"


def refuse(draft: Draft) -> None:
    """Stop at what no longer exists.

    Raises:
        Gone: with one line.
    """
    for path, part in (("agent", draft.spec.get("agent")), ("env", draft.spec.get("env"))):
        if isinstance(part, list) and len(part) != 1:
            raise Gone(f"{path}: {len(part)} {path}s in one spec: multi-{path} bodies no longer exist")
    name = text(draft.algorithm.get("name"))
    if name.startswith("Hydra"):
        raise Gone(f"agent.algorithm.name: {name} no longer exists")
    if text(draft.net.get("type")).startswith("Hydra"):
        raise Gone(f"agent.net.type: {draft.net['type']} no longer exists")
    if "arc_file" in draft.net:
        raise Gone("agent.net.arc_file: not supported, put the content of that file under 'arc'")
    env_id = text(draft.env.get("name"))
    if why := why_gone(env_id):
        raise Gone(f"env.name: '{env_id}': {why}")
    for path, schedule in draft.net_parts("lr_scheduler_spec"):
        if schedule.get("name") == "LinearToMin":
            raise Gone(f"{path}.name: LinearToMin was never part of SLM-Lab")


def rename_env(draft: Draft) -> None:
    """The env by its present id."""
    env_id = text(draft.env.get("name"))
    new_id, remark = modern(env_id)
    if env_id == "CartPole-v0":
        limit = number(draft.env.get("max_t"))
        draft.env["max_t"] = 200 if limit is None else min(int(limit), 200)
        remark = "max_t keeps its limit of 200 steps"
    if "repeat_action_probability" in draft.env:
        remark = ""
    if new_id != env_id and not is_open(env_id):
        draft.put("env.name", new_id, f"'{env_id}' is now '{new_id}'" + (f"; {remark}" if remark else ""))


def correct_schedules(draft: Draft) -> None:
    """Schedules do what they say: they decay to 0, rise, stay."""
    for key in SCHEDULES:
        schedule = draft.algorithm.get(key)
        if isinstance(schedule, dict):
            _correct_schedule(draft, f"agent.algorithm.{key}", schedule)


def _correct_schedule(draft: Draft, path: str, schedule: Data) -> None:
    kind, start, end = schedule.get("name"), number(schedule.get("start_val")), number(schedule.get("end_val"))
    first, last = number(schedule.get("start_step")) or 0, number(schedule.get("end_step"))
    if start is None:
        return
    if kind == "no_decay":
        if end and end != start:
            draft.note(path, f"no_decay stays at start_val {start:g}; it was end_val {end:g} from the first update on")
        return
    if schedule.get("end_val") is None:
        schedule["end_val"] = end = start
    if end is None or last is None:
        return
    if last <= first or start == end:
        value = end if last <= first else start
        constant = {"name": "no_decay", "start_val": value}
        draft.put(path, constant, f"no_decay at {value:g}: {kind} had nothing to change over time")
    elif end == 0:
        if path.endswith("explore_var_spec") and draft.algorithm.get("action_policy") == "boltzmann":
            constant = {"name": "no_decay", "start_val": start}
            draft.put(path, constant, f"no_decay at {start:g}, as it was: a temperature can't decay to 0")
        else:
            draft.note(path, f"really decays to 0; it stayed at start_val {start:g}")
    elif end > start:
        draft.note(path, f"really rises from {start:g} to {end:g}; it jumped there at start_step")
    elif kind == "periodic_decay":
        draft.note(path, "really is a wave; it stayed at end_val")


def correct_policy(draft: Draft) -> None:
    """How actions are chosen."""
    algorithm = draft.algorithm
    name, path, pdtype = algorithm.get("name"), "agent.algorithm.action_policy", algorithm.get("action_pdtype")
    policy = text(algorithm.get("action_policy"))
    if policy.startswith("multi_"):
        policy = policy.removeprefix("multi_")
        draft.put(path, policy, f"{policy}: there is one body only")
    if name in POLICIES and policy not in ("default", ""):
        why = f"{name} learns from draws of its own policy, '{policy}' made them those of another"
        draft.put(path, "default", f"default: {why}")
    if name in POLICIES and pdtype == "NormalTanh":
        draft.put("agent.algorithm.action_pdtype", "Normal", "Normal: NormalTanh was never part of SLM-Lab")
    if name in ACTION_VALUES:
        if policy == "boltzmann" and pdtype == "Argmax":
            why = "with Argmax, boltzmann never explored"
            draft.put("agent.algorithm.action_pdtype", "Categorical", f"Categorical: {why}")
        elif pdtype not in (None, "default", "Argmax", "Categorical"):
            draft.drop("agent.algorithm", "action_pdtype")
        if policy == "random":
            raise Gone(f"{path}: 'random' belongs to the algorithm Random")


def correct_agent(draft: Draft) -> None:
    """Corrected defects of single algorithms and memories."""
    name, memory, n = draft.algorithm.get("name"), draft.memory, draft.num_envs
    if name == "DQNBase":
        draft.put("agent.algorithm.name", "DQN", "DQNBase is DQN")
    if name in ("PPO", "PPOSIL"):
        _correct_ppo(draft, n)
    if name in ("SIL", "PPOSIL"):
        told = f"{name} imitates returns of whole episodes; they were summed over random batches"
        draft.note("agent.algorithm.name", told)
    if memory.get("name") in WHOLE_EPISODES and n > 1:
        draft.note("agent.memory.name", f"{memory['name']} works with several envs now; it never gave a batch")


def _correct_ppo(draft: Draft, n: int) -> None:
    algorithm = draft.algorithm
    if algorithm.get("minibatch_size") is None and "time_horizon" in algorithm:
        size = -(-4 // n) * n
        draft.put("agent.algorithm.minibatch_size", size, f"{size}, as by default it was 4, rounded up to whole envs")
    if algorithm.get("entropy_coef_spec") is None:
        draft.note("agent.algorithm.entropy_coef_spec", "no entropy bonus; the loss was not a number")
    horizon = number(algorithm.get("time_horizon"))
    if horizon is not None and horizon % n:
        told = f"{horizon:g} steps per env; they were rounded up to a multiple of num_envs"
        draft.note("agent.algorithm.time_horizon", told)


def complete_net(draft: Draft) -> None:
    """Defaults of nets that are others now, and names of optimizers that are gone."""
    if draft.algorithm.get("name") == "Random" and draft.at("agent").get("net") == {}:
        told = "an MLPNet without hidden layers in place of {}: Random uses none"
        draft.put("agent.net", {"type": "MLPNet", "hid_layers": []}, told)
    for path, net in draft.nets():
        images = net.get("type") in ("ConvNet", "DuelingConvNet")
        if images and "normalize" not in net:
            draft.put(f"{path}.normalize", False, PIXELS_AS_THEY_WERE)
        if net.get("type") == "ConvNet" and "batch_norm" not in net:
            draft.put(f"{path}.batch_norm", True, "true, as by default it was")
        every = number(net.get("update_frequency"))
        if every is not None and (every < 1 or every != int(every)):
            whole = max(round(every), 1)
            draft.put(f"{path}.update_frequency", whole, f"{whole}: frames are whole (it was {every:g})")
    for path, optim in draft.net_parts("optim_spec"):
        name = text(optim.get("name"))
        if name in ("GlobalAdam", "GlobalRMSprop"):
            plain = name.removeprefix("Global")
            draft.put(f"{path}.name", plain, f"{name} is {plain}")


def recur(draft: Draft) -> None:
    """Recurrent nets: with a memory where the policy's own rollouts are learned from, else over a window."""
    net, length = draft.net, number(draft.net.get("seq_len"))
    if net.get("type") != "RecurrentNet" or length is None or length < 1:
        return
    for key in ("frame_op", "frame_op_len"):
        draft.env.pop(key, None)
    if draft.algorithm.get("name") not in REMEMBERING:
        draft.env.update(frame_op="stack", frame_op_len=int(length))
        told = f"RecurrentWindowNet: reads the last {length:g} observations, which the env stacks"
        draft.put("agent.net.type", "RecurrentWindowNet", told)
        return
    told = f"RecurrentNet remembers the whole episode; gradients go back seq_len ({length:g}) steps"
    draft.note("agent.net.type", told)
    rollout = number(rollout_length(draft))
    if draft.memory.get("name") == "OnPolicyBatchReplay" and rollout is not None and rollout % length:
        fits = next(n for n in range(int(length), 0, -1) if rollout % n == 0)
        draft.put("agent.net.seq_len", fits, f"{fits}, as it must divide the {rollout:g} steps of a rollout")


def distribute(draft: Draft) -> None:
    """Sessions that learn together: on-policy ones, on the CPU."""
    meta, name = draft.at("meta"), draft.algorithm.get("name")
    if not meta.get("distributed") or not isinstance(name, str):
        return
    if name not in (*POLICIES, "SARSA"):
        meta["max_session"] = 1
        draft.put("meta.distributed", False, f"false, with one session: {name} learns in one process")
    elif draft.net.get("gpu") is True:
        draft.put("agent.net.gpu", "auto", "auto: sessions that learn together do so on the CPU")


def rollout_length(draft: Draft) -> Any:
    """What the spec says of the steps between two trainings.

    >>> rollout_length(Draft({"agent": {"algorithm": {"lam": None, "num_step_returns": 5, "training_frequency": 1}}}))
    5
    """
    algorithm = draft.algorithm
    if algorithm.get("time_horizon") is not None:
        return algorithm["time_horizon"]
    by_steps = algorithm.get("num_step_returns") if algorithm.get("lam") is None else None
    return algorithm.get("training_frequency") if by_steps is None else by_steps


def keep_number_of_updates(draft: Draft) -> None:
    """As many updates from a replay memory as the spec had: once a vector step at most then, by frames now."""
    algorithm, n, path = draft.algorithm, draft.num_envs, "agent.algorithm.training_frequency"
    if draft.memory.get("name") not in ("Replay", "PrioritizedReplay"):
        return
    draft.drop_all("agent.algorithm", ("num_step_returns",))
    searched = draft.spec.get("search")
    if isinstance(searched, dict):
        _raise_choices(draft, searched, n, "")
    like_sac = algorithm.get("name") in ("SoftActorCritic", "CrossQ")
    every = number(algorithm.get("training_frequency", 1 if like_sac else None))
    if every is not None and 0 < every < n:
        draft.put(path, n, f"{n}, as it was with {n} envs: one training a vector step; {every:g} now counts frames")
    if like_sac and algorithm.get("training_iter") is None and (n > 1 or "training_iter" in algorithm):
        draft.put("agent.algorithm.training_iter", n, f"{n}, as by default it was: num_envs")


def _raise_choices(draft: Draft, space: Data, n: int, above: str) -> None:
    """Searched frequencies below `n` had the effect of n."""
    for key, value in space.items():
        name, _, distribution = key.partition("__")
        path = f"{above}{name}"
        if not distribution and isinstance(value, dict):
            _raise_choices(draft, value, n, f"{path}.")
        elif path == "agent.algorithm.training_frequency" and isinstance(value, list):
            raised: list[Any] = [n if (number(x) or n) < n else x for x in value]
            if raised != value:
                space[key] = raised
                draft.note(f"search.{path}", f"at least {n}, as it was with {n} envs; it now counts frames")
        elif path == "env.num_envs":
            draft.note(f"search.{path}", "no longer changes the number of updates; it did")
