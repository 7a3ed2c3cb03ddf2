"""What the README shows works: its spec, its library page, its one-file algorithm, its links."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from slm_lab.spec.load import load_spec
from slm_lab.spec.search import DISTRIBUTIONS
from slm_lab.spec.search_parse import parse_search

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def block(language: str, word: str) -> str:
    """The one code block of that language that contains the word."""
    (found,) = [code for code in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if word in code]
    return str(found)


def python(code: str, folder: Path) -> str:
    """Run it in a folder outside the repository."""
    env = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_spec_is_valid() -> None:
    spec = load_spec(yaml.safe_load(block("yaml", "my_ppo")), "my_ppo", sets={"env": "CartPole-v1"})
    assert spec.env.name == "CartPole-v1"
    assert spec.agent.net.for_role("actor").init_std == 0.01
    assert spec.agent.net.for_role("critic").init_std is None


def test_search_block_is_valid() -> None:
    shown = json.loads("{" + block("json", '"search"') + "}")
    spec = load_spec("ppo/ppo_cartpole.json", "ppo_cartpole").to_dict()
    axes = parse_search(load_spec({**spec, "meta": {**spec["meta"], **shown["meta"]}, "search": shown["search"]}))
    assert [axis.path for axis in axes] == ["agent.algorithm.lr", "agent.net.hid_layers"]
    table = README[README.index("| distribution |") : README.index("| key of `meta` |")]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row[: row.find("|", 1)])]
    assert sorted(named) == sorted(DISTRIBUTIONS)


def test_library_page(tmp_path: Path) -> None:
    out = python(block("python", "api.load_agent"), tmp_path).splitlines()
    folder, score, final = out[0].split()
    assert Path(folder).parent == tmp_path / "results"
    assert float(score) > 0
    assert float(final) > 0
    assert len(out[1].split(",")) == 3
    assert out[2] in ("0", "1")


def test_one_file_algorithm(tmp_path: Path) -> None:
    (tmp_path / "awr.py").write_text(block("python", '@register("algorithm")'))
    sets = {
        "agent.algorithm.name": "AWR",
        "agent.algorithm.beta": "0.5",
        "env.max_frame": "3000",
        "meta.plugins": '["awr"]',
        "meta.max_session": "1",
    }
    code = (
        "from slm_lab import api\n"
        f"spec = api.load_spec('a2c/a2c_cartpole.json', 'a2c_gae_cartpole', sets={sets!r})\n"
        "result = api.run(spec)\n"
        "assert not result.crashed, result.crashed\n"
        "policy = api.load_agent(result.folder)\n"
        "print(type(spec.agent.algorithm).__name__, policy.act([0, 0, 0, 0]) in (0, 1))"
    )
    assert python(code, tmp_path).split() == ["AWRSpec", "True"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CLAUDE.md", "BENCHMARKS.md", "benchmark/README.md"])
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_bundled_specs_that_are_named_exist() -> None:
    pairs = re.findall(r"`(\w+/\w+\.json)` `(\w+)`", README)
    assert len(pairs) == 11
    for file, name in pairs:
        assert load_spec(file, name).name == name


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "validate",
        "schema",
        "compare",
        "report",
        "plot",
        "eval",
        "export",
        "list-runs",
        "push",
        "list",
        "pull",
        "run-remote",
    ],
)
def test_options_that_are_named_exist(command: str) -> None:
    script = Path(sys.executable).with_name("slm-lab")
    text = subprocess.run([script, command, "--help"], capture_output=True, text=True, check=True).stdout
    if command == "run":
        table = README[README.index("| option of `run`") : README.index("Modes with `@`")]
        named = re.findall(r"`(?:-s`, `)?(--[a-z-]+)", table)
        assert len(named) >= 11
        assert [name for name in named if name not in text] == []
    assert f"`slm-lab {command}" in README
