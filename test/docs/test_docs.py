"""The documentation: its examples run, its tables are complete, its links lead somewhere."""

import json
import re
import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from support.forked import run_forked
from support.pages import block, page
from typer.testing import CliRunner

from slm_lab import api
from slm_lab.agent.sinks import SinkRun
from slm_lab.cli.app import app
from slm_lab.experiment.trial.check import require
from slm_lab.lib.registry import lookup, names
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import SinkSpec
from slm_lab.spec.search import DISTRIBUTIONS
from slm_lab.spec.search_parse import parse_search

ROOT = Path(__file__).resolve().parents[2]
SPEC = """
tiny:
  agent:
    name: x
    algorithm: {name: %(algorithm)s, %(keys)s}
    memory: {name: %(memory)s}
    net: {type: MLPNet, hid_layers: [8], optim_spec: {name: Adam, lr: 1.0e-3}}
  env: {name: CartPole-v1, num_envs: 2, max_frame: 200}
  meta: {version: 6, max_session: 1, log_frequency: 100, compile: "off"}
"""
ON_POLICY = {"algorithm": "ActorCritic", "keys": "training_frequency: 10", "memory": "OnPolicyBatchReplay"}
PPO = {
    "algorithm": "PPO",
    "keys": "time_horizon: 10, minibatch_size: 10, training_epoch: 2, clip_eps_spec: {name: no_decay, start_val: 0.2}",
    "memory": "OnPolicyBatchReplay",
}
OFF_POLICY = {
    "algorithm": "DQN",
    "keys": "training_frequency: 4, training_start_step: 32",
    "memory": "Replay, batch_size: 8, max_size: 100",
}
RESIDUAL = {"type": "ResidualNet", "width": 8, "optim_spec": {"name": "Adam", "lr": 1e-3}}
CHANGES = {
    "corridor": (ON_POLICY, {"env.name": "corridor:Corridor-v0", "env.length": 5}),
    "slippery": (ON_POLICY, {"env.name": "slippery:Slippery-v0", "env.slip": 0.2, "env.vectorization": "tensor"}),
    "residual": (ON_POLICY, {"agent.net": RESIDUAL}),
    "novelty": (OFF_POLICY, {"agent.memory.name": "NoveltyReplay"}),
    "pull": (PPO, {"agent.algorithm.name": "PullPPO", "agent.algorithm.pull_coef": 0.5}),
    "awr": (ON_POLICY, {"agent.algorithm.name": "AWR", "agent.algorithm.beta": 0.5}),
    "json_lines": (ON_POLICY, {"meta.sinks": ["json_lines"]}),
}


def examples() -> dict[str, str]:
    """Modules of the page on extending, by name."""
    blocks = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", page("docs/extending.md"), re.DOTALL)
    return dict(blocks)


def test_every_example_is_tried() -> None:
    assert set(examples()) == set(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
def test_example_trains(name: str, tmp_path: Path) -> None:
    code = examples()[name]
    assert 15 <= len([line for line in code.splitlines() if line.strip()]) <= 40
    (tmp_path / f"{name}.py").write_text(code)
    base, changes = CHANGES[name]
    spec = yaml.safe_load(SPEC % base)["tiny"]
    spec["meta"]["plugins"] = [name]
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = spec
        for key in parents:
            place = place[key]
        place[last] = value
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({"tiny": spec}))
    out = run_forked(
        "from slm_lab import api; done = api.run('spec.yaml', 'tiny', out='out');"
        "assert not done.crashed, done.crashed; policy = api.load_agent(done.folder);"
        "env = policy.make_env(); policy.act(env.reset(seed=0)[0]); print(done.metrics['frame'])",
        tmp_path,
    )
    assert float(out.split()[-1]) == 200
    if name == "json_lines":
        (file,) = tmp_path.glob("out/*/log/*_rows.jsonl")
        assert [json.loads(line)["frame"] for line in file.read_text().splitlines()] == [100, 200]


