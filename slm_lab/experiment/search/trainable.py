"""What Ray runs: one trial of the lab, in processes of its own, inside what it was given."""

import json
import queue
import threading
import time
from contextlib import ExitStack
from typing import Any

from loguru import logger
from ray import tune

from slm_lab.agent.metrics import Row
from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.records.runs import locked
from slm_lab.experiment.search.scheduler import Report
from slm_lab.experiment.search.store import Plan, Store
from slm_lab.experiment.session.run import Mode, TrialResult
from slm_lab.experiment.trial.pool import Pool
from slm_lab.experiment.trial.trial import Trial, pool_size
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.lib.files import write_json
from slm_lab.lib.layout import Layout
from slm_lab.lib.log import setup
from slm_lab.lib.registry import import_plugins
from slm_lab.spec.model import Spec
from slm_lab.spec.search import trial_spec

BATCH = 0.5
"""Seconds of rows that are handed over at a time."""
PULSE = 2.0
"""Seconds after which a trial reports even without a row: Ray can stop it only between reports."""
PATIENCE = 10.0
"""Seconds that sessions have to save and end."""
LEASE = 20.0
"""Seconds for which sessions continue without being asked for."""


class Merge:
    """Rows of the sessions of a trial become its reports: the means over the sessions, row by row.

    A report is made once every session that has not crashed has the row. Rows that come a second time, of a session
    that continued from its checkpoint, are left out.
    """

    def __init__(self, sessions: int) -> None:
        self._rows: dict[int, list[Row]] = {session: [] for session in range(sessions)}
        self._made = 0

    def row(self, session: int, row: Row) -> list[Report]:
        """Take a row; the reports that it completes."""
        rows = self._rows[session]
        if rows and (row["frame"] or 0) <= (rows[-1]["frame"] or 0):
            return []
        rows.append(row)
        return self._reports()

    def drop(self, session: int) -> list[Report]:
        """The session crashed: the others continue without it."""
        self._rows.pop(session, None)
        return self._reports()

    def _reports(self) -> list[Report]:
        found = []
        while self._rows and min(map(len, self._rows.values())) > self._made:
            rows = [rows[self._made] for rows in self._rows.values()]
            self._made += 1
            found.append(
                {
                    "frame": int(rows[0]["frame"] or 0),
                    "training_iteration": self._made,
                    "time_total_s": float(max(row["wall_t"] or 0 for row in rows)),
                    **{name: _mean([row[name] for row in rows]) for name in ("total_reward", "total_reward_ma")},
                }
            )
        return found


