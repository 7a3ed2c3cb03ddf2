"""The commands that show what runs have left. The bodies are imported when a command runs."""

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder that holds the run folders.")]
Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...", help="Run folders: paths, names or patterns (with * or ?) in --out, spec names, latest."
    ),
]
Metric = Annotated[
    str, typer.Option("-m", "--metric", metavar="NAME", help="A column of the tables, or a metric such as strength.")
]
At = Annotated[
    int | None, typer.Option(metavar="FRAMES", min=1, help="Compare what was reached by then; by default at the end.")
]
Target = Annotated[
    float | None,
    typer.Option(
        metavar="SCORE",
        help="The total_reward to be timed; by default 90 % of the way from random to the best.",
    ),
]
Legends = Annotated[
    str | None, typer.Option("-l", "--legends", metavar="A,B,...", help="One a run; by default the specs' names.")
]


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
        list[str] | None, typer.Argument(metavar="RUN...", help="Run folders, patterns or spec names, as of report.")
    ] = None,
    folders: Annotated[
        str | None, typer.Option("-f", "--folders", metavar="A,B,...", help="The same as a list with commas.")
    ] = None,
    metric: Annotated[
        str, typer.Option("-m", "--metric", metavar="NAME", help="A column of the tables.")
    ] = "total_reward",
    x: Annotated[str, typer.Option("-x", "--x", metavar="frames|time", help="The horizontal axis.")] = "frames",
    title: Annotated[str | None, typer.Option("-t", "--title", help="Above the graph.")] = None,
    legends: Legends = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="A png, svg or pdf file.")] = Path(
        "plot.png"
    ),
    out: Out = Path("data"),
) -> None:
    """Draw runs into a file: a curve a method with its 95 % interval, a graph an env.

    Runs of one spec count as seeds of one method.
    """
    from slm_lab.cli.plot import main

    words = [*(runs or []), *split_words(folders or "")]
    labels = split_words(legends) if legends is not None else None
    main(words, out, metric=metric, x=x, title=title, legends=labels, output=output)


def report(  # noqa: PLR0913, PLR0917  a parameter is an option
    runs: Runs,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="An .html file; by default report.html in the run folder, or here."
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Renew the page while a run goes on.")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="Between two pages of --watch.")] = 10.0,
    no_video: Annotated[bool, typer.Option("--no-video", help="Do not film the best policy.")] = False,
    episodes: Annotated[
        int | None,
        typer.Option("--evaluate", metavar="N", min=1, help="Play N episodes with the best policy of each session."),
    ] = None,
    metric: Metric = "total_reward",
    at: At = None,
    target: Target = None,
    legends: Legends = None,
    out: Out = Path("data"),
) -> None:
    """Write a run, a search, or several runs as one HTML page that works offline."""
    from slm_lab.cli.make_report import main

    labels = split_words(legends) if legends is not None else None
    settings = {
        "video": not no_video,
        "evaluate": episodes,
        "metric": metric,
        "at": at,
        "target": target,
        "labels": labels,
    }
    main(runs, out, output, open_it=open_it, watch_every=every if watch else None, **settings)


def compare(
    runs: Runs,
    metric: Metric = "total_reward",
    at: At = None,
    target: Target = None,
    legends: Legends = None,
    out: Out = Path("data"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare runs in numbers: scores with 95 % intervals, env by env and over all, and who is better.

    Runs of one spec count as seeds of one method.
    """
    from slm_lab.cli.compare import main

    labels = split_words(legends) if legends is not None else None
    main(runs, out, metric=metric, at=at, target=target, labels=labels, as_json=as_json)


def evaluate(  # noqa: PLR0917  a parameter is an option
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run folder: path or name in --out, latest; or a checkpoint file.")
    ],
    episodes: Annotated[int, typer.Option(min=1, help="Of each policy.")] = 100,
    num_envs: Annotated[int, typer.Option(min=1, help="Envs stepped together.")] = 16,
    stochastic: Annotated[
        bool, typer.Option("--stochastic", help="Draw actions from the policy; else its likeliest ones are taken.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of envs and actions.")] = 0,
    checkpoint: Annotated[
        str, typer.Option(metavar="WHICH", help="best, latest, or a frame that meta.keep_checkpoints kept.")
    ] = "best",
    all_sessions: Annotated[
        bool, typer.Option("--all-sessions", help="The policy of each session; else of the best one.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with what every episode gave.")] = False,
    out: Out = Path("data"),
) -> None:
    """Evaluate what was learned: mean total_reward over many episodes with its 95 % interval."""
    from slm_lab.cli.evaluate import main

    settings = {"num_envs": num_envs, "stochastic": stochastic, "seed": seed, "which": checkpoint, "device": device}
    main(run, episodes, out, all_sessions=all_sessions, as_json=as_json, **settings)


def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run folder: path or name in --out, latest; or a checkpoint file.")
    ],
    output: Annotated[Path, typer.Argument(metavar="FILE", help="An .onnx file, or .pt2 for torch.export.load.")],
    checkpoint: Annotated[
        str, typer.Option(metavar="WHICH", help="best, latest, or a frame that meta.keep_checkpoints kept.")
    ] = "best",
    out: Out = Path("data"),
) -> None:
    """Write a policy as one file: raw observations in, actions of the env out; checked against the policy."""
    from slm_lab.cli.export import main

    main(run, output, out, checkpoint)


def list_runs(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Only folders whose name contains it.")] = "",
    out: Out = Path("data"),
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
) -> None:
    """List the runs, the newest last."""
    from slm_lab.cli.list_runs import main

    main(out, pattern, as_json=as_json)


def split_words(text: str) -> list[str]:
    """Of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]
