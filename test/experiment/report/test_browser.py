"""Pages as a real browser shows them: no error on the console, every plot drawn, values under the mouse."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.browser import CHROMIUM, PLACES, WHY, Browser
from support.runs import make_run, make_search
from support.specs import TINY

from slm_lab import api
from slm_lab.experiment.records.history import read_history
from slm_lab.experiment.report.write import report
from slm_lab.experiment.session.run import Mode, Options
from slm_lab.experiment.trial.trial import Trial
from slm_lab.lib.layout import Layout
from slm_lab.spec.load import load_spec

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=WHY)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture(autouse=True)
def _no_errors(browser: Browser) -> Iterator[None]:
    browser.errors.clear()
    yield
    assert browser.errors == []


def curve(seed: int, rows: int = 300, top: float = 400.0) -> list[float | None]:
    rng = np.random.default_rng(seed)
    y = top * (1 - np.exp(-np.arange(rows) / 80)) + 20 + 10 * rng.standard_normal(rows)
    return [None, *y.tolist()]


def test_run(browser: Browser, tmp_path: Path) -> None:
    layout = make_run(tmp_path, sessions=[curve(i) for i in range(4)])
    page = report(layout.root, video=False)
    browser.open(page)
    found = browser.drawn()
    assert len(found) == 4  # return, loss, episode length, learning rate
    assert all(found)
    assert found[0] == 4 * 2 + 2
    text = browser.js("document.body.innerText")
    assert "95 % interval" in text
    assert "4 sessions are few" in text


def test_hover_shows_the_value_of_the_table(browser: Browser, tmp_path: Path) -> None:
    layout = make_run(tmp_path, sessions=[curve(0, rows=40)])
    browser.open(report(layout.root, video=False))
    table = read_history(layout).sessions[0].train
    for row in (5, 20, 33):
        frame, loss = table["frame"][row], table["loss"][row]
        assert browser.hover(1, frame, loss) == [f"{loss:.10g}", f"{frame:,.0f} frames"]


def test_switches(browser: Browser, tmp_path: Path) -> None:
    layout = make_run(tmp_path, sessions=[curve(i, 30) for i in range(2)])
    browser.open(report(layout.root, video=False))
    before = browser.drawn()
    browser.js("document.querySelector('[data-switch=\"session 1\"]').click()")
    wait(browser, f"{PLACES}[1].querySelectorAll('.scatterlayer .trace').length === 1")
    assert browser.drawn()[0] == before[0] - 2
    title = f"{PLACES}[0].querySelector('.xtitle').textContent"
    assert browser.js(title) == "frames"
    browser.js("document.querySelector('[data-clock=wall_t]').click()")
    wait(browser, f"{title} === 'wall time (s)'")
    wait(browser, f"{PLACES}[1].calcdata[0].length === 31 && {PLACES}[1].calcdata[0][0].x === 2")
    assert browser.drawn()[1] == 1  # session 1 stays hidden


def test_search(browser: Browser, tmp_path: Path) -> None:
    layout = make_search(tmp_path)
    browser.open(report(layout.root, video=False))
    titles = browser.js("[...document.querySelectorAll('figcaption')].map(e => e.textContent)")
    assert titles[1:4] == ["agent.algorithm.lr", "agent.algorithm.gamma", "agent.net.hid_layers"]
    assert all(browser.drawn())
    assert browser.js(f"{PLACES}.map(p => p._fullLayout.xaxis.type)")[1:4] == ["log", "linear", "category"]
    low, high = browser.js(f"{PLACES}[1]._fullLayout.xaxis.range")
    assert low < -4
    assert high > -1
    text = browser.js("document.body.innerText")
    assert "3 of them stopped early by ASHA" in text
    assert f"slm-lab run {layout.best_spec()} ppo_cartpole train" in text


def test_several_runs(browser: Browser, tmp_path: Path) -> None:
    layouts: list[Layout] = []
    for env, top in (("CartPole-v1", 450.0), ("Nobody-v0", 10.0)):
        for k, agent in enumerate(("PPO", "A2C", "DQN")):
            sessions = [curve(10 * k + i, 60, top / (k + 1)) for i in range(3)]
            layouts.append(make_run(tmp_path, f"{agent.lower()}_{env[:3].lower()}", sessions, env=env, agent=agent))
    page = report([layout.root for layout in layouts], tmp_path / "all.html")
    browser.open(page)
    found = browser.drawn()
    assert all(found)
    titles = browser.js("[...document.querySelectorAll('figcaption')].map(e => e.textContent)")
    assert [t.partition(":")[0] for t in titles[:2]] == ["total_reward on CartPole-v1", "total_reward on Nobody-v0"]
    assert titles[2:5] == ["IQM", "mean over envs", "optimality gap"]
    assert found[:2] == [3 * (3 + 2)] * 2


def test_page_of_a_run_that_has_just_begun(browser: Browser, tmp_path: Path) -> None:
    layout = make_run(tmp_path, sessions=[[None]], status="running")
    browser.open(report(layout.root, video=False))
    assert "no score" in browser.js("document.body.innerText")
    assert all(browser.drawn())


def test_real_runs(browser: Browser, tmp_path: Path, finished_run: Path) -> None:
    """One that ended, one that was stopped, one on MuJoCo with evaluations."""
    stopped = Layout.new(tmp_path, "tiny")
    stopped.make_folders()
    stopped.spec().write_text(json.dumps({"tiny": TINY}))
    rows: list[int] = []
    options = Options(out=tmp_path, device="cpu", progress=False)
    trial = Trial(
        load_spec(TINY), Mode.TRAIN, stopped, options, stop=lambda: len(rows) > 2, listen=lambda s, r: rows.append(s)
    )
    assert trial.run().stopped
    hopper = {**TINY, "env": {"name": "InvertedPendulum-v5", "num_envs": 2, "max_frame": 600}}
    hopper["meta"] = {**TINY["meta"], "rigorous_eval": 2, "eval_frequency": 200}
    mujoco = api.run(hopper, out=tmp_path, device="cpu").folder
    for layout in (Layout.open(finished_run), stopped, Layout.open(mujoco)):
        browser.open(report(layout.root, tmp_path / "page.html", video=False))
        found = browser.drawn()
        assert len(found) > 4
        assert all(found)
    text = browser.js("document.body.innerText")
    assert "Last evaluation of 2 episodes" in text
    assert "mujoco" in text


DQN = {
    "name": "DQN",
    "algorithm": {
        "name": "DQN",
        "gamma": 0.99,
        "explore_var_spec": {"name": "no_decay", "start_val": 0.2},
        "training_frequency": 16,
        "training_start_step": 32,
    },
    "memory": {"name": "Replay", "batch_size": 8, "max_size": 1000},
    "net": {"type": "MLPNet", "hid_layers": [8], "update_type": "replace", "update_frequency": 100},
}
PPO = {"name": "PPO", "clip_eps_spec": {"name": "no_decay", "start_val": 0.2}, "time_horizon": 16}
PPO |= {"gamma": 0.99, "lam": 0.95, "minibatch_size": 32, "training_epoch": 1}


def test_real_comparison(browser: Browser, tmp_path: Path) -> None:
    """PPO, A2C and DQN on two envs, two seeds each."""
    a2c = TINY["agent"]
    agents = {"ppo": {**a2c, "name": "PPO", "algorithm": PPO}, "a2c": a2c, "dqn": DQN}
    agents["ppo"]["memory"] = {"name": "OnPolicyBatchReplay"}
    layouts = []
    for env in ("CartPole-v1", "Acrobot-v1"):
        for name, agent in agents.items():
            spec = {**TINY, "name": f"{name}_{env[:3].lower()}", "agent": agent}
            spec["env"] = {"name": env, "num_envs": 4, "max_t": 40, "max_frame": 640}
            for seed in (0, 1):
                done = api.run(spec, out=tmp_path, device="cpu", seed=seed, quiet=True)
                layouts.append(Layout.open(done.folder))
    browser.open(report([layout.root for layout in layouts], tmp_path / "all.html"))
    assert all(browser.drawn())
    assert len(browser.drawn()) == 2 + 4 + 1 + 1  # envs, aggregates, profiles, who is better
    text = browser.js("document.body.innerText")
    assert all(name in text for name in ("PPO", "A2C", "DQN", "CartPole-v1", "Acrobot-v1"))
    # a column of the tables is drawn as it stands
    browser.open(report([layout.root for layout in layouts], tmp_path / "all.html", metric="episode_length"))
    assert all(browser.drawn())
    for plot, layout in ((0, layouts[0]), (1, layouts[-1])):
        table = read_history(layout).sessions[0].train
        frame, length = table["frame"][1], table["episode_length"][1]
        assert browser.hover(plot, frame, length) == [f"{length:.10g}", f"{frame:,.0f} frames"]


def test_print(browser: Browser, tmp_path: Path) -> None:
    layout = make_run(tmp_path, sessions=[curve(i, 30) for i in range(2)])
    browser.open(report(layout.root, video=False))
    widths = f"{PLACES}.map(p => p._fullLayout.width)"
    before = browser.js(widths)
    browser.js("dispatchEvent(new Event('beforeprint'))")
    on_paper = browser.js(widths)
    assert max(on_paper) <= 680
    assert len(set(on_paper)) == 2  # the wide plot, and two beside each other
    browser.js("dispatchEvent(new Event('afterprint'))")
    wait(browser, f"JSON.stringify({widths}) === '{json.dumps(before, separators=(',', ':'))}'")
    assert browser.pdf().startswith(b"%PDF")


def wait(browser: Browser, condition: str) -> None:
    assert browser.js(
        f"""new Promise(async (done) => {{ for (let i = 0; i < 400; i++) {{ if ({condition}) return done(true);
        await new Promise((r) => setTimeout(r, 50)); }} done(false); }})"""
    ), condition