def _mean(values: list[float | int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


class SearchTrial(tune.Trainable):
    """Runs `experiment.trial.Trial` in a thread, its sessions in processes, and hands their rows to Ray.

    Nothing that Ray does here waits for a session, nor does a session wait for Ray. One of these runs a trial after the
    other: processes and what they imported stay. When Ray stops a trial its sessions save and end before the cores are
    another's. Sessions of a trial that Ray does not ask for any more, for whatever reason, end as well; they go on from
    their checkpoints, to the bit, if it asks again.
    """

    _trial: tuple[Spec, Layout] | None
    _thread: threading.Thread | None
    _result: TrialResult | Exception | None

    def setup(self, config: dict[str, Any], plan: Plan) -> None:  # type: ignore[override]  # Ray's with_parameters
        """Make ready for {"trial": index, "values": {key path: value}}; sessions are started with the first steps."""
        self._plan = plan
        self._store = Store(plan)
        self._stack = ExitStack()
        fds = []
        if not self._store.is_remote:
            fds = self._stack.enter_context(locked(self._store.layout, PATIENCE, workers=True, shared=True))
        self._pool = self._stack.enter_context(Pool(plan.workers, pass_fds=fds))
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another trial."""
        self._end_sessions()
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The rows since the last step; or how the trial ended."""
        self._asked = time.monotonic()
        if self._trial is None:
            try:
                self._trial = self._prepare()
            except LabError as e:
                return self._crashed("; ".join(e.faults) if isinstance(e, SpecError) else str(e), misuse=True)
            if self._backlog:
                # before a session continues: it may be stopped for what it did already
                return {"trial": self._index, "rows": self._backlog}
        if self._thread is None or self._is_laid_down():
            self._result = None
            self._thread = threading.Thread(target=self._run, args=self._trial, daemon=True)
            self._thread.start()
        rows = self._wait()
        self._store.send(self._index)
        if rows or self._is_running() or self._is_laid_down():
            return {"trial": self._index, "rows": rows}
        return self._ended()

    def cleanup(self) -> None:
        """Ray is done here: the sessions save and end, and their processes end."""
        self._end_sessions()
        self._stack.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """The sessions save themselves."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """The sessions continue from their own checkpoints."""

    def _take(self, config: dict[str, Any]) -> None:
        self._index, self._values = config["trial"], config["values"]
        self._events: queue.SimpleQueue[tuple[int, Row | None]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._trial = None
        self._thread = None
        self._result = None
        self._backlog: list[Report] = []
        self._asked = time.monotonic()

    def _end_sessions(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(PATIENCE)
            if self._thread.is_alive():
                self._pool.kill()
                self._thread.join(PATIENCE)

    def _prepare(self) -> tuple[Spec, Layout]:
        plan = self._plan
        layout = self._store.open(self._index)
        setup(plan.options.log_level, layout.log(layout.t(self._index)), console=False)
        if self._store.is_remote:
            logger.info("files go from here to {}, on another machine", plan.layout.root)
        import_plugins(plan.spec["meta"].get("plugins", []))
        spec = trial_spec(Spec.model_validate(plan.spec), self._values)
        path = layout.trial_spec(self._index)
        if path.exists() and json.loads(path.read_text(encoding="utf-8")) != spec.to_dict():
            self._store.clear(self._index)
        write_json(path, spec.to_dict())
        sessions = spec.meta.max_session
        self._merge = Merge(sessions)
        for session in range(sessions):
            for row in read_rows(layout.session_df(self._index, session)):
                self._backlog += self._merge.row(session, row)
        return spec, layout

    def _is_running(self) -> bool:
        """Whether there is, or may be, a row to come."""
        return self._thread is None or self._thread.is_alive() or not self._events.empty()

    def _is_laid_down(self) -> bool:
        """Its sessions stopped because Ray did not ask for them for a while."""
        stopped = isinstance(self._result, TrialResult) and self._result.stopped
        return stopped and not self._stop.is_set() and not self._is_running()

    def _should_stop(self) -> bool:
        return self._stop.is_set() or time.monotonic() - self._asked > LEASE

    def _run(self, spec: Spec, layout: Layout) -> None:
        plan, events = self._plan, self._events
        try:
            self._pool.fill(pool_size(spec, plan.cpu))
            trial = Trial(
                spec,
                Mode.SEARCH,
                layout,
                plan.options,
                self._index,
                pool=self._pool,
                stop=self._should_stop,
                cores=plan.cpu,
                listen=lambda session, row: events.put((session, row)),
            )
            self._result = trial.run()
        except Exception as e:  # noqa: BLE001  raised by the step that waits for it
            self._result = e

    def _wait(self) -> list[Report]:
        """Rows of BATCH seconds, or what there is when the sessions end."""
        reports: list[Report] = []
        begun = time.monotonic()
        while (left := begun + (BATCH if reports else PULSE) - time.monotonic()) > 0:
            try:
                session, row = self._events.get(timeout=min(left, 0.1))
            except queue.Empty:
                if not self._is_running():
                    break
                continue
            reports += self._merge.drop(session) if row is None else self._merge.row(session, row)
        return reports

    def _ended(self) -> dict[str, Any]:
        result = self._result
        if not isinstance(result, TrialResult):
            return self._crashed(f"{type(result).__name__}: {result}")
        self._store.send(self._index, last=True)
        if not result.sessions:
            reasons = list(dict.fromkeys(crash.reason for crash in result.crashed))
            return self._crashed("; ".join(reasons) or "no session ended", all(c.misuse for c in result.crashed))
        return {"trial": self._index, "done": True, "crashed_sessions": len(result.crashed)}

    def _crashed(self, reason: str, misuse: bool = False) -> dict[str, Any]:
        return {"trial": self._index, "done": True, "crash": reason.strip(), "misuse": misuse}
