"""The commands and their options. The bodies are imported when a command runs: `--help` must not wait for torch."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from slm_lab import __version__
from slm_lab.cli.route import route
from slm_lab.cli.views import Out, add_views

BROKEN_PIPE = 141
"""What a shell reports of a program that SIGPIPE ended."""
INTERRUPTED = 130


class Group(TyperGroup):
    """Sends what is no command to `run`, and turns user errors into one message and exit code 2."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command first (see `route`)."""
        if not ctx.resilient_parsing:  # of shell completion
            own = [name for option in self.get_params(ctx) for name in option.opts]
            options = [p for command in self.commands.values() for p in command.params if p.param_type_name == "option"]
            with_value = {name for p in options if not getattr(p, "is_flag", False) for name in p.opts}
            args = route(args, self.commands, own, with_value)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # the reader has gone; python must not find that out again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN_PIPE) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as e:
            from slm_lab.cli.report import report_user_error

            if not report_user_error(e):
                raise
            raise typer.Exit(2) from None
        return result


app = typer.Typer(
    name="slm-lab",
    cls=Group,
    help="A deep reinforcement learning lab: an experiment is a spec file.\n\n"
    "SPEC_FILE SPEC_NAME MODE without a command is `run`; `slm-lab run` alone trains PPO on CartPole.",
    rich_markup_mode=None,  # importing the rich help would take longer than all the rest
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class LogLevel(StrEnum):
    """Least level that is shown."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


Sets = Annotated[
    list[str] | None,
    typer.Option(
        "-s",
        "--set",
        metavar="K=V",
        help="Value of a ${variable} of the spec, or of a key by its path: agent.algorithm.gamma=0.9. Repeatable.",
    ),
]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"slm-lab {__version__}")
        raise typer.Exit


@app.callback()
def _slm_lab(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(  # noqa: PLR0913, PLR0917  a parameter is an option
    ctx: typer.Context,
    spec_file: Annotated[
        str | None,
        typer.Argument(metavar="SPEC_FILE", help="A path, or a bundled spec such as ppo/ppo_cartpole.json."),
    ] = None,
    spec_name: Annotated[
        str | None, typer.Argument(metavar="SPEC_NAME", help="Of the spec in the file; not needed if it holds one.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Argument(
            metavar="MODE",
            help="dev: one quick session with checks. train: all sessions. train@latest, train@RUN_FOLDER: resume; "
            "with -s env.max_frame=N: extend. "
            "search: trials of the spec's search block. search@latest, search@RUN_FOLDER: resume. "
            "enjoy, enjoy@RUN_FOLDER: watch what was learned. Modes with @ can stand alone.",
        ),
    ] = None,
    sets: Sets = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Over meta.random_seed.")] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="RUN", help="Start from the best weights, and the normalizer, of a run or checkpoint."
        ),
    ] = None,
    render: Annotated[bool, typer.Option("--render", envvar="RENDER", help="Show the env in a window.")] = False,
    episodes: Annotated[int | None, typer.Option(min=1, help="Episodes of enjoy; 10 by default.")] = None,
    video: Annotated[Path | None, typer.Option(metavar="FILE", help="Film enjoy: an .mp4 or .gif file.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, or auto: what the spec's net.gpu says.")] = "auto",
    cuda_offset: Annotated[
        int, typer.Option(min=0, envvar="CUDA_OFFSET", help="Added to the GPU index of each session.")
    ] = 0,
    log_level: Annotated[
        LogLevel, typer.Option(envvar="LOG_LEVEL", case_sensitive=False, help="Least level that is shown.")
    ] = LogLevel.INFO,
    log_metrics: Annotated[
        bool,
        typer.Option(
            "--log-metrics",
            "--log-extra",
            envvar=["LOG_METRICS", "LOG_EXTRA"],
            help="Log and draw strength, efficiency and stability too.",
        ),
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", envvar="PROFILE", help="Run in dev mode and tell where the time goes.")
    ] = False,
    keep: Annotated[
        int, typer.Option(min=-1, envvar="KEEP_TRIALS", help="Trials of a search whose models are kept; -1: all.")
    ] = 3,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            envvar="RAY_ADDRESS",
            help="Ray cluster to search on: auto or host:port; by default this machine.",
        ),
    ] = None,
    stop_ray: Annotated[
        bool, typer.Option("--stop-ray", help="Stop the searches of this user on this machine, and their Ray.")
    ] = False,
    upload_hf: Annotated[
        bool, typer.Option("--upload-hf", help="Upload the run to HF_REPO, now and then and at its end.")
    ] = False,
    upload_every: Annotated[
        float, typer.Option(metavar="MINUTES", min=0.01, help="Between two uploads of --upload-hf.")
    ] = 10.0,
    folder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the run folder; where there is one, here or in HF_REPO, it goes on."
        ),
    ] = None,
    out: Out = Path("data"),
    job: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Run one after the other what a JSON file lists: {spec_file: {spec_name: mode}}."
        ),
    ] = None,
) -> None:
    """Run a spec: train it, resume it, or watch what it learned.

    `slm-lab run ppo/ppo_cartpole.json ppo_cartpole train`, `slm-lab train@latest`, `slm-lab enjoy@data/FOLDER`
    """
    from slm_lab.cli.run import Command, main

    if stop_ray:
        from slm_lab.cli.stop import main as stop

        raise typer.Exit(stop())
    words = [word for word in (spec_file, spec_name, mode) if word is not None]
    settings = {
        "seed": seed,
        "start_from": start_from,
        "render": render,
        "device": device,
        "cuda_offset": cuda_offset,
        "log_level": log_level.value,
        "log_metrics": log_metrics,
        "profile": profile,
        "keep": keep,
        "ray_address": ray_address or None,
        "out": out,
    }
    commands = list(getattr(ctx.parent and ctx.parent.command, "commands", ()))
    command = Command(
        words,
        _pairs(sets),
        settings,
        job,
        episodes,
        video,
        folder=folder,
        upload=upload_hf,
        upload_every=upload_every,
        typed=frozenset(
            name for name in ctx.params if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"
        ),
        commands=commands,
    )
    raise typer.Exit(main(command))


@app.command()
def validate(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Spec files, or folders of them.")],
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
) -> None:
    """Check specs, and tell all that is wrong with each. Exit code 2 if one can't run."""
    from slm_lab.cli.validate import main

    raise typer.Exit(main(paths, _pairs(sets), as_json=as_json))


@app.command()
def migrate(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A spec file of SLM-Lab 4 or 5, or a folder of them.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="NEW", help="Written there; a file is printed without it.")
    ] = None,
) -> None:
    """Write spec files of older versions in the present format, and tell what was changed.

    They run as they are, too: then they are migrated each time they are loaded.
    """
    from slm_lab.cli.migrate import main

    raise typer.Exit(main(old, output))


