"""Every key that spec files of SLM-Lab 4 and 5 use, and which of them the present classes no longer read."""

from typing import Any

from slm_lab.lib.registry import UnknownName, lookup
from slm_lab.spec.basics import SpecModel
from slm_lab.spec.past.draft import Data, Draft, words

ALGORITHM = words(
    "action_pdtype action_policy alpha_anneal_frames alpha_lr center_return clip_eps_spec clip_val_loss clip_vloss "
    "entropy_anneal entropy_coef_spec explore_var_spec fixed_alpha gamma lam log_alpha_max log_alpha_min "
    "minibatch_size normalize_advantages normalize_state normalize_v_targets num_step_returns policy_delay "
    "policy_loss_coef sil_policy_loss_coef sil_val_loss_coef symlog target_entropy time_horizon training_batch_iter "
    "training_epoch training_frequency training_iter training_start_step val_loss_coef"
)
MEMORY = words("alpha batch_size cross_entropy epsilon max_size sil_replay_name use_cer")
NET = words(
    "arc arc_file batch_norm bidirectional cell_type clip_grad_val conv_hid_layers cuda_id fc_hid_layers gpu "
    "hid_layers hid_layers_activation init_fn init_std layer_norm log_std_init loss_spec lr_scheduler_spec normalize "
    "optim_spec out_layer_activation polyak_coef rnn_hidden_size rnn_num_layers seq_len shared update_frequency "
    "update_type use_same_optim"
)
ENV_DEAD = ("device", "unity")
META_DEAD = ("num_cpus", "num_gpus", "search", "train_mode")
WRITTEN_BY_RUNS = words(
    "cuda_offset experiment experiment_ts git_sha graph_prepath info_prepath log_prepath model_prepath predir prepath "
    "random_seed resume session trial"
)
"""Keys of `meta` in the copy of a spec that a run of old wrote beside its results."""
OFF = {"spectral_norm": (False, None), "entropy_penalty_coef": (0, None)}
"""Keys of algorithms that are not part of this version, with the values that turn them off."""
LEGACY = words(
    "agent.algorithm.clip_eps agent.algorithm.entropy_coef agent.net.clip_grad agent.net.lr "
    "agent.net.lr_anneal_timestep agent.net.lr_decay_frequency agent.net.lr_scheduler_spec.rnn_hidden_size "
    "agent.net.lr_scheduler_spec.seq_len agent.net.training_iter"
)
"""Paths that old files search and no version ever had."""
_LEGACY_SECTIONS = (("agent", "agent"), ("env", "unity"))
_SECTIONS = (("algorithm", "name", ALGORITHM), ("memory", "name", MEMORY), ("net", "type", NET))


def known_keys(kind: str, name: Any) -> frozenset[str] | None:
    """Keys that a class reads; None where there is no such class."""
    if not isinstance(name, str):
        return None
    try:
        return frozenset(lookup(kind, name).Spec.model_fields)
    except UnknownName:
        return None


def net_defaults(kind: Any) -> Data:
    """Keys that a net of this type may have once for each role, with their defaults as plain data."""
    if known_keys("net", kind) is None:
        return {}
    fields = lookup("net", kind).Spec.model_fields
    values = {key: field.get_default() for key, field in fields.items() if f"critic_{key}" in fields}
    return {key: v.model_dump(mode="json") if isinstance(v, SpecModel) else v for key, v in values.items()}


def plain(key: str) -> str:
    """A net's key without the prefix of a role.

    >>> plain("actor_optim_spec"), plain("optim_spec")
    ('optim_spec', 'optim_spec')
    """
    return key.removeprefix("actor_").removeprefix("critic_")


def is_dead(spec: Data, section: str, key: str) -> bool:
    """Whether old versions had a key of `agent.<section>`, and the class that the spec names does not read it."""
    for kind, name_key, vocabulary in _SECTIONS:
        if kind == section:
            known = known_keys(kind, Draft(spec).at(f"agent.{kind}").get(name_key))
            return known is not None and key not in known and plain(key) in vocabulary
    return False


def drop_dead(draft: Draft) -> None:
    """Leave out what old files have and nothing reads."""
    draft.drop_all("", ("body",))
    for section, _, _ in _SECTIONS:
        for key in list(draft.at(f"agent.{section}")):
            if is_dead(draft.spec, section, key):
                draft.drop(f"agent.{section}", key)
    for key, off in OFF.items():
        if key in draft.algorithm and draft.algorithm[key] in off:
            draft.drop("agent.algorithm", key)
    draft.drop_all("agent", ("critic_net",))
    draft.drop_all("env", ENV_DEAD)
    draft.drop_all("meta", META_DEAD)
    meta = draft.at("meta")
    written = [key for key in meta if key in WRITTEN_BY_RUNS]
    if len(written) > 1 or (written and written != ["random_seed"]):
        draft.drop_all("meta", written)


def modernize_search(draft: Draft) -> None:
    """The search block: paths without list indices; what could not be searched is left out."""
    space = draft.spec.get("search")
    if isinstance(space, dict):
        draft.spec["search"] = kept = _walk(draft, space, ())
        if not kept and space:
            del draft.spec["search"]


def _walk(draft: Draft, space: Data, path: tuple[str, ...]) -> Data:
    kept: Data = {}
    for key, value in space.items():
        name, _, distribution = key.partition("__")
        here = _without_indices((*path, *name.split(".")))
        new_key = ".".join(here[len(path) :])
        if distribution:
            if _hits_nothing(draft.spec, here):
                draft.dropped.append(_shown(here))
                continue
            if new_key != name:
                draft.note("search", "paths without the index of a list: agent.0.x is agent.x")
            kept[f"{new_key}__{distribution}"] = value
            continue
        inner = _only(value)
        if inner is not value:
            draft.note("search", "an object in place of a list of one")
        below = _walk(draft, inner, here) if isinstance(inner, dict) else {}
        if below:
            kept[new_key] = below
        elif not isinstance(inner, dict) or not inner:
            draft.note(_shown(here), "left out: it names no distribution, such as __uniform")
    return kept


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) else value


def _without_indices(path: tuple[str, ...]) -> tuple[str, ...]:
    """The path without the index of a list of one.

    >>> _without_indices(("agent", "0", "net"))
    ('agent', 'net')
    """
    return (*path[:1], *path[2:]) if path[1:2] == ("0",) and path[0] in ("agent", "env") else path


def _hits_nothing(spec: Data, path: tuple[str, ...]) -> bool:
    if ".".join(path) in LEGACY or path[:2] in _LEGACY_SECTIONS:
        return True
    return len(path) > 2 and path[0] == "agent" and is_dead(spec, path[1], path[2])


def _shown(path: tuple[str, ...]) -> str:
    return ".".join(("search", *path))
