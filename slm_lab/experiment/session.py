"""Session: one agent learns in one env, from one seed."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from loguru import logger
from torch import Tensor

from slm_lab.agent.agent import Agent
from slm_lab.agent.metrics import MetricsTracker, Row
from slm_lab.agent.net.precision import float32_products
from slm_lab.agent.sinks import CsvSink, read_rows
from slm_lab.env.names import find
from slm_lab.experiment import checkpoint
from slm_lab.experiment.analysis import save_session
from slm_lab.experiment.callbacks import Episode, EpisodeFeed
from slm_lab.experiment.clock import WallClock, eval_every, next_multiple
from slm_lab.experiment.commons import Commons
from slm_lab.experiment.evaluate import Evaluator
from slm_lab.experiment.extend import can_change, changed_keys
from slm_lab.experiment.outlets import attach_sinks
from slm_lab.experiment.resources import take_device, use_compile
from slm_lab.experiment.results import SessionResult
from slm_lab.experiment.rollouts import rollouts_of, training_env
from slm_lab.experiment.run import Mode, Run
from slm_lab.experiment.wording import block
from slm_lab.lib.errors import LabError
from slm_lab.lib.log import file_logger
from slm_lab.lib.registry import import_plugins
from slm_lab.lib.seeding import derive, seed_everything
from slm_lab.lib.stateful import State

ENV, AGENT, EVAL = 0, 1, 2
"""What a session's seed is split into."""


