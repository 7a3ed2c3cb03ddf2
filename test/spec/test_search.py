"""The search space: what each distribution means, and how a wrong block is told."""

import math
from typing import Any

import pytest
from support.specs import replace

from slm_lab.lib.errors import SpecError
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec
from slm_lab.spec.search import DISTRIBUTIONS, Axis, Domain, apply, grid
from slm_lab.spec.search_parse import parse_search


@pytest.fixture(scope="module")
def spec() -> Spec:
    return load_spec("ppo/ppo_cartpole.json", "ppo_cartpole")


def search(spec: Spec, **block: Any) -> list[Axis]:
    return parse_search(replace(spec, "search", block))


def faults(spec: Spec, block: Any) -> list[str]:
    with pytest.raises(SpecError) as error:
        parse_search(replace(spec, "search", block))
    return error.value.faults


FLAT = {
    "agent.algorithm.gamma__uniform": [0.9, 0.999],
    "agent.algorithm.lr__loguniform": [1e-4, 1e-2],
    "agent.net.hid_layers__choice": [[64], [64, 64]],
    "env.num_envs__grid_search": [4, 8],
}
NESTED = {
    "agent": {
        "algorithm": {"gamma__uniform": [0.9, 0.999], "lr__loguniform": [1e-4, 1e-2]},
        "net": {"hid_layers__choice": [[64], [64, 64]]},
    },
    "env": {"num_envs__grid_search": [4, 8]},
}


def test_flat_and_nested_say_the_same(spec: Spec) -> None:
    axes = search(spec, **FLAT)
    assert [axis.key for axis in axes] == sorted(FLAT)
    assert axes == search(spec, **NESTED)


RAW = 0.5
CASES: dict[str, tuple[list[float], Domain, float, float]] = {
    "uniform": ([1, 3], Domain("float", 1, 3), 2.5, 2.5),
    "quniform": ([0.5, 2.0, 0.5], Domain("int", 1, 4), 3, 1.5),
    "loguniform": ([0.1, 10], Domain("float", 0.1, 10, log=True), 2.5, 2.5),
    "qloguniform": ([10, 1000, 10], Domain("float", 10, 1000, log=True), 14.0, 10),
    "randint": ([1, 5], Domain("int", 1, 4), 4, 4),
    "qrandint": ([8, 64, 8], Domain("int", 1, 8), 3, 24),
    "lograndint": ([1, 100], Domain("int", 1, 99, log=True), 7, 7),
    "qlograndint": ([8, 64, 8], Domain("float", 8, 64, log=True), 63.9, 64),
    "randn": ([1, 2], Domain("float", 1e-6, 1 - 1e-6), 0.8413447460685429, 3.0),
    "qrandn": ([0, 1, 0.25], Domain("float", 1e-6, 1 - 1e-6), 0.8413447460685429, 1.0),
    "normal": ([1, 2], Domain("float", 1e-6, 1 - 1e-6), 0.15865525393145707, -1.0),
}


@pytest.mark.parametrize("dist", CASES)
def test_distribution(dist: str) -> None:
    """Worked out by hand: the domain, and the value of one raw draw."""
    args, domain, raw, value = CASES[dist]
    axis = Axis("x", dist, tuple(args))
    assert axis.domain == domain
    assert axis.value(raw) == pytest.approx(value, abs=1e-9)
    if domain.kind == "float" and dist[-1] != "n" and dist != "normal":
        low, high = axis.value(domain.low), axis.value(domain.high)
        assert low == pytest.approx(args[0])
        assert high == pytest.approx(args[1])


def test_whole_numbers_stay_whole() -> None:
    assert isinstance(Axis("x", "qlograndint", (8, 64, 8)).value(20.0), int)
    assert isinstance(Axis("x", "randint", (1, 5)).value(2.0), int)
    assert isinstance(Axis("x", "uniform", (1, 5)).value(2), float)


def test_quantized_values_have_no_rounding_tail() -> None:
    axis = Axis("x", "quniform", (0.0, 1.0, 0.1))
    assert [axis.value(k) for k in range(4)] == [0.0, 0.1, 0.2, 0.3]
    assert axis.domain.high == 10


def test_all_distributions_are_covered() -> None:
    assert {*CASES, "choice", "grid_search"} == set(DISTRIBUTIONS)


def test_normal_is_never_infinite() -> None:
    axis = Axis("x", "randn", (0.0, 1.0))
    assert all(math.isfinite(axis.value(raw)) for raw in (axis.domain.low, axis.domain.high))


def test_apply_sets_every_key(spec: Spec) -> None:
    made = apply(
        replace(spec, "search", FLAT),
        {"agent.algorithm.lr": 0.01, "agent.net.hid_layers": [8], "env.num_envs": 2},
    )
    assert (made.agent.algorithm.lr, made.agent.net.hid_layers, made.env.num_envs) == (0.01, [8], 2)  # type: ignore[attr-defined]
    assert made.search is None
    assert made.name == spec.name


