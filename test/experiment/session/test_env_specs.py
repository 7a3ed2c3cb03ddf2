"""The bundled specs for MuJoCo and Atari run, in every env that they are for."""

from pathlib import Path

import pytest
from support.specs import replace

from slm_lab.experiment import launch
from slm_lab.experiment.records.runs import RunFile, Status
from slm_lab.experiment.session.run import Mode, Options
from slm_lab.experiment.trial.trial import Trial
from slm_lab.lib.layout import Layout
from slm_lab.spec.files import bundled_files
from slm_lab.spec.load import load_spec
from slm_lab.spec.model import Spec
from slm_lab.spec.past.envs import MUJOCO

SKIPPED = ("Adventure", "MontezumaRevenge", "Pitfall", "PrivateEye", "Venture", "ElevatorAction")
GAMES = """
AirRaid Alien Amidar Assault Asterix Asteroids Atlantis BankHeist BattleZone BeamRider Berzerk Bowling Boxing Breakout
Carnival Centipede ChopperCommand CrazyClimber Defender DemonAttack DoubleDunk Enduro FishingDerby Freeway Frostbite
Gopher Gravitar Hero IceHockey Jamesbond JourneyEscape Kangaroo Krull KungFuMaster MsPacman NameThisGame Phoenix Pong
Pooyan Qbert Riverraid RoadRunner Robotank Seaquest Skiing Solaris SpaceInvaders StarGunner Surround Tennis TimePilot
Tutankham UpNDown VideoPinball WizardOfWor YarsRevenge Zaxxon
"""
MUJOCO_SPECS = {"ppo_mujoco": "ppo/ppo_mujoco.json", "sac_mujoco": "sac/sac_mujoco.json"}
ATARI_SPECS = {
    "ppo_atari": "ppo/ppo_atari.json",
    "a2c_gae_atari": "a2c/a2c_atari.json",
    "ddqn_per_atari": "dqn/ddqn_per_atari.json",
    "sac_atari": "sac/sac_atari.json",
}
SHORT = {
    "agent.algorithm.time_horizon": 16,
    "agent.algorithm.training_frequency": 16,
    "agent.algorithm.training_iter": 1,
    "agent.algorithm.training_start_step": 64,
    "agent.algorithm.minibatch_size": 32,
    "agent.algorithm.training_epoch": 1,
    "agent.memory.batch_size": 32,
    "agent.memory.max_size": 1000,
    "env.num_envs": 2,
    "meta.max_session": 1,
    "meta.log_frequency": 100,
    "meta.compile": "off",
}
"""What makes a few hundred frames long enough to learn in; keys that a spec lacks stay away."""


def files(name: str) -> Path:
    [found] = [path for path in bundled_files() if path.as_posix().endswith({**MUJOCO_SPECS, **ATARI_SPECS}[name])]
    return found


def shortened(name: str, env: str, frames: int) -> Spec:
    spec = load_spec(files(name), name, sets={"env": env, **({"max_frame": str(frames)} if "mujoco" in name else {})})
    known = spec.to_dict()
    for key, value in {**SHORT, "env.max_frame": frames}.items():
        part = known
        for step in key.split(".")[:-1]:
            part = part[step]
        if key.split(".")[-1] in part or key.startswith("meta."):
            spec = replace(spec, key, value)
    return spec


def run(name: str, env: str, frames: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # graphs take longer than these runs
    monkeypatch.setattr(Trial, "_draw", lambda *args: None)
    done = launch.run_spec(shortened(name, env, frames), Mode.DEV, Options(out=folder, device="cpu", progress=False))
    assert done.crashed == []
    assert done.metrics["frame"] == frames
    assert RunFile.open(Layout.open(done.folder)).status is Status.COMPLETED
    assert list(done.folder.glob("model/*.safetensors"))


@pytest.mark.parametrize("name", MUJOCO_SPECS)
@pytest.mark.parametrize("task", ["Hopper", "Pusher"])
def test_mujoco(name: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(name, f"{task}-v5", 300, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ATARI_SPECS)
def test_atari(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(name, "ALE/Pong-v5", 160, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", MUJOCO_SPECS)
@pytest.mark.parametrize("task", MUJOCO)
def test_every_task(name: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(name, f"{task}-v5", 400, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", ATARI_SPECS)
@pytest.mark.parametrize("game", [*GAMES.split(), *SKIPPED])
def test_every_game(name: str, game: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(name, f"ALE/{game}-v5", 160, tmp_path, monkeypatch)
