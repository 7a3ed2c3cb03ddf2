"""`slm-lab run-remote`: what is refused before a machine is rented."""

import json
from pathlib import Path
from typing import Any

from support.specs import TINY

SHOW = ("--no-upload", "--dry-run")


def test_a_sweep_is_more_than_one_run(slm: Any, folder: Path) -> None:
    """Each of its specs has a run folder of its own, and a job has one."""
    old = {
        "agent": [{"name": "Random", "algorithm": {"name": "Random"}, "memory": {"name": "OnPolicyReplay"}, "net": {}}],
        "env": [{"name": "${env}", "max_frame": 40}],
        "body": {"product": "outer", "num": 1},
        "meta": {"distributed": False, "max_session": 1, "max_trial": 1},
        "spec_params": {"env": ["CartPole-v1", "Acrobot-v1"]},
    }
    (folder / "old.json").write_text(json.dumps({"x": old}))
    done = slm("run-remote", "old.json", "x", *SHOW)
    assert done.exit_code == 2, done.output
    assert "stands for 2 specs (spec_params): name one of x_CartPole-v1, x_Acrobot-v1" in done.stderr
    done = slm("run-remote", "old.json", "x_Acrobot-v1", *SHOW)
    assert done.exit_code == 0, done.stderr
    assert "job/old.json x_Acrobot-v1 train --folder x_Acrobot-v1_" in done.stdout


def test_a_search_that_can_not_be_run(slm: Any, folder: Path) -> None:
    searched = TINY | {"search": {"agent.algorithm.gamm__uniform": [0.9, 0.99]}}
    (folder / "tiny.json").write_text(json.dumps({"tiny": searched}))
    done = slm("run-remote", "tiny.json", "tiny", "search", *SHOW)
    assert done.exit_code == 2, done.output
    assert "did you mean 'agent.algorithm.gamma'?" in done.stderr
    assert slm("run-remote", "tiny.json", "tiny", "train", *SHOW).exit_code == 0
