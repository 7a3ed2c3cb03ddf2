"""Where the rows of a session go: its table, its sinks, its metrics."""

from contextlib import ExitStack

from loguru import logger

from slm_lab.agent.metrics import MetricsTracker, Row
from slm_lab.agent.sinks import CsvSink, LogSink, SafeSink, SinkRun, TensorBoardSpec, read_rows
from slm_lab.env.names import find
from slm_lab.experiment.records.analysis import RunningMetrics, save_session
from slm_lab.experiment.records.wording import block
from slm_lab.experiment.session.run import Mode, Run, SessionResult
from slm_lab.lib.log import file_logger


def attach_sinks(run: Run, tracker: MetricsTracker, env_name: str, resumed_at: int | None, stack: ExitStack) -> None:
    """Give the tracker the sinks of the spec and the log; they close with the stack."""
    layout, label, dev = run.layout, f"session {run.session}", run.mode is Mode.DEV
    chosen = list(run.spec.meta.sinks)
    if dev and not any(sink.name.lower().startswith("tensorboard") for sink in chosen):
        chosen.append(TensorBoardSpec(name="tensorboard"))
    stem, folder = layout.s(run.trial, run.session), layout.root / "log"
    about = SinkRun(layout.root.name, run.trial, run.session, stem, run.spec.to_dict(), folder, resumed_at)
    for spec in chosen:
        sink = SafeSink(spec, about)
        stack.callback(sink.close)
        tracker.sinks.append(sink)
    tracker.sinks.append(LogSink(label, run.spec.env.max_frame, logger.info if dev else file_logger.info))
    if run.options.log_metrics:
        tracker.sinks.append(RunningMetrics(env_name, label, tracker.rows))


def resume_rows(tracker: MetricsTracker, csv: CsvSink) -> None:
    """Load a table's rows up to the tracker's frame; later ones are dropped."""
    rows = csv.truncate_after(tracker.frame)
    tracker.load_rows(rows)
    if (int(rows[-1]["frame"] or 0) if rows else -1) != tracker.frame:
        logger.warning("{}: rows before frame {} are missing", csv.path, tracker.frame)


def session_result(run: Run, frame: int, rows: list[Row], *, stopped: bool) -> SessionResult:
    """Compute, save and log the metrics of a session that ended at a frame; `rows` are those of its training."""
    layout, trial, session = run.layout, run.trial, run.session
    # without an optimizer there is no learning rate, and nothing to update
    if not stopped and rows and "lr" in rows[-1] and not rows[-1]["opt_step"]:
        why = "its first update comes later (training_start_step, training_frequency, time_horizon)"
        logger.warning("session {} ended at frame {:,} and never learned: {}", session, frame, why)
    kinds = {"train": rows}
    if run.spec.meta.rigorous_eval:
        kinds["eval"] = read_rows(layout.session_df(trial, session, "eval"))
    env_id = find(run.spec.env.name).id
    metrics = {kind: save_session(layout, trial, session, table, env_id, kind) for kind, table in kinds.items()}
    for kind, found in metrics.items():
        file_logger.info("{}", block(found["scalar"], f"session {session}, {kind}"))
    return SessionResult(trial, session, frame, rows, metrics["train"], metrics.get("eval"), stopped=stopped)
