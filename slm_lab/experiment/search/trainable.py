"""What Ray runs: one trial of the lab, in processes of its own, inside what it was given."""

import json
import queue
import threading
import time
from typing import Any

from loguru import logger
from ray import tune

from slm_lab.agent.metrics import Row
from slm_lab.agent.sinks import read_rows
from slm_lab.experiment.pool import Pool
from slm_lab.experiment.results import TrialResult
from slm_lab.experiment.run import Mode
from slm_lab.experiment.runs import locked
from slm_lab.experiment.search.plan import Plan
from slm_lab.experiment.search.scheduler import Report
from slm_lab.experiment.search.store import Store
from slm_lab.experiment.trial import Trial, pool_size
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


class Merge:
    """Rows of the sessions of a trial become its reports: the means over the sessions, row by row.

    A report is made once every session that has not crashed has the row. Rows that come a second time, of a session
    that went on from its checkpoint, are left out.

    Args:
        sessions: how many.
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
        """The session crashed: the others go on without it."""
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

    Nothing that Ray does here waits for a session, nor does a session wait for Ray. When Ray stops the trial, its
    sessions save and end before its cores are free for another.
    """

    def setup(self, config: dict[str, Any], plan: Plan) -> None:  # type: ignore[override]  # Ray's with_parameters
        """Make ready; the sessions are started with the first step.

        Args:
            config: {"trial": index, "values": {key path: value}}.
            plan: what all trials have in common.
        """
        self._index, self._values, self._plan = config["trial"], config["values"], plan
        self._events: queue.SimpleQueue[tuple[int, Row | None]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._trial: tuple[Spec, Layout] | None = None
        self._thread: threading.Thread | None = None
        self._result: TrialResult | Exception | None = None
        self._backlog: list[Report] = []
        self._store = Store(plan)

    def step(self) -> dict[str, Any]:
        """The rows since the last step; or how the trial ended."""
        if self._trial is None:
            try:
                self._trial = self._prepare()
            except LabError as e:
                return self._crashed("; ".join(e.faults) if isinstance(e, SpecError) else str(e), misuse=True)
            if self._backlog:
                # before a session goes on: it may be stopped for what it did already
                return self._handed(self._backlog)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=self._trial, daemon=True)
            self._thread.start()
        rows = self._wait()
        self._store.send(self._index)
        if rows:
            return self._handed(rows)
        if not self._is_running():
            return self._ended()
        return self._handed([])

    def cleanup(self) -> None:
        """Ray is done with the trial: its sessions save and end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(PATIENCE)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """The sessions save themselves."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """The sessions go on from their own checkpoints."""

    def _prepare(self) -> tuple[Spec, Layout]:
        plan = self._plan
        layout = self._store.open(self._index)
        setup(plan.options.log_level, layout.log(layout.t(self._index)), console=False)
        if self._store.is_remote:
            logger.info("files go from here to {}, on another machine", plan.root)
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

    def _run(self, spec: Spec, layout: Layout) -> None:
        plan = self._plan
        try:
            # sessions of a search that was killed may still be saving
            held = locked(layout, PATIENCE, self._index)
            with held as fds, Pool(pool_size(spec, plan.cpu), pass_fds=fds) as pool:
                trial = Trial(
                    spec,
                    Mode.SEARCH,
                    layout,
                    plan.options,
                    self._index,
                    pool=pool,
                    stop=self._stop.is_set,
                    cores=plan.cpu,
                    listen=lambda session, row: self._events.put((session, row)),
                )
                self._result = trial.run()
        except Exception as e:  # noqa: BLE001  told by the step that waits for it
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

    def _handed(self, rows: list[Report]) -> dict[str, Any]:
        return {"trial": self._index, "rows": rows}

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
        return {"trial": self._index, "done": True, "crash": reason, "misuse": misuse}
