"""The score of saved policies."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slm_lab import api
from slm_lab.experiment.launch import run_spec
from slm_lab.experiment.play.measure import Evaluation, PolicyScore, choose, evaluate
from slm_lab.experiment.session.run import Mode, Options
from slm_lab.lib.errors import LabError
from slm_lab.lib.layout import Layout
from slm_lab.spec.model import Spec


def score(session: int, returns: list[float]) -> PolicyScore:
    return PolicyScore(session, 10, Path("x.pt"), returns, [1] * len(returns))


def test_intervals_by_hand() -> None:
    one = Evaluation([score(0, [1.0, 2.0, 3.0, 4.0])])
    assert one == [1.0, 2.0, 3.0, 4.0]
    assert tuple(one.estimate) == (2.5, 1.5, 3.5)
    # of several policies their means are what is resampled
    many = Evaluation([score(i, [i - 10.0, i + 10.0]) for i in (1, 2, 3, 4)])
    assert tuple(many.estimate) == (2.5, 1.5, 3.5)
    assert many.lengths == [1] * 8
    assert np.isnan(Evaluation([score(0, [5.0])]).estimate.low)


@pytest.fixture(scope="module")
def folder(tiny: Callable[..., Spec], tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = Options(out=tmp_path_factory.mktemp("measured"), device="cpu", progress=False)
    return run_spec(tiny(meta__max_session=2, meta__keep_checkpoints=2), Mode.TRAIN, options).folder


def test_the_latest_policy_in_place_of_the_best_is_told(folder: Path, tmp_path: Path, log_text: list[str]) -> None:
    layout = Layout.open(Path(shutil.copytree(folder, tmp_path / folder.name)))
    for session in (0, 1):
        layout.best(0, session).unlink()
    assert [path.name for path in choose(layout.root, "best", out=tmp_path, all_sessions=True)] == [
        f"tiny_t0_s{session}_ckpt.pt" for session in (0, 1)
    ]
    told = [line.strip() for line in log_text if "no best policy was saved" in line]
    assert told == [
        f"WARNING session {session}: no best policy was saved; using the latest checkpoint, tiny_t0_s{session}_ckpt.pt"
        for session in (0, 1)
    ]


def test_logs_of_sessions_end_with_their_metrics(folder: Path) -> None:
    for session in (0, 1):
        lines = Layout.open(folder).log(f"tiny_t0_s{session}").read_text().split("\n")
        start = next(i for i, line in enumerate(lines) if line.endswith(f"session {session}, train:"))
        assert any("frame 1000 (100%)" in line for line in lines[:start])
        told = " ".join(lines[start + 1 :]).split()
        assert {"total_reward_ma", "final_total_reward", "strength", "stability"} <= set(told)


def test_a_seed_decides_and_envs_share_the_work(folder: Path) -> None:
    found = evaluate(folder, 20, num_envs=8)
    assert len(found) == len(found.lengths) == 20
    # a step of CartPole is a reward of 1
    assert found == [float(n) for n in found.lengths]
    assert found.estimate.low < found.estimate.value < found.estimate.high
    assert found == evaluate(folder, 20, num_envs=8)
    assert found != evaluate(folder, 20, num_envs=8, seed=1)
    drawn = [evaluate(folder, 20, num_envs=8, stochastic=True) for _ in range(2)]
    assert drawn[0] == drawn[1] != found
    assert api.evaluate(folder, 20, num_envs=8) == found == api.load_agent(folder).evaluate(20, num_envs=8)


def test_which_checkpoint(folder: Path) -> None:
    layout = Layout.open(folder)
    whole = evaluate(folder, 2, all_sessions=True, checkpoint="latest")
    assert [(p.session, p.frame, p.checkpoint) for p in whole.policies] == [
        (session, 1000, layout.checkpoint(0, session)) for session in (0, 1)
    ]
    kept = evaluate(folder, 2, all_sessions=True, checkpoint="600")
    assert [(p.session, p.frame) for p in kept.policies] == [(0, 600), (1, 600)]
    assert evaluate(kept.policies[1].checkpoint, 2) == kept.policies[1].returns
    with pytest.raises(LabError, match=r"session \d has no checkpoint '500' \(known: best, latest, 600, 1000\)$"):
        evaluate(folder, 2, checkpoint="500")
    for which, near in (("lates", ", did you mean 'latest'"), ("\N{SUPERSCRIPT TWO}", " .known: best")):
        with pytest.raises(LabError, match=f"unknown '{which}'{near}"):
            evaluate(folder, 2, checkpoint=which)
    best = choose(folder, "best", out=folder.parent, all_sessions=True)
    assert best == [layout.best(0, session) for session in (0, 1)]


@pytest.mark.parametrize("words", [{"checkpoint": 400}, {"all_sessions": True}])
def test_of_one_checkpoint_there_is_nothing_to_choose(tmp_path: Path, words: dict[str, Any]) -> None:
    path = tmp_path / "best.pt"
    path.touch()
    with pytest.raises(LabError, match=r"best\.pt: is one checkpoint; --checkpoint and --all-sessions choose among"):
        evaluate(path, 1, **words)
