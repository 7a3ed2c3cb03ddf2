import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest

from slm_lab.experiment.play.enjoy import SavedPolicy, enjoy
from slm_lab.experiment.session.run import Options, Run
from slm_lab.experiment.session.session import Session, checkpoint
from slm_lab.lib.errors import LabError
from slm_lab.lib.files import write_json

NewRun = Callable[..., Run]


@pytest.fixture
def trained(new_run: NewRun) -> Run:
    run = new_run()
    write_json(run.layout.spec(), run.spec.to_dict())
    write_json(run.layout.trial_spec(0), run.spec.to_dict())
    Session(run).run()
    return run


def contents(folder: Path) -> dict[Path, tuple[int, str]]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p: (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files}


def test_nothing_of_the_training_is_touched(trained: Run, options: Options, log_text: list[str]) -> None:
    before = contents(options.out)
    returns = enjoy(trained.layout.root, options, episodes=3)
    assert contents(options.out) == before
    assert len(returns) == 3
    # as the log says
    assert sum("episode" in line and f"total_reward {r:.2f}" in line for line in log_text for r in set(returns)) >= 3
    assert (
        f"total_reward of 3 episodes: mean {np.mean(returns):.2f}, standard deviation {np.std(returns, ddof=1):.2f}"
        in log_text[-1]
    )


def test_it_is_the_same_each_time_and_another_with_another_seed(trained: Run, options: Options) -> None:
    folder = trained.layout.root
    assert enjoy(folder, options, episodes=4) == enjoy(folder, options, episodes=4)
    other = Options(out=options.out, device="cpu", seed=1)
    assert enjoy(folder, options, episodes=4) != enjoy(folder, other, episodes=4)


def test_a_folder_a_spec_in_it_latest_and_a_checkpoint_mean_the_same(trained: Run, options: Options) -> None:
    layout = trained.layout
    targets = (layout.root, layout.spec(), layout.trial_spec(0), "latest", layout.best(0, 0))
    found = [SavedPolicy.open(target, options.out) for target in targets]
    assert {policy.path for policy in found} == {layout.best(0, 0)}
    assert {policy.frame for policy in found} == {found[0].frame}


