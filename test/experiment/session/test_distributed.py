"""Sessions that learn together: processes of their own, one set of parameters, one count of frames."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from loguru import logger

from slm_lab.agent.sinks import read_rows
from slm_lab.experiment import launch
from slm_lab.experiment.records.runs import RunFile, Status
from slm_lab.experiment.session.resources import choose_device
from slm_lab.experiment.session.run import Mode, Options, Run, RunResult
from slm_lab.experiment.session.session import Session, checkpoint
from slm_lab.experiment.trial.trial import Trial, worker_count
from slm_lab.lib.errors import SpecError
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec

Tiny = Callable[..., Spec]
MAX_FRAME, EVERY, N = 2400, 200, 4

# one session is killed on its way, the first time
MORTAL = """
import os, signal
from pathlib import Path
import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

class Mortal(CartPoleEnv):
    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 60:
            try:
                (Path(__file__).parent / "killed").open("x").close()
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
        return super().step(action)

gym.register("Mortal-v0", Mortal, max_episode_steps=500)
"""


class Together(NamedTuple):
    """A distributed trial and what came of it."""

    spec: Spec
    options: Options
    done: RunResult

    @property
    def layout(self) -> Layout:
        return Layout.open(self.done.folder)

    def saved(self) -> list[dict[str, Any]]:
        """The last checkpoint of each session."""
        return [checkpoint.load(self.layout.checkpoint(0, i)) for i in range(self.spec.meta.max_session)]

    def steps(self) -> list[int]:
        """Gradient steps that each session took."""
        return [state["agent"]["algorithm"]["steps"] for state in self.saved()]


def common_steps(states: list[dict[str, Any]]) -> float:
    """Steps that were taken on the parameters, as the optimizer they share counts them."""
    return max(float(s["agent"]["algorithm"]["optims"]["net"]["state"]["step"]) for s in states)


@pytest.fixture(scope="module", params=["shared", "synced"])
def together(request: pytest.FixtureRequest, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Together:
    spec = tiny(meta__distributed=request.param, meta__max_session=2, env__max_frame=MAX_FRAME)
    options = Options(out=tmp_path_factory.mktemp("together") / "data", device="cpu", progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trial, "_draw", lambda *args: None)
        return Together(spec, options, launch.run_spec(spec, Mode.TRAIN, options))


def test_frames_are_those_of_all_sessions(together: Together) -> None:
    played = [state["counters"]["t"] * N for state in together.saved()]
    assert all(frames > 0 for frames in played)
    # at the end each may take the step it has begun
    assert MAX_FRAME <= sum(played) < MAX_FRAME + 2 * N
    assert all(MAX_FRAME <= state["counters"]["frame"] <= sum(played) for state in together.saved())


def test_no_session_is_lost(together: Together) -> None:
    assert not together.done.crashed
    assert RunFile.open(together.layout).status is Status.COMPLETED
    for session in range(2):
        rows = read_rows(together.layout.session_df(0, session))
        frames = [int(row["frame"] or 0) for row in rows]
        # one that began late joins in at the frame of the others
        assert rows
        assert len({frame // EVERY for frame in frames}) == len(frames) <= MAX_FRAME // EVERY
        assert frames[-1] >= MAX_FRAME
        assert together.layout.weights(0, session).exists()
    assert together.done.metrics["frame"] >= MAX_FRAME


def test_the_steps_of_all_reach_the_common_parameters(together: Together) -> None:
    steps = together.steps()
    assert all(count > 0 for count in steps)
    # two that step at the same moment may count one
    assert max(steps) < common_steps(together.saved()) <= sum(steps)
    assert common_steps(together.saved()) > 0.9 * sum(steps)


def test_schedules_follow_the_frames_of_all(together: Together) -> None:
    """In the latest update they stood beyond what the session had played itself."""
    saved = together.saved()
    stood = [state["agent"]["algorithm"]["frame"] for state in saved]
    played = [state["counters"]["t"] * N for state in saved]
    assert sum(stood) > sum(played)
    assert all(frame <= MAX_FRAME + 2 * N for frame in stood)


def test_sessions_begin_with_the_same_weights(tiny: Tiny, options: Options) -> None:
    spec = tiny(meta__distributed="synced", meta__max_session=3)
    assert len({Run(spec, Mode.TRAIN, Layout(options.out, "tiny"), session=i).seed for i in range(3)}) == 3
    assert {Run(spec, Mode.TRAIN, Layout(options.out, "tiny"), session=i).seed_of(0) for i in range(3)} == {
        Run(spec, Mode.TRAIN, Layout(options.out, "tiny")).seed
    }


def test_all_sessions_run_at_once_however_few_the_cores(tiny: Tiny) -> None:
    spec = tiny(meta__distributed="synced", meta__max_session=64)
    assert worker_count(spec, Mode.TRAIN) == 64
    assert worker_count(spec, Mode.DEV) == 0


def test_a_single_session_is_an_ordinary_one(new_run: Callable[..., Run]) -> None:
    rows = [Session(new_run(meta__distributed=kind)).run().rows for kind in (False, "synced", "shared")]
    keys = ("frame", "total_reward", "loss")
    plain = [[{k: row[k] for k in keys} for row in table] for table in rows]
    assert plain[0] == plain[1] == plain[2]


@pytest.fixture(scope="module")
def mortal(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    folder = tmp_path_factory.mktemp("mortal")
    (folder / "mortal_env.py").write_text(MORTAL, encoding="utf-8")
    sys.path.insert(0, str(folder))
    spec = tiny(
        meta__plugins=["mortal_env"],
        env__name="Mortal-v0",
        env__max_frame=1600,
        meta__max_session=2,
        meta__distributed="shared",
    )
    options = Options(out=folder / "data", device="cpu", progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trial, "_draw", lambda *args: None)
        yield Together(spec, options, launch.run_spec(spec, Mode.TRAIN, options))
    sys.path.remove(str(folder))


def test_when_one_is_killed_the_others_go_on_to_the_end(mortal: Together) -> None:
    [crash] = mortal.done.crashed
    assert "killed by SIGKILL" in crash.reason
    counters = checkpoint.load(mortal.layout.checkpoint(0, 1 - crash.session))["counters"]
    # the frames of the dead one count
    assert counters["t"] * N < 1600 <= counters["frame"]
    assert RunFile.open(mortal.layout).status is Status.CRASHED


def test_a_resume_closes_the_books_of_the_killed_one(mortal: Together) -> None:
    """All frames are played: it takes over what was learned, and ends."""
    [crash] = mortal.done.crashed
    again = launch.resume(mortal.done.folder, mortal.options)
    assert not again.crashed
    assert RunFile.open(mortal.layout).status is Status.COMPLETED
    rows = read_rows(mortal.layout.session_df(0, crash.session))
    assert int(rows[-1]["frame"] or 0) >= 1600
    assert len(rows) == 1600 // EVERY


def test_a_stopped_trial_goes_on(tiny: Tiny, options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "_draw", lambda *args: None)
    spec = tiny(meta__distributed="synced", meta__max_session=2, env__max_frame=12_000, meta__checkpoint_interval=60)
    told: list[str] = []

    def stop_at_the_first_row(message: str) -> None:
        if message.startswith("session") and not told:
            told.append(message)
            os.kill(os.getpid(), signal.SIGINT)

    handler = logger.add(stop_at_the_first_row, level="INFO", format="{message}")
    try:
        done = launch.run_spec(spec, Mode.TRAIN, options)
    finally:
        logger.remove(handler)
    assert done.stopped
    stopped = Together(spec, options, done)
    before, frame = stopped.saved(), max(state["counters"]["frame"] for state in stopped.saved())
    assert 0 < frame < 12_000
    assert not launch.resume(done.folder, options).stopped
    after = stopped.saved()
    played = sum(state["counters"]["t"] * N for state in after)
    assert 12_000 <= played < 12_000 + 4 * N
    assert common_steps(after) > common_steps(before) > 0
    for session in range(2):
        frames = [int(row["frame"] or 0) for row in read_rows(stopped.layout.session_df(0, session))]
        assert frames == sorted(set(frames))
        assert len(frames) == 12_000 // EVERY


def dqn(**meta: Any) -> dict[str, Any]:
    raw = load_spec("dqn/dqn_cartpole.json", "dqn_cartpole").to_dict()
    return {**raw, "meta": {**raw["meta"], **meta}}


def test_what_can_not_be_distributed_is_refused_by_name(tiny: Tiny) -> None:
    with pytest.raises(
        SpecError, match=r"meta\.distributed: DQN can't be distributed, on-policy algorithms can: .*PPO"
    ):
        load_spec(dqn(distributed="shared"))
    raw = tiny().to_dict()
    raw["meta"]["distributed"] = "sinced"
    with pytest.raises(SpecError, match=r"meta\.distributed: .*did you mean 'synced'"):
        load_spec(raw)
    raw["meta"]["distributed"] = "synced"
    raw["agent"]["net"]["gpu"] = True
    with pytest.raises(SpecError, match=r"agent\.net\.gpu: must be false or 'auto'"):
        load_spec(raw)
    with pytest.raises(SpecError, match="--device: 'cuda', but distributed"):
        choose_device(tiny(meta__distributed="synced"), "cuda", 0, 0, 1)
    assert choose_device(tiny(meta__distributed="synced"), "auto", 0, 0, 1) == "cpu"
