"""slm_lab as a library: load a spec, run it, read the results, act with the policy.

    from slm_lab import api

    spec = api.load_spec("ppo_cartpole.json", "ppo_cartpole", sets={"meta.max_session": "2"})
    done = api.run(spec, out="results")
    print(done.folder, done.metrics["total_reward_ma"])

    policy = api.load_agent(done.folder)
    action = policy.act(obs)

Works from any folder and from scripts, notebooks and threads; sessions that run in processes of their own do not import
the caller's main module, so no `if __name__ == "__main__"` is needed. What a spec needs registered (envs, algorithms)
belongs in a module that its `meta.plugins` names.
"""

import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from slm_lab.agent.metrics import Row
from slm_lab.experiment import launch
from slm_lab.experiment.graphs.plot import plot
from slm_lab.experiment.play.enjoy import SavedPolicy
from slm_lab.experiment.play.export import Exported
from slm_lab.experiment.play.export import export as write_policy
from slm_lab.experiment.play.measure import Evaluation, evaluate
from slm_lab.experiment.play.policy import Policy
from slm_lab.experiment.records.compare import Comparison, compare
from slm_lab.experiment.report.write import report
from slm_lab.experiment.session.callbacks import Callbacks, Episode
from slm_lab.experiment.session.run import Mode, Options, RunResult
from slm_lab.experiment.trial.check import load_spec
from slm_lab.lib.errors import LabError
from slm_lab.lib.log import adopt_console, silenced
from slm_lab.lib.suggest import did_you_mean
from slm_lab.spec.model import Spec

__all__ = [
    "Comparison",
    "Episode",
    "Evaluation",
    "Exported",
    "Policy",
    "RunResult",
    "Spec",
    "compare",
    "evaluate",
    "export",
    "load_agent",
    "load_spec",
    "plot",
    "report",
    "resume",
    "run",
]


def run(  # noqa: PLR0913  what a run can be asked for
    spec: Spec | str | Path | dict[str, Any],
    name: str | None = None,
    *,
    mode: str = "train",
    out: str | Path = "data",
    seed: int | None = None,
    device: str = "auto",
    sets: dict[str, Any] | None = None,
    start_from: str | Path | None = None,
    log_metrics: bool = False,
    progress: bool = False,
    quiet: bool = False,
    on_row: Callable[[int, Row], object] | None = None,
    on_episode: Callable[[int, Episode], object] | None = None,
    should_stop: Callable[[], object] | None = None,
) -> RunResult:
    """Run a spec in a new run folder.

    The callbacks are called in this process and thread, also for sessions that run in processes of their own. If one
    raises, the sessions save and stop as after Ctrl-C, and the exception is raised here; `resume` continues from there.
    After Ctrl-C that is KeyboardInterrupt; SIGTERM and SIGHUP do, once all is saved, what they do elsewhere.

    Args:
        spec: a spec, or what `load_spec` takes.
        name: of the spec in its file; may be left out where there is one only.
        mode: `train`; `search`, which runs trials of the spec's search block; or `dev` for a single session with
            checks and TensorBoard.
        out: folder that the run folder is made in.
        seed: over `meta.random_seed`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        sets: values of `${variables}`, and of keys by dotted path.
        start_from: run folder (its best policy counts), checkpoint file, or `latest` of `out`: sessions start from its
            weights and normalizer.
        log_metrics: log and draw the extra metrics.
        progress: live display, where there is a terminal.
        quiet: print nothing, not even warnings; the log files in the run folder are written all the same.
        on_row: called with a session's index and each of its log rows, a dict by column name. Not for a search.
        on_episode: called with a session's index and each finished episode: `epi`, `ret`, `length`. Not for a search.
        should_stop: called after each row and about ten times a second; true stops the run.

    Returns:
        The folder and the metrics; sessions that crashed, with the reason.

    Raises:
        LabError: the spec is wrong, or its env can't be made.
    """
    if isinstance(spec, Spec) and name not in (None, spec.name):
        raise LabError(f"name: the spec is called '{spec.name}' (got '{name}')")
    if isinstance(spec, Spec) and sets is not None:
        spec = spec.to_dict()
    if mode == "search" and (on_row or on_episode):
        raise LabError("on_row, on_episode: a search has none, it runs trials; should_stop works there too")
    modes = [known.value for known in (Mode.DEV, Mode.TRAIN, Mode.SEARCH)]
    if mode not in modes:
        raise LabError(f"unknown mode '{mode}'{did_you_mean(mode, modes)} (known: {', '.join(modes)})")
    options = Options(
        out=Path(out).expanduser(),
        seed=seed,
        device=device,
        log_metrics=log_metrics,
        start_from=None if start_from is None else str(start_from),
        progress=progress and not quiet,
    )
    adopt_console()
    with silenced() if quiet else nullcontext():
        loaded = spec if isinstance(spec, Spec) else load_spec(spec, name, sets=sets)
        done = launch.run_spec(loaded, Mode(mode), options, callbacks=Callbacks(on_row, on_episode, should_stop))
    return _passed_on(done)


def resume(
    target: str | Path = "latest",
    *,
    out: str | Path = "data",
    sets: dict[str, Any] | None = None,
    device: str | None = None,
    progress: bool = False,
    quiet: bool = False,
    on_row: Callable[[int, Row], object] | None = None,
    on_episode: Callable[[int, Episode], object] | None = None,
    should_stop: Callable[[], object] | None = None,
) -> RunResult:
    """Go on with a run that was interrupted: to the bit as if it had not been; or extend one that is finished.

    Args:
        target: a run folder, or `latest` of `out`.
        out: folder of the run folders.
        sets: keys of the spec to change from here on, by dotted path: `{"env.max_frame": "200000"}`.
        device: as for `run`; by default what the run was started with.
        progress: live display, where there is a terminal.
        quiet: print nothing.
        on_row: see `run`.
        on_episode: see `run`.
        should_stop: see `run`.

    Raises:
        LabError: no such run; it can't be read; another process is working on it.
    """
    options = Options(out=Path(out).expanduser(), device=device or "auto", progress=progress and not quiet)
    given, callbacks = {"device"} if device else set[str](), Callbacks(on_row, on_episode, should_stop)
    adopt_console()
    with silenced() if quiet else nullcontext():
        done = launch.resume(target, options, sets=sets, given=given, callbacks=callbacks)
    return _passed_on(done)


def load_agent(target: str | Path, *, out: str | Path = "data", device: str = "cpu") -> Policy:
    """The best policy of a run.

    Args:
        target: a run folder (its best session counts), a checkpoint file, or `latest` of `out`.
        out: folder of the run folders.
        device: torch name.

    Raises:
        LabError: there is none, or it can't be read.
    """
    return Policy(SavedPolicy.open(target, Path(out).expanduser()), device)


def export(target: str | Path, file: str | Path, *, out: str | Path = "data") -> Exported:
    """Write a policy as one file that runs without the lab, and check it against the policy.

    Args:
        target: as for `load_agent`.
        file: `.onnx`, or `.pt2` for torch.export.load.
        out: folder of the run folders.

    Raises:
        LabError: no such policy; another kind of file; what can't be exported.
    """
    return write_policy(SavedPolicy.open(target, Path(out).expanduser()), Path(file).expanduser())


def _passed_on(done: RunResult) -> RunResult:
    """The result; a signal that stopped the run has its usual effect now, so that a loop over runs ends as well."""
    if done.signal is not None:
        signal.raise_signal(done.signal)
    return done
