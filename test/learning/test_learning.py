"""Learning curves of the bundled specs: four seeds each, as BENCHMARKS.md reports them. `uv run pytest -m slow`."""

from pathlib import Path

import pytest

from slm_lab import api

SCORES = [
    ("reinforce/reinforce_cartpole.json", "reinforce_cartpole", 400),
    ("a2c/a2c_cartpole.json", "a2c_gae_cartpole", 475),
    ("a2c/a2c_cartpole.json", "a2c_nstep_cartpole", 475),
    ("ppo/ppo_cartpole.json", "ppo_cartpole", 475),
    ("ppo/ppo_rnn_cartpole.json", "ppo_rnn_cartpole", 400),
    ("ppo/ppo_acrobot.json", "ppo_acrobot", -100),
    ("ppo/ppo_pendulum.json", "ppo_pendulum", -200),
    ("ppo/ppo_lunar.json", "ppo_lunar", 180),
    ("sarsa/sarsa_cartpole.json", "sarsa_cartpole", 400),
    ("dqn/dqn_cartpole.json", "dqn_cartpole", 400),
    ("dqn/ddqn_cartpole.json", "ddqn_cartpole", 400),
    ("dqn/ddqn_per_cartpole.json", "ddqn_per_cartpole", 400),
    ("dqn/dueling_dqn_cartpole.json", "dueling_dqn_cartpole", 400),
    ("dqn/ddqn_per_lunar.json", "ddqn_per_lunar", 200),
    ("qrdqn/qrdqn_cartpole.json", "qrdqn_cartpole", 350),
    ("pqn/pqn_cartpole.json", "pqn_cartpole", 400),
    ("sac/sac_cartpole.json", "sac_cartpole", 400),
    ("sac/sac_pendulum.json", "sac_pendulum", -170),
    ("sil/ppo_sil_cartpole.json", "ppo_sil_cartpole", 400),
    ("crossq/crossq_pendulum.json", "crossq_pendulum", -170),
    ("td3/td3_pendulum.json", "td3_pendulum", -250),
    ("td3/ddpg_pendulum.json", "ddpg_pendulum", -300),
    ("tqc/tqc_pendulum.json", "tqc_pendulum", -250),
    ("xqc/xqc_pendulum.json", "xqc_pendulum", -300),
    ("a3c/a3c_cartpole.json", "a3c_cartpole", 400),
]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("file", "name", "least"), SCORES, ids=[name for _, name, _ in SCORES])
def test_score(file: str, name: str, least: float, tmp_path: Path) -> None:
    done = api.run(file, name, out=tmp_path, seed=0)
    assert not done.crashed
    assert done.metrics["total_reward_ma"] >= least


def test_ppo_learns_something_in_ten_seconds(tmp_path: Path) -> None:
    """The quick one, for every change: random play scores about 23, an untrained policy no more."""
    sets = {"env.max_frame": "30000", "meta.max_session": "1", "meta.compile": "off"}
    sets["agent.net.lr_scheduler_spec"] = "null"
    spec = api.load_spec("ppo/ppo_cartpole.json", "ppo_cartpole", sets=sets)
    assert api.run(spec, out=tmp_path, seed=0).metrics["final_total_reward"] > 120
