"""Where the rows of a session go, beside its table."""

from contextlib import ExitStack

from loguru import logger

from slm_lab.agent.metrics import MetricsTracker
from slm_lab.agent.sinks import LogSink, SafeSink, SinkRun, TensorBoardSpec
from slm_lab.experiment.analysis import RunningMetrics
from slm_lab.experiment.run import Mode, Run
from slm_lab.lib.log import file_logger


def attach_sinks(run: Run, tracker: MetricsTracker, env_name: str, resumed_at: int | None, stack: ExitStack) -> None:
    """Give the tracker the sinks of the spec and the log; they close with the stack.

    Args:
        run: which session.
        tracker: its rows are those up to a resume.
        env_name: as baselines.json knows it.
        resumed_at: frame of the checkpoint; None: the session starts.
        stack: of the session.

    Raises:
        LabError: a sink can't be made.
    """
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
