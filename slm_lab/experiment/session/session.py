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
from slm_lab.experiment.session import checkpoint
from slm_lab.experiment.session.callbacks import EpisodeFeed
from slm_lab.experiment.session.clock import crossed, eval_every, next_multiple
from slm_lab.experiment.session.commons import Commons, restore
from slm_lab.experiment.session.evaluate import Evaluator
from slm_lab.experiment.session.extend import can_change, changed_keys
from slm_lab.experiment.session.outlets import attach_sinks, resume_rows, session_result
from slm_lab.experiment.session.resources import session_threads, take_device, thread_share, use_compile
from slm_lab.experiment.session.rollouts import rollouts_of, training_env
from slm_lab.experiment.session.run import Mode, Run, SessionResult
from slm_lab.lib.errors import LabError
from slm_lab.lib.registry import import_plugins
from slm_lab.lib.seeding import derive, seed_everything
from slm_lab.lib.stateful import State

ENV, AGENT, EVAL = 0, 1, 2
"""Names of the seeds that are derived from a session's seed."""


class Session:
    """Learn until `env.max_frame`, or until asked to stop.

    A session that finds its own checkpoint resumes from it; a finished one only returns its result. A run that was
    interrupted and resumed ends with the same numbers as one that was not, bit for bit.

    Args:
        run: which session of which trial.
        report: called after each row with {"kind": "row", "row": row}; if the run reports episodes, also with
            {"kind": "episodes", "episodes": [...]}.
        stop: called before each step; true ends the session after a last checkpoint.
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
        """Env and agent are built and the checkpoint is loaded: later failures are failures of the training."""

    def run(self) -> SessionResult:
        """Run the session. Files go to the folders of the run's layout, which must exist.

        Raises:
            LabError: the env can't be made, the loss is not finite, the checkpoint is unreadable or does not fit the
                spec.
        """
        run = self.lab_run
        with ExitStack() as stack:
            if run.shared_fd is not None:
                self._commons = Commons(run.shared_fd, run.session, run.spec.meta.max_session)
                stack.callback(self._commons.leave)
            import_plugins(run.spec.meta.plugins)
            state = checkpoint.load(self._path) if checkpoint.exists(self._path) else None
            if state is not None and state["counters"]["frame"] >= run.spec.env.max_frame:
                self.frame = state["counters"]["frame"]
                rows = read_rows(run.layout.session_df(run.trial, run.session))
                return session_result(run, self.frame, rows, stopped=False)
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
            # last, so that all other files exist once this checkpoint does
            self._save()
        return session_result(run, self.frame, self.tracker.rows, stopped=stopped)

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
            compile=use_compile(spec.meta.compile, spec.env.max_frame, spec.agent.net),
            debug=run.mode is Mode.DEV,
            # all sessions start from the same weights, whichever joins first
            init_seed=derive(run.seed_of(0), AGENT) if self._commons else None,
        )
        self.threads = session_threads(self.agent.work, run.threads)
        torch.set_num_threads(self.threads)
        self.csv = CsvSink(run.layout.session_df(run.trial, run.session))
        extras = ["episode_length", *(name for name in self.agent.stat_names if name not in self._hidden)]
        self.tracker = MetricsTracker([self.csv], extras=extras)
        self.evaluator = None
        if meta.rigorous_eval:
            self.evaluator = Evaluator(spec.env, meta.rigorous_eval, derive(seed, EVAL), thread_share(spec, run.cores))
            stack.callback(self.evaluator.close)
            self.eval_csv = CsvSink(run.layout.session_df(run.trial, run.session, "eval"))
            self.eval_tracker = MetricsTracker([self.eval_csv], extras=["episode_length"], window=meta.rigorous_eval)
        self._best: State | None = None
        self._best_weights: dict[str, Tensor] = {}
        self._latest: Mapping[str, Tensor] = {}

    def _begin(self, state: State | None, stack: ExitStack) -> None:
        """Start from the seed or from a checkpoint, then attach the sinks that are not part of the state."""
        run = self.lab_run
        if state is None:
            if (origin := run.layout.origin()).exists():
                tree = checkpoint.load(origin)
                self.agent.start_from(tree["policy"])
                self.env.load_normalizer_state(tree["normalizer"])
                frame = tree["counters"]["frame"]
                logger.info("session {} starts from {}, frame {}", run.session, tree["source"], frame)
            self.env.reset(derive(run.seed, ENV))
            self._started = time.perf_counter()
        else:
            self.frame, self.t = state["counters"]["frame"], state["counters"]["t"]
            self._load(state)
            self.tracker.load_state_dict(state["tracker"])
            if self.evaluator is not None and state["eval_tracker"] is not None:
                self.eval_tracker.load_state_dict(state["eval_tracker"])
            checkpoint.set_rng(state["rng"])
            self._started = time.perf_counter() - state["wall_t"]
            logger.info("session {} resumes at frame {}", run.session, self.frame)
        if self._commons is not None:
            self._join(self._commons)
        resume_rows(self.tracker, self.csv)
        if self.evaluator is not None:
            resume_rows(self.eval_tracker, self.eval_csv)
        attach_sinks(run, self.tracker, self.env.info.name, None if state is None else self.frame, stack)
        self._feed = EpisodeFeed(lambda episodes: self._report({"kind": "episodes", "episodes": episodes}))
        if run.report_episodes:
            self.tracker.on_episodes = self._feed.add
        self._saved_at, self._save_cost = time.perf_counter(), 0.0
        self._before = None if state is None else state.get("setting")

    def _join(self, commons: Commons) -> None:
        """Learn with the other sessions of a distributed trial from here on."""
        run, num_envs = self.lab_run, self.env.info.num_envs
        paths = [run.layout.checkpoint(run.trial, i) for i in range(run.spec.meta.max_session)]
        common = commons.join(self.agent.shared(), lambda: restore(paths, self.agent, num_envs))
        self.agent.share_(common, copy=run.spec.meta.distributed == "synced")
        commons.wait(self._stop)
        self.frame = commons.frame
        self.agent.set_frame(self.frame)

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

    def _loop(self) -> bool:
        """Act, step, learn. Returns whether `stop` ended it.

        Logging, evaluation and checkpoints happen between stretches of steps, not in each step.
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
                # rollouts on a device are played whole; their rows come after them
                if rollouts is not None and (steps := rollouts.left((max_frame if rollouts.whole else until) - frame)):
                    episodes(*rollouts.play(steps))
                    frame, t = frame + steps * num_envs, t + steps
                    latest = maybe_update(frame) or rollouts.learned or latest
                    continue
                action = act(obs)
                step = env_step(action)
                # the env does not overwrite this obs before its next step
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
        """Whether the interval has passed; saving takes at most a twentieth of the time."""
        interval = self.lab_run.spec.meta.checkpoint_interval
        wait = max(interval, 20 * self._save_cost) if interval else 0.0
        return time.perf_counter() - self._saved_at >= wait

    def _log(self) -> None:
        """Add a row; keep a copy of the policy if it is the best so far."""
        if self.tracker.frame == self.frame:
            return
        self._record()
        run, before = self.lab_run, max(self.tracker.frame, 0)
        if self._commons is not None:
            # every session has a row for each multiple, also for those that passed while others stepped
            every = run.spec.meta.log_frequency
            for missed in range(next_multiple(before, every), self.frame // every * every, every):
                self._report_row(self.tracker.checkpoint(**self._now() | {"frame": missed}))
        row = self.tracker.checkpoint(**self._now())
        if self.tracker.is_best:
            self._best = self._policy(row)
            self._best_weights = self.agent.weights()
        if crossed(before, self.frame, run.spec.env.max_frame, run.spec.meta.keep_checkpoints):
            checkpoint.save(run.layout.kept(run.trial, run.session, self.frame), self._policy(row), keep=False)
        self._report_row(row)

    def _policy(self, row: Row) -> State:
        """What is needed to act with the current policy."""
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

    def _evaluate(self) -> None:
        if self.evaluator is None or self.eval_tracker.frame == self.frame:
            return
        self.eval_tracker.episodes(*self.evaluator(self.agent, self.frame, self.env.normalizer_state()))
        self.eval_tracker.checkpoint(**self._now())

    def _record(self) -> None:
        """Pass the statistics of the latest update to the tracker."""
        self.agent.check(self._latest)
        self.tracker.record(**{name: value for name, value in self._latest.items() if name not in self._hidden})

    def _save(self) -> None:
        """Write a checkpoint; before it the best policy, which a resume takes to be on the disk."""
        run = self.lab_run
        self._record()
        begun = time.perf_counter()
        if self._best is not None:
            checkpoint.save(run.layout.best(run.trial, run.session), self._best, keep=False)
            path = run.layout.weights(run.trial, run.session, best=True)
            checkpoint.save_weights(path, self._best_weights, frame=self._best["counters"]["frame"])
            self._best = None
        # a resume needs all rows up to the checkpoint
        self.csv.sync()
        if self.evaluator is not None:
            self.eval_csv.sync()
        # only now it is known whether updates could be compiled
        checkpoint.compare_setting(self._before, self._setting())
        self._before = None
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
                "wall_t": time.perf_counter() - self._started,
            },
        )
        self._saved_at = time.perf_counter()
        self._save_cost = self._saved_at - begun

    def _setting(self) -> dict[str, Any]:
        """What the last bits of results depend on, besides spec and seed."""
        return {
            "device": str(self.agent.device),
            "compiled": self.agent.compiled,
            "threads": self.threads,
            "precision": self.agent.precision,
        }

    def _now(self) -> dict[str, Any]:
        """The counters of a row."""
        return {
            "frame": self.frame,
            "t": self.t,
            "opt_step": self.agent.opt_step,
            "wall_t": time.perf_counter() - self._started,
            "variables": self.agent.variables(),
        }

    def _identity(self) -> State:
        """What identifies the files of this session."""
        run = self.lab_run
        return {"spec": run.spec.to_dict(), "trial": run.trial, "session": run.session, "seed": run.seed}