class Session:
    """Learn until `env.max_frame`, or until asked to stop.

    A session that finds a checkpoint of its own goes on from there; one that finds itself finished does nothing but
    give its result. When nothing but the clock differs, the two ways to the end are the same, bit for bit.

    Args:
        run: which session of which trial.
        report: called after each row with {"kind": "row", "row": row}; where the run asks for episodes also with
            {"kind": "episodes", "episodes": [...]}.
        stop: asked before each step; true ends the session after a last checkpoint.
    """

    def __init__(
        self,
        run: Run,
        *,
        report: Callable[[dict[str, Any]], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self.lab_run = run
        self._report = report or (lambda event: None)
        self._stop = stop or (lambda: False)
        self._path = run.layout.checkpoint(run.trial, run.session)
        self._commons: Commons | None = None
        self._hidden = () if run.options.log_metrics or run.mode is Mode.DEV else ("grad_norm",)
        self.frame = 0
        """Steps over all envs; in a distributed trial those of all sessions."""
        self.t = 0
        """Vector steps."""
        self.begun = False
        """Env and agent are built and what was saved is loaded: what fails now fails in the training."""

    def run(self) -> SessionResult:
        """Do it. Files go to the run's layout, whose folders must exist.

        Raises:
            LabError: of the user's making: the env can't be made, the loss is not finite, the checkpoint is unreadable
                or does not fit the spec.
        """
        run = self.lab_run
        with ExitStack() as stack:
            if run.shared_fd is not None:
                self._commons = stack.enter_context(Commons(run.shared_fd, run.session, run.spec.meta.max_session))
            import_plugins(run.spec.meta.plugins)
            state = checkpoint.load(self._path) if checkpoint.exists(self._path) else None
            if state is not None and state["counters"]["frame"] >= run.spec.env.max_frame:
                self.frame = state["counters"]["frame"]
                return self._result(read_rows(run.layout.session_df(run.trial, run.session)), stopped=False)
            self._build(stack, state)
            self._begin(state, stack)
            self.begun = True
            stopped = self._loop()
            self._feed.flush()
            if not stopped:
                self._log()
                self._evaluate()
                path = run.layout.weights(run.trial, run.session)
                checkpoint.save_weights(path, self.agent.weights(), frame=self.frame)
            # last: who finds this checkpoint finds everything else
            self._save()
        return self._result(self.tracker.rows, stopped)

    def _build(self, stack: ExitStack, state: State | None = None) -> None:
        run = self.lab_run
        spec, meta, seed = run.spec, run.spec.meta, run.seed
        seed_everything(seed)
        device = take_device(run)
        stack.enter_context(float32_products(torch.device(device), tf32=meta.precision == "tf32"))
        self.env = training_env(run, state, device)
        stack.callback(self.env.close)
        self.agent = Agent(
            spec,
            self.env.info,
            seed=derive(seed, AGENT),
            device=device,
            compile=use_compile(spec.meta.compile, spec.env.max_frame),
            debug=run.mode is Mode.DEV,
            # so it does not matter who comes first
            init_seed=derive(run.seed_of(0), AGENT) if self._commons else None,
        )
        self.csv = CsvSink(run.layout.session_df(run.trial, run.session))
        names = [name for name in self.agent.stat_names if name not in self._hidden]
        self.tracker = MetricsTracker([self.csv], extras=["episode_length", *names])
        self.evaluator = None
        if meta.rigorous_eval:
            self.evaluator = Evaluator(spec.env, meta.rigorous_eval, derive(seed, EVAL))
            stack.callback(self.evaluator.close)
            self.eval_csv = CsvSink(run.layout.session_df(run.trial, run.session, "eval"))
            self.eval_tracker = MetricsTracker([self.eval_csv], extras=["episode_length"], window=meta.rigorous_eval)
        self._best: State | None = None
        self._best_weights: dict[str, Tensor] = {}
        self._latest: Mapping[str, Tensor] = {}

    def _begin(self, state: State | None, stack: ExitStack) -> None:
        """Start from the seed, or from a checkpoint; then attach the sinks that are not part of the state."""
        run = self.lab_run
        if state is None:
            if (origin := run.layout.origin()).exists():
                tree = checkpoint.load(origin)
                self.agent.start_from(tree["policy"])
                self.env.load_normalizer_state(tree["normalizer"])
                frame = tree["counters"]["frame"]
                logger.info("session {} starts from {}, frame {}", run.session, tree["source"], frame)
            self.env.reset(derive(run.seed, ENV))
            self.clock = WallClock()
        else:
            self.frame, self.t = state["counters"]["frame"], state["counters"]["t"]
            self._load(state)
            self.tracker.load_state_dict(state["tracker"])
            if self.evaluator is not None and state["eval_tracker"] is not None:
                self.eval_tracker.load_state_dict(state["eval_tracker"])
            checkpoint.set_rng(state["rng"])
            self.clock = WallClock(state["wall_t"])
            logger.info("session {} goes on from frame {}", run.session, self.frame)
        if self._commons is not None:
            self._join(self._commons)
        self._drop_later_rows(self.tracker, self.csv)
        if self.evaluator is not None:
            self._drop_later_rows(self.eval_tracker, self.eval_csv)
        attach_sinks(run, self.tracker, self.env.info.name, None if state is None else self.frame, stack)
        self._feed = EpisodeFeed(self._report_episodes)
        if run.report_episodes:
            self.tracker.on_episodes = self._feed.add
        self._saved_at, self._save_cost = time.perf_counter(), 0.0
        self._before = None if state is None else state.get("setting")

    def _join(self, commons: Commons) -> None:
        """Learn with the other sessions of a distributed trial from here on."""
        common = commons.join(self.agent.shared(), self._restore)
        self.agent.share_(common, copy=self.lab_run.spec.meta.distributed == "synced")
        commons.wait(self._stop)
        self.frame = commons.frame
        self.agent.set_frame(self.frame)

    def _restore(self) -> tuple[int, list[int]] | None:
        """Take over what was learned last, whichever session saved it; gives its frame, and the frames of each."""
        run = self.lab_run
        paths = [run.layout.checkpoint(run.trial, i) for i in range(run.spec.meta.max_session)]
        states = [checkpoint.load(path) if checkpoint.exists(path) else None for path in paths]
        newest = max((s for s in states if s is not None), key=lambda s: s["counters"]["frame"], default=None)
        if newest is None:
            return None
        self.agent.load_learned(newest["agent"])
        num_envs = self.env.info.num_envs
        return newest["counters"]["frame"], [0 if s is None else s["counters"]["t"] * num_envs for s in states]

    def _load(self, state: State) -> None:
        """Raises LabError: the spec was changed, and the checkpoint does not fit it any more."""
        keys = changed_keys(state["spec"], self.lab_run.spec.to_dict())
        changed = ", ".join(keys)
        try:
            self.agent.load_state_dict(state["agent"])
            self.env.load_state_dict(state["env"])
        except Exception as e:
            if not changed:
                raise
            raise LabError(f"{self._path}: does not fit the spec, which has changed since: {changed}") from e
        if changed:
            level = "INFO" if all(map(can_change, keys)) else "WARNING"
            logger.log(level, "the spec has changed since the checkpoint was made: {}", changed)

    def _drop_later_rows(self, tracker: MetricsTracker, csv: CsvSink) -> None:
        rows = csv.truncate_after(tracker.frame)
        tracker.load_rows(rows)
        if (int(rows[-1]["frame"] or 0) if rows else -1) != tracker.frame:
            logger.warning("{}: rows before frame {} are missing", csv.path, self.frame)

    def _loop(self) -> bool:
        """Act, step, learn; gives whether it was asked to stop.

        Everything that is not needed in each step is done between stretches of them.
        """
        meta, max_frame = self.lab_run.spec.meta, self.lab_run.spec.env.max_frame
        act, observe, maybe_update = self.agent.act, self.agent.observe, self.agent.maybe_update
        env_step, episodes, stop = self.env.step, self.tracker.episodes, self._stop
        rollouts = rollouts_of(self.lab_run.spec, self.agent, self.env)
        num_envs, eval_frames = self.env.info.num_envs, eval_every(meta)
        count = None if self._commons is None else self._commons.add
        obs, frame, t, latest = self.env.obs, self.frame, self.t, self._latest
        while frame < max_frame:
            log_at = next_multiple(frame, meta.log_frequency)
            eval_at = max_frame if eval_frames is None else next_multiple(frame, eval_frames)
            until = min(log_at, eval_at, max_frame)
            stopped = False
            while frame < until:
                if stop():
                    stopped = True
                    break
                # rows of what is played on a device come after whole rollouts
                if rollouts is not None and (steps := rollouts.left((max_frame if rollouts.whole else until) - frame)):
                    episodes(*rollouts.play(steps))
                    frame, t = frame + steps * num_envs, t + steps
                    latest = maybe_update(frame) or rollouts.learned or latest
                    continue
                action = act(obs)
                step = env_step(action)
                # the env keeps the obs that was acted on whole until its next step
                observe(obs, action, step)
                if step.episode_return:
                    episodes(step.episode_return, step.episode_length)
                obs = step.obs
                frame = frame + num_envs if count is None else count(num_envs)
                t += 1
                stats = maybe_update(frame)
                if stats is not None:
                    latest = stats
            self.frame, self.t, self._latest = frame, t, latest
            if stopped:
                return True
            if frame >= max_frame:
                break
            if frame >= log_at:
                self._log()
            if frame >= eval_at:
                self._evaluate()
            if frame >= log_at and self._save_is_due():
                self._save()
        return False

    def _save_is_due(self) -> bool:
        """After the interval; large nets take longer to write, but never more than a twentieth of the time."""
        interval = self.lab_run.spec.meta.checkpoint_interval
        wait = max(interval, 20 * self._save_cost) if interval else 0.0
        return time.perf_counter() - self._saved_at >= wait

    def _log(self) -> None:
        """Make a row; keep a copy of the policy if it is the best so far."""
        if self.tracker.frame == self.frame:
            return
        self._record()
        before = max(self.tracker.frame, 0)
        if self._commons is not None:
            # all sessions have as many rows, one for each multiple, whatever the others did while this one learned
            every = self.lab_run.spec.meta.log_frequency
            for missed in range(next_multiple(before, every), self.frame // every * every, every):
                self._report_row(self.tracker.checkpoint(**self._now() | {"frame": missed}))
        row = self.tracker.checkpoint(**self._now())
        if self.tracker.is_best:
            self._best = self._policy(row)
            self._best_weights = {name: w.detach().clone() for name, w in self.agent.weights().items()}
        if self._is_kept(before):
            run = self.lab_run
            checkpoint.save(run.layout.kept(run.trial, run.session, self.frame), self._policy(row), keep=False)
        self._report_row(row)

    def _is_kept(self, before: int) -> bool:
        """Whether a multiple of max_frame / keep_checkpoints was reached since the frame `before`."""
        count, max_frame = self.lab_run.spec.meta.keep_checkpoints, self.lab_run.spec.env.max_frame
        return self.frame * count // max_frame > before * count // max_frame

    def _policy(self, row: Row) -> State:
        """What is needed to act as now."""
        return {
            **self._identity(),
            "counters": {"frame": self.frame, "t": self.t},
            "total_reward_ma": row["total_reward_ma"],
            "policy": self.agent.policy_state(),
            "normalizer": self.env.normalizer_state(),
        }

    def _report_row(self, row: Row) -> None:
        self._feed.flush()
        self._report({"kind": "row", "row": row})

    def _report_episodes(self, episodes: list[Episode]) -> None:
        self._report({"kind": "episodes", "episodes": episodes})

    def _evaluate(self) -> None:
        if self.evaluator is None or self.eval_tracker.frame == self.frame:
            return
        self.eval_tracker.episodes(*self.evaluator(self.agent, self.frame, self.env.normalizer_state()))
        self.eval_tracker.checkpoint(**self._now())

    def _record(self) -> None:
        """Hand the statistics of the latest update to the tracker."""
        self.agent.check(self._latest)
        self.tracker.record(**{name: value for name, value in self._latest.items() if name not in self._hidden})

    def _save(self) -> None:
        """Write what is needed to go on from here.

        The best policy comes first, so that no checkpoint is later than a best policy that was never written.
        """
        run = self.lab_run
        self._record()
        begun = time.perf_counter()
        if self._best is not None:
            checkpoint.save(run.layout.best(run.trial, run.session), self._best, keep=False)
            path = run.layout.weights(run.trial, run.session, best=True)
            checkpoint.save_weights(path, self._best_weights, frame=self._best["counters"]["frame"])
            self._best = None
        # the checkpoint counts on these rows
        self.csv.sync()
        if self.evaluator is not None:
            self.eval_csv.sync()
        self._compare_setting()
        checkpoint.save(
            self._path,
            {
                **self._identity(),
                "setting": self._setting(),
                "counters": {"frame": self.frame, "t": self.t},
                "agent": self.agent.state_dict(),
                "normalizer": self.env.normalizer_state(),
                "env": self.env.state_dict(),
                "tracker": self.tracker.state_dict(),
                "eval_tracker": None if self.evaluator is None else self.eval_tracker.state_dict(),
                "rng": checkpoint.get_rng(),
                "wall_t": self.clock.seconds(),
            },
        )
        self._saved_at = time.perf_counter()
        self._save_cost = self._saved_at - begun

    def _setting(self) -> dict[str, Any]:
        """What the last bits of the numbers depend on, beside spec and seed."""
        return {
            "device": str(self.agent.device),
            "compiled": self.agent.compiled,
            "threads": self.lab_run.threads,
            "precision": self.agent.precision,
        }

    def _compare_setting(self) -> None:
        """Warn at the first save after a resume: only then it is known whether updates could be compiled."""
        before, self._before = self._before, None
        for name, now in self._setting().items():
            if (then := (before or {}).get(name, now)) != now:
                logger.warning("the checkpoint was made with {} {}, this is {}: not the same bits", name, then, now)

    def _now(self) -> dict[str, Any]:
        """What a tracker's row says of the moment."""
        return {
            "frame": self.frame,
            "t": self.t,
            "opt_step": self.agent.opt_step,
            "wall_t": self.clock.seconds(),
            "variables": self.agent.variables(),
        }

    def _identity(self) -> State:
        """What tells a file of this session from another's."""
        run = self.lab_run
        return {"spec": run.spec.to_dict(), "trial": run.trial, "session": run.session, "seed": run.seed}

    def _result(self, rows: list[Row], stopped: bool) -> SessionResult:
        run = self.lab_run
        kinds = {"train": rows}
        if run.spec.meta.rigorous_eval:
            kinds["eval"] = read_rows(run.layout.session_df(run.trial, run.session, "eval"))
        metrics = {
            kind: save_session(run.layout, run.trial, run.session, table, find(run.spec.env.name).id, kind)
            for kind, table in kinds.items()
        }
        for kind, found in metrics.items():
            file_logger.info("{}", block(found["scalar"], f"session {run.session}, {kind}"))
        return SessionResult(
            run.trial, run.session, self.frame, rows, metrics["train"], metrics.get("eval"), stopped=stopped
        )