@pytest.mark.parametrize(("service", "call"), [("wandb", "init().log"), ("mlflow", "log_metrics"), ("trackio", "log")])
def test_sinks_of_services_send_what_is_known(
    service: str, call: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The packages are stand-ins: they are not installed."""
    package = MagicMock()
    package.search_runs.return_value = []
    monkeypatch.setitem(sys.modules, service, package)
    monkeypatch.setattr("slm_lab.lib.registry.register", lambda *_: lambda cls: cls)
    module = types.ModuleType(f"{service}_sink")
    exec(block("docs/extending.md", "python", f"import {service}"), module.__dict__)
    (cls,) = [value for name, value in vars(module).items() if name.endswith("Sink") and name != "Sink"]
    run = SinkRun(name="a_run", trial=0, session=1, stem="a_t0_s1", spec={"name": "a"}, folder=tmp_path)
    sink = cls(SinkSpec(name=service), run)
    sink({"frame": 100, "loss": None, "total_reward": 1.0})
    sink.close()
    sent: Any = package.init.return_value.log if call.startswith("init") else getattr(package, call)
    sent.assert_called_once_with({"frame": 100, "total_reward": 1.0}, step=100)


def test_library_page(tmp_path: Path) -> None:
    out = run_forked(block("docs/library.md", "python", "api.load_agent"), tmp_path).splitlines()[-3:]
    folder, score, final = out[0].split()
    assert Path(folder).parent == tmp_path / "results"
    assert float(score) > 0
    assert float(final) > 0
    assert len(out[1].split(",")) == 3
    assert out[2] in ("0", "1")


def test_library_page_names_every_function() -> None:
    named = re.findall(r"^\| `(\w+)\(", page("docs/library.md"), re.MULTILINE)
    assert sorted(named) == [name for name in api.__all__ if name.islower()]


def test_spec_is_valid() -> None:
    shown = block("docs/specs.md", "yaml", "my_ppo")
    spec = load_spec(yaml.safe_load(shown), "my_ppo", sets={"env": "CartPole-v1"})
    assert spec.env.name == "CartPole-v1"
    assert spec.agent.net.for_role("actor").init_std == 0.01
    assert spec.agent.net.for_role("critic").init_std is None


@pytest.mark.parametrize(("name", "updates"), [("sb3_dqn", 25_000), ("cleanrl_ppo", 976 * 16)])
def test_ported_specs_train_as_often_as_there(name: str, updates: int) -> None:
    spec = load_spec(yaml.safe_load(block("docs/coming-from.md", "yaml", name)), name)
    require(spec)
    keys = vars(spec.agent.algorithm)
    if name == "sb3_dqn":
        assert spec.env.max_frame // keys["training_frequency"] * keys["training_iter"] == pytest.approx(
            updates, rel=0.01
        )
        assert keys["explore_var_spec"].end_step == 0.16 * spec.env.max_frame
    else:
        rollout = spec.env.num_envs * keys["time_horizon"]
        epochs = keys["training_epoch"] * rollout // keys["minibatch_size"]
        assert spec.env.max_frame // rollout * epochs == updates
        assert spec.agent.net.lr_scheduler_spec.frame == spec.env.max_frame


def test_search_block_is_valid() -> None:
    shown = json.loads("{" + block("docs/search.md", "json", '"search"') + "}")
    spec = load_spec("ppo/ppo_cartpole.json", "ppo_cartpole").to_dict()
    axes = parse_search(load_spec({**spec, "meta": {**spec["meta"], **shown["meta"]}, "search": shown["search"]}))
    assert [axis.path for axis in axes] == ["agent.algorithm.lr", "agent.net.hid_layers"]
    text = page("docs/search.md")
    table = text[text.index("| distribution |") : text.index("| key of `meta` |")]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row[: row.find("|", 1)])]
    assert sorted(named) == sorted(DISTRIBUTIONS)


@pytest.mark.parametrize(
    "command",
    [
        *("run", "validate", "migrate", "schema", "compare", "report", "plot", "eval", "export", "list-runs"),
        *("push", "list", "pull", "run-remote"),
    ],
)
def test_options_that_are_named_exist(command: str) -> None:
    text = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    tables = {
        "run": ("docs/cli.md", "| option of `run`", "Modes with `@`", 18),
        "report": ("docs/results.md", "| `-o`, `--output FILE`", "It reads the tables", 10),
        "compare": ("docs/results.md", "| `-m`, `--metric NAME`", "The statistics are", 5),
    }
    if command in tables:
        path, start, end, count = tables[command]
        table = page(path)[page(path).index(start) : page(path).index(end)]
        named = set(re.findall(r"`(--[a-z-]+)", table))
        assert len(named) >= count
        assert [name for name in sorted(named) if name not in text] == []
    assert f"`slm-lab {command}" in page("docs/cli.md")
    assert f"`slm-lab {command}" in page("README.md")


PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("name", PAGES)
def test_links_between_pages_lead_somewhere(name: str) -> None:
    folder = (ROOT / name).parent
    links = re.findall(r"\]\(([^)#]+\.md)(?:#([^)]*))?\)", page(name))
    for target, anchor in links:
        if target.startswith("generated/"):
            continue
        assert (folder / target).exists(), target
        headings = re.findall(r"^#+ (.*)", (folder / target).read_text(), re.MULTILINE)
        slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not anchor or anchor in slugs, f"{target}#{anchor}"


@pytest.fixture(scope="module")
def generated() -> Any:
    """The module that writes the generated pages."""
    sys.path[:0] = [str(ROOT / "docs"), str(ROOT / "benchmark")]
    import generate

    return generate


@pytest.fixture(scope="module")
def reference(generated: Any) -> str:
    return str(generated.reference())


def test_the_page_of_an_algorithm_has_its_scores_and_curves(generated: Any) -> None:
    page = generated.algorithm_page(generated.algorithm_modules()["dqn"])
    for label, name in (("DQN", "dqn_cartpole"), ("DDQN+PER", "ddqn_per_cartpole")):
        assert f"| CartPole-v1 | {label} | `dqn/{name}.json` `{name}` | 200,000 | 10 |" in page
    assert "![Learning curves of dqn](dqn.svg)" in page
    assert (ROOT / "docs/generated/algorithms/dqn.svg").read_text().startswith("<?xml")
    # rows of one spec that differ in a key that the suite sets
    masks = generated.algorithm_page(generated.algorithm_modules()["ppo"])
    assert masks.count("| PPO with masks |") == masks.count("| PPO without masks |") == 1
    assert "Not measured yet" in generated.algorithm_page(generated.algorithm_modules()["random"])


def test_the_reference_names_every_key(reference: str) -> None:
    for kind in ("algorithm", "memory", "net"):
        for name in names(kind):
            section = reference.split(f"\n### {name}\n")[1].split("\n### ", maxsplit=1)[0].split("\n## ", maxsplit=1)[0]
            fields = lookup(kind, name).Spec.model_fields
            roles = {f"{role}_{key}" for role in ("actor", "critic") for key in fields}
            missing = [k for k, f in fields.items() if k not in roles and f"| `{f.alias or k}` |" not in section]
            assert missing == []


def test_every_key_of_env_and_meta_has_a_meaning(reference: str) -> None:
    for title in ("env", "meta"):
        section = reference.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]
        rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
        assert rows
        assert [row[0] for row in rows if len(row[-1].strip(" |")) < 3] == []
