"""The documentation: its examples run, its reference misses no key."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from slm_lab.lib.registry import lookup, names

ROOT = Path(__file__).resolve().parents[2]
EXTENDING = (ROOT / "docs" / "extending.md").read_text()
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
OFF_POLICY = {
    "algorithm": "DQN",
    "keys": "training_frequency: 4, training_start_step: 32",
    "memory": "Replay, batch_size: 8, max_size: 100",
}
RESIDUAL = {"type": "ResidualNet", "width": 8, "optim_spec": {"name": "Adam", "lr": 1e-3}}
CHANGES = {
    "corridor": (ON_POLICY, {"env.name": "corridor:Corridor-v0", "env.length": 5}),
    "residual": (ON_POLICY, {"agent.net": RESIDUAL}),
    "novelty": (OFF_POLICY, {"agent.memory.name": "NoveltyReplay"}),
}


def examples() -> dict[str, str]:
    """Modules of the page, by name."""
    blocks = re.findall(r"```python\n(.*?)```", EXTENDING, re.DOTALL)
    return {block.splitlines()[0].removeprefix("# ").removesuffix(".py"): block for block in blocks}


def test_every_example_is_tried() -> None:
    assert set(examples()) == set(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
def test_example_trains_and_resumes(name: str, tmp_path: Path) -> None:
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
    script = (
        "from slm_lab import api; done = api.run('spec.yaml', 'tiny', out='out');"
        "assert not done.crashed, done.crashed; print(done.metrics['frame'])"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) == 200


@pytest.fixture(scope="module")
def reference() -> str:
    sys.path.insert(0, str(ROOT / "docs"))
    import generate

    return str(generate.reference())


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
