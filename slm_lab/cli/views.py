"""The commands that show the results of runs. The bodies are imported when a command runs."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from slm_lab.cli.options import AsJson, At, Checkpoint, Legends, Metric, OneRun, Out, Pattern, Runs, Target


def add_views(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(plot)
    app.command()(report)
    app.command()(compare)
    app.command("eval")(evaluate)
    app.command()(export)
    app.command("list-runs")(list_runs)


def plot(  # noqa: PLR0917  a parameter is an option
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="Run folders, patterns or spec names, as for report.")
    ] = None,
    folders: Annotated[
        str | None, typer.Option("-f", "--folders", metavar="A,B,...", help="The same, separated by commas.")
    ] = None,
    metric: Annotated[
        str, typer.Option("-m", "--metric", metavar="NAME", help="A column of the CSV tables.")
    ] = "total_reward",
    x: Annotated[str, typer.Option("-x", "--x", metavar="frames|time", help="The horizontal axis.")] = "frames",
    title: Annotated[str | None, typer.Option("-t", "--title", help="Title of the figure.")] = None,
    legends: Legends = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="A png, svg or pdf file.")] = Path(
        "plot.png"
    ),
    out: Out = Path("data"),
) -> None:
    """Plot runs: one panel per env, one curve per method with its 95 % interval.

    Runs of the same spec count as seeds of one method.
    """
    from slm_lab.cli.report import show_notes
    from slm_lab.cli.runs import find_all
    from slm_lab.experiment.graphs.plot import plot
    from slm_lab.lib.errors import LabError

    words = [*(runs or []), *(split_words(folders) or [])]
    if not words:
        raise LabError("plot: no run given; name folders, patterns or specs")
    labels = split_words(legends)
    notes: list[str] = []
    found = [layout.root for layout in find_all(words, out)]
    typer.echo(plot(found, output, metric=metric, x=x, title=title, labels=labels, told=notes.append))
    show_notes(notes)


def report(  # noqa: PLR0913, PLR0917  a parameter is an option
    runs: Runs,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="An .html file; default: report.html in the run folder, or here."
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Update the page while the run continues.")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="Time between updates of --watch.")] = 10.0,
    no_video: Annotated[bool, typer.Option("--no-video", help="Do not record a video of the best policy.")] = False,
    episodes: Annotated[
        int | None,
        typer.Option("--evaluate", metavar="N", min=1, help="Evaluate the best policy of each session: N episodes."),
    ] = None,
    metric: Metric = "total_reward",
    at: At = None,
    target: Target = None,
    legends: Legends = None,
    out: Out = Path("data"),
) -> None:
    """Write one HTML page about a run, a search or several runs. It works offline."""
    from slm_lab.cli.runs import find_all, find_local_plugins
    from slm_lab.experiment.report import write
    from slm_lab.lib.log import setup

    setup("WARNING")
    find_local_plugins()
    found = find_all(runs, out)
    settings: dict[str, Any] = {
        "video": not no_video,
        "evaluate": episodes,
        "metric": metric,
        "at": at,
        "target": target,
        "labels": split_words(legends),
    }
    if watch:
        path = write.watch(found, output, every=every, on_first=_open_page if open_it else None, **settings)
    else:
        path = write.report([layout.root for layout in found], output, **settings)
    typer.echo(path)
    if open_it and not watch:
        _open_page(path)


def _open_page(path: Path) -> None:
    import webbrowser

    from slm_lab.lib.errors import LabError

    with suppress(webbrowser.Error):
        if webbrowser.open(path.resolve().as_uri()):
            return
    raise LabError(f"--open: no browser was found here; the page is {path.resolve()}")


def compare(
    runs: Runs,
    metric: Metric = "total_reward",
    at: At = None,
    target: Target = None,
    legends: Legends = None,
    out: Out = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Compare runs: scores with 95 % intervals, per env and aggregated, and which method is better.

    Runs of the same spec count as seeds of one method.
    """
    from slm_lab.cli.compare import main

    main(runs, out, metric=metric, at=at, target=target, labels=split_words(legends), as_json=as_json)


def evaluate(  # noqa: PLR0917  a parameter is an option
    run: OneRun,
    episodes: Annotated[int, typer.Option(min=1, help="Number of episodes per policy.")] = 100,
    num_envs: Annotated[int, typer.Option(min=1, help="Number of envs stepped in parallel.")] = 16,
    stochastic: Annotated[
        bool, typer.Option("--stochastic", help="Sample actions instead of taking the most likely ones.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of envs and actions.")] = 0,
    checkpoint: Checkpoint = "best",
    all_sessions: Annotated[
        bool, typer.Option("--all-sessions", help="Evaluate every session's policy instead of the best session's.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the results of every episode.")] = False,
    out: Out = Path("data"),
) -> None:
    """Evaluate a trained policy: mean total_reward over many episodes with its 95 % interval."""
    from slm_lab.cli.report import make_table, print_json, print_table, show_notes
    from slm_lab.cli.runs import find_local_plugins, locate
    from slm_lab.experiment.play.measure import evaluate
    from slm_lab.experiment.records.wording import coarse
    from slm_lab.lib.log import setup

    setup("WARNING")
    find_local_plugins()
    settings: dict[str, Any] = {"num_envs": num_envs, "stochastic": stochastic, "seed": seed, "device": device}
    found = evaluate(locate(run, out), episodes, out=out, checkpoint=checkpoint, all_sessions=all_sessions, **settings)
    if as_json:
        print_json({**found.to_dict(), "which": checkpoint, **settings})
        return
    (first, *others), rows = found.table()
    table = make_table([first], others)
    for row in rows:
        table.add_row(*row, style="bold" if row[0] == "all" else None)
    print_table(table)
    if len(rows) > 1 and (note := coarse(len(found.policies))):
        show_notes([note.strip()])


def export(
    run: OneRun,
    output: Annotated[Path, typer.Argument(metavar="FILE", help="An .onnx file, or .pt2 for torch.export.load.")],
    checkpoint: Checkpoint = "best",
    out: Out = Path("data"),
) -> None:
    """Export a policy to one file that maps raw observations to env actions; checked against the policy."""
    from slm_lab.cli.runs import find_local_plugins, locate
    from slm_lab.experiment.play.enjoy import SavedPolicy
    from slm_lab.experiment.play.export import ENVS, STEPS, export
    from slm_lab.experiment.play.measure import choose
    from slm_lab.lib.log import setup

    setup("WARNING")
    find_local_plugins()
    [path] = choose(locate(run, out), checkpoint, out=out)
    done = export(SavedPolicy.open(path), output.expanduser())
    typer.echo(f"in:  {', '.join(done.inputs)}")
    typer.echo(f"out: {', '.join(done.outputs)}")
    typer.echo(f"checked on {ENVS * STEPS} observations: the greatest difference to the policy is {done.error:.3g}")
    typer.echo(done.path)


def list_runs(
    pattern: Pattern = "",
    out: Out = Path("data"),
    as_json: AsJson = False,
) -> None:
    """List the runs, newest last."""
    from slm_lab.cli.list_runs import main

    main(out, pattern, as_json=as_json)


def split_words(text: str | None) -> list[str] | None:
    """Split a comma-separated list, where there is one."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]