@app.command()
def schema(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Written there instead of printed.")
    ] = None,
) -> None:
    """The JSON schema of spec files, for editors."""
    from slm_lab.cli.schema import main

    main(output)


add_views(app)


@app.command("run-remote")
def run_remote(  # noqa: PLR0917  a parameter is an option
    spec_file: Annotated[str, typer.Argument(metavar="SPEC_FILE", help="As of run.")],
    spec_name: Annotated[str, typer.Argument(metavar="SPEC_NAME", help="Of the spec in the file.")],
    mode: Annotated[str, typer.Argument(metavar="MODE", help="train, search or dev.")] = "train",
    name: Annotated[
        str | None, typer.Option("-n", "--name", metavar="NAME", help="Of the run at dstack; by default spec and time.")
    ] = None,
    sets: Sets = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="On a machine with a GPU.")] = False,
    folder: Annotated[
        str | None, typer.Option(metavar="NAME", help="Run folder in HF_REPO to go on with, of a job that ended.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the task's YAML, and submit nothing.")] = False,
    no_upload: Annotated[bool, typer.Option("--no-upload", help="Do not upload what comes out.")] = False,
) -> None:
    """Run a spec on a machine that dstack finds, and upload what comes out to HF_REPO."""
    from slm_lab.cli.run_remote import RemoteCommand, main

    main(
        RemoteCommand(
            spec_file, spec_name, mode, _pairs(sets), name, folder, gpu=gpu, dry_run=dry_run, upload=not no_upload
        )
    )


@app.command()
def push(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="A run folder: path, name in --out, or latest.")],
    out: Out = Path("data"),
) -> None:
    """Upload a run to the Hugging Face Hub (HF_REPO, HF_TOKEN)."""
    from slm_lab.cli.hub import push_run

    push_run(run_folder, out)


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Part of a name, or with * and ?.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
) -> None:
    """List the runs on the Hugging Face Hub (HF_REPO), the newest last."""
    from slm_lab.cli.hub import list_hub

    list_hub(pattern, as_json=as_json)


@app.command()
def pull(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="A name, part of names, or with * and ?.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that were changed here.")] = False,
    out: Out = Path("data"),
) -> None:
    """Download runs from the Hugging Face Hub (HF_REPO); what is here already is not fetched again."""
    from slm_lab.cli.hub import pull_runs

    pull_runs(pattern, out, force=force)


def _pairs(sets: list[str] | None) -> dict[str, str]:
    pairs = {}
    for text in sets or []:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"'{text}' is not of the form key=value", param_hint="'-s' / '--set'")
        pairs[key.strip()] = value
    return pairs


def main() -> None:
    """Entry point of the `slm-lab` script."""
    app()