def test_grid_has_every_combination(spec: Spec) -> None:
    axes = search(
        spec, **{"env.num_envs__grid_search": [4, 8], "agent.algorithm.gamma__grid_search": [0.9, 0.98, 0.99]}
    )
    assert len(grid(axes)) == 6
    assert grid(search(spec, **{"env.num_envs__choice": [4, 8]})) == [{}]


WRONG: dict[str, tuple[Any, list[str]]] = {
    "no such key": (
        {"agent.algorithm.gama__uniform": [0.9, 0.99]},
        ["search.agent.algorithm.gama__uniform", "names nothing", "did you mean 'agent.algorithm.gamma'?"],
    ),
    "nested": (
        {"agent": {"algorithm": {"gama__uniform": [0.9, 0.99]}}},
        ["search.agent.algorithm.gama__uniform", "did you mean 'agent.algorithm.gamma'?"],
    ),
    "key that would go to gym.make": (
        {"env.num_env__choice": [1, 2]},
        ["search.env.num_env__choice", "did you mean 'env.num_envs'?"],
    ),
    "list index of older specs": (
        {"agent": [{"algorithm": {"gamma__uniform": [0.9, 0.99]}}]},
        ["search.agent.0.algorithm.gamma__uniform", "did you mean 'agent.algorithm.gamma'?"],
    ),
    "single underscore": (
        {"agent.algorithm.training_epoch_choice": [1, 2]},
        ["did you mean 'agent.algorithm.training_epoch__choice'?"],
    ),
    "no distribution": ({"agent.algorithm.gamma": [0.9, 0.99]}, ["search.agent.algorithm.gamma: must end in __"]),
    "unknown distribution": (
        {"agent.algorithm.gamma__unifrom": [0.9, 0.99]},
        ["unknown distribution 'unifrom', did you mean 'uniform'?", "loguniform"],
    ),
    "empty object": ({"agent": {"algorithm": {}}}, ["search.agent.algorithm: holds no searched key"]),
    "not a list": ({"agent.algorithm.gamma__uniform": 0.9}, ["must be a list [low, high] (got 0.9)"]),
    "too many": (
        {"agent.algorithm.gamma__uniform": [0.9, 0.95, 0.99]},
        ["must be [low, high] (got [0.9, 0.95"],
    ),
    "text": ({"agent.algorithm.gamma__uniform": ["0.9", "1"]}, ["must be numbers, [low, high]"]),
    "order": ({"agent.algorithm.gamma__uniform": [0.99, 0.9]}, ["low must be less than high"]),
    "log of zero": ({"agent.algorithm.lr__loguniform": [0, 0.1]}, ["low must be more than 0"]),
    "fractions": ({"agent.algorithm.training_epoch__randint": [1.5, 4]}, ["must be whole numbers"]),
    "multiples": ({"env.num_envs__qrandint": [3, 16, 4]}, ["low and high must be multiples of q"]),
    "no option": ({"env.num_envs__choice": []}, ["must be a list of options (got [])"]),
    "out of range": ({"agent.algorithm.gamma__uniform": [0.9, 1.5]}, ["gamma__uniform: must be at most 1 (got 1.5)"]),
    "an option that is wrong": (
        {"agent.net.hid_layers_activation__choice": ["relu", 3]},
        ["search.agent.net.hid_layers_activation__choice: must be text (got 3)"],
    ),
    "not whole": ({"agent.algorithm.training_epoch__uniform": [1, 4]}, ["must be a whole number"]),
    "twice": (
        {"agent.algorithm.gamma__uniform": [0.9, 0.99], "agent": {"algorithm": {"gamma__choice": [0.9]}}},
        ["'agent.algorithm.gamma' is searched already"],
    ),
    "one inside another": (
        {
            "agent.net.actor_optim_spec__choice": [{"name": "Adam"}, {"name": "SGD"}],
            "agent.net.actor_optim_spec.lr__uniform": [0.1, 0.2],
        },
        ["'agent.net.actor_optim_spec', which holds it, is searched as a whole"],
    ),
    "of the search itself": ({"meta.max_trial__choice": [1, 2]}, ["'meta.max_trial' can't be searched"]),
    "nothing": ({}, ["search: missing"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_block_is_told(spec: Spec, case: str) -> None:
    block, words = WRONG[case]
    told = faults(spec, block)
    assert len(told) == 1
    for word in words:
        assert word in told[0]


def test_all_faults_at_once(spec: Spec) -> None:
    block = {
        "agent.algorithm.gama__uniform": [0.9, 0.99],
        "env.num_envs__choise": [1],
        "agent.algorithm.lam__uniform": [1],
    }
    assert len(faults(spec, block)) == 3


def test_values_that_do_not_go_together(spec: Spec) -> None:
    """A schedule that the spec does not have, of which only a part is searched."""
    bare = replace(spec, "agent.algorithm.entropy_coef_spec", None)
    (told,) = faults(bare, {"agent.algorithm.entropy_coef_spec.start_val__uniform": [0.0, 0.1]})
    assert told.startswith("search: with")
    assert "entropy_coef_spec.name" in told


def test_spec_without_search(spec: Spec) -> None:
    with pytest.raises(SpecError, match="search: missing"):
        parse_search(replace(spec, "search", None))