def test_a_checkpoint_alone_is_enough(trained: Run, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere.pt"
    shutil.copy(trained.layout.checkpoint(0, 0), copy)
    policy = SavedPolicy.open(copy)
    assert policy.frame == 1000
    assert policy.spec == trained.spec


def test_the_best_session_counts_and_its_best_policy_before_its_last(
    new_run: NewRun, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run()
    layout = run.layout
    write_json(layout.spec(), run.spec.to_dict())
    for session in range(3):
        Session(Run(run.spec, run.mode, layout, session=session, options=options)).run()
        write_json(layout.session_scalar(0, session), {"total_reward_ma": [10.0, 30.0, 20.0][session]})
    assert SavedPolicy.open(layout.root).path == layout.best(0, 1)
    layout.best(0, 1).unlink()
    assert SavedPolicy.open(layout.root).path == layout.checkpoint(0, 1)
    # the best trial of a search is the one that the search names, however its sessions ended
    rows = {t: {"trial": t, "strength": s, "status": "completed"} for t, s in ((0, 1.0), (1, 2.0))}
    write_json(layout.trial_data(), rows)
    shutil.copy(layout.best(0, 2), layout.best(1, 0))
    assert SavedPolicy.open(layout.root).path == layout.best(1, 0)
    layout.trial_data().unlink()
    layout.best(1, 0).unlink()
    # a session that was killed has no metrics yet: its best checkpoint tells
    tree = checkpoint.load(layout.best(0, 2))
    checkpoint.save(layout.best(0, 2), {**tree, "total_reward_ma": 99.0}, keep=False)
    layout.session_scalar(0, 2).unlink()
    assert SavedPolicy.open(layout.root).path == layout.best(0, 2)


@pytest.mark.parametrize("metrics", [True, False])
def test_a_damaged_best_policy_gives_way_to_the_latest(trained: Run, log_text: list[str], metrics: bool) -> None:
    layout = trained.layout
    layout.best(0, 0).write_bytes(b"PK")
    if not metrics:
        layout.session_scalar(0, 0).unlink()
    latest = checkpoint.load(layout.checkpoint(0, 0))
    assert SavedPolicy.open(layout.root).frame == latest["counters"]["frame"]
    assert "damaged" in "".join(log_text)
    # but not where that very file is asked for
    with pytest.raises(LabError, match="damaged"):
        SavedPolicy.open(layout.best(0, 0))


def test_the_policy_plays_as_it_did(trained: Run, options: Options) -> None:
    """The policy read back is the one that was saved: its actions on given observations are the same."""
    session = Session(trained)
    tree = checkpoint.load(trained.layout.checkpoint(0, 0))
    policy = SavedPolicy.open(trained.layout.checkpoint(0, 0))
    with ExitStack() as stack:
        session._build(stack)
        session.agent.load_state_dict(tree["agent"])
        agent = policy.agent(session.env)
        obs = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
        actions = agent.act(obs, explore=False).copy()
        assert actions.tolist() == session.agent.act(obs, explore=False).tolist()
        assert set(actions.tolist()) == {0, 1}


def test_a_run_without_a_checkpoint(new_run: NewRun, options: Options) -> None:
    run = new_run()
    write_json(run.layout.spec(), run.spec.to_dict())
    with pytest.raises(LabError, match="no checkpoint"):
        enjoy(run.layout.root, options)


def test_a_file_that_is_no_checkpoint(tmp_path: Path, options: Options) -> None:
    path = tmp_path / "x.pt"
    path.write_text(json.dumps({}), encoding="utf-8")
    with pytest.raises(LabError, match="no readable checkpoint"):
        enjoy(path, options)


def test_a_video_on_a_full_disk(
    trained: Run, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def append_data(self, frame: object) -> None:
            raise OSError("Broken pipe, and pages of ffmpeg")

        def close(self) -> None:
            raise OSError("again")

    monkeypatch.setattr("imageio.get_writer", lambda *args, **kwargs: Full())
    with pytest.raises(LabError, match=r"^video: \S*out.mp4 can't be written$"):
        enjoy(trained.layout.root, options, episodes=1, video=tmp_path / "out.mp4")


def test_a_video_is_written(trained: Run, options: Options, tmp_path: Path, log_text: list[str]) -> None:
    before = contents(options.out)
    for name in ("out.mp4", "out.gif"):
        [ret] = enjoy(trained.layout.root, options, episodes=1, video=tmp_path / name)
    assert log_text[-1].endswith(f"total_reward of 1 episode: mean {ret:.2f}\n")
    assert contents(options.out) == before
    # a picture before each step; CartPole pays 1 a step
    assert imageio_ffmpeg.count_frames_and_secs(tmp_path / "out.mp4")[0] == ret
    frames = iio.imread(tmp_path / "out.gif")
    # of equal pictures in a row the format keeps one
    assert ret / 2 < len(frames) <= ret
    assert frames.shape[1:3] == (400, 600)
    assert (frames[0] != frames[-1]).any()


@pytest.mark.parametrize(
    ("env_name", "renderer"),
    [
        ("InvertedPendulum-v5", "gymnasium.envs.mujoco.MujocoEnv.render"),
        ("CartPole-v1", "gymnasium.envs.classic_control.CartPoleEnv.render"),
    ],
)
def test_an_env_without_a_screen(
    new_run: NewRun, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env_name: str, renderer: str
) -> None:
    run = new_run(env__name=env_name, env__max_frame=400)
    write_json(run.layout.spec(), run.spec.to_dict())
    Session(run).run()

    def render(env: object) -> None:
        raise ZeroDivisionError("no OpenGL platform library")

    monkeypatch.setattr(renderer, render)
    with pytest.raises(LabError, match=f"env: can't render {env_name}: no OpenGL platform library .*MUJOCO_GL=egl"):
        enjoy(run.layout.root, options, episodes=1, video=tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("pictures", "text"),
    [
        ([], "env: can't render CartPole-v1: no OpenGL"),
        ([None], "video: CartPole-v1 gives no pictures"),
        ([np.zeros((4, 6), np.uint8)], "video: CartPole-v1 gives no RGB pictures .*: uint8, shape .4, 6."),
        ([np.zeros((4, 6, 3), np.float32)], "video: CartPole-v1 gives no RGB pictures .*: float32, shape .4, 6, 3."),
        ([np.zeros((4, 6, 3), np.uint8), np.zeros((4, 8, 3), np.uint8)], "change their size: .4, 6, 3., .4, 8, 3."),
    ],
)
def test_pictures_that_no_video_can_be_made_of(
    new_run: NewRun, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: list[Any], text: str
) -> None:
    run = new_run(env__vectorization="sync")
    write_json(run.layout.spec(), run.spec.to_dict())
    Session(run).run()

    def render(env: object) -> Any:
        if not pictures:
            raise RuntimeError("no OpenGL")
        return pictures.pop(0)

    monkeypatch.setattr("gymnasium.envs.classic_control.CartPoleEnv.render", render)
    with pytest.raises(LabError, match=text):
        enjoy(run.layout.root, options, episodes=1, video=tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_metrics_that_are_damaged_are_done_without(trained: Run, options: Options) -> None:
    expected = enjoy(trained.layout.root, options, episodes=2)
    trained.layout.session_scalar(0, 0).write_text("{", encoding="utf-8")
    assert enjoy(trained.layout.root, options, episodes=2) == expected


@pytest.mark.parametrize("name", ["nowhere/out.mp4", "out.unknown", "folder.mp4"])
def test_a_video_that_can_not_be_written(trained: Run, options: Options, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(LabError, match="video"):
        enjoy(trained.layout.root, options, episodes=1, video=tmp_path / name)
