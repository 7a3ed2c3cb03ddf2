"""The commands that run, check and share specs.

Their bodies are imported when a command runs, so that `--help` does not wait for torch.
"""

import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from slm_lab import __version__
from slm_lab.cli import options
from slm_lab.cli.options import AsJson, LogLevel, Out, Pattern, Sets
from slm_lab.cli.views import add_views

BROKEN_PIPE = 141
"""What a shell reports of a program that SIGPIPE ended."""
INTERRUPTED = 130


def route(args: list[str], commands: Collection[str], own: Collection[str], with_value: Collection[str]) -> list[str]:
    """The arguments with a command at their beginning: `SPEC_FILE SPEC_NAME MODE` is `run SPEC_FILE SPEC_NAME MODE`.

    Args:
        args: as typed, options anywhere
        commands: names of the commands
        own: options of `slm-lab` itself, such as --version; a line that begins with one is left as it is
        with_value: options of the commands whose value is the next word

    >>> route(["-s", "env=CartPole-v1", "spec.json", "name", "dev"], ["run", "plot"], ["--help"], ["-s"])
    ['run', '-s', 'env=CartPole-v1', 'spec.json', 'name', 'dev']
    """
    if not args:
        return ["--help"]
    if args[0] in own:
        return args
    i = 0
    while i < len(args) and args[i] != "--":
        word = args[i]
        if not word.startswith("-"):
            return [word, *args[:i], *args[i + 1 :]] if word in commands else ["run", *args]
        i += 2 if word in with_value else 1
    return ["run", *args]


class Group(TyperGroup):
    """Passes words that name no command to `run`, and turns user errors into one message and exit code 2."""

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
            # the reader has closed the pipe; without this, python would report it again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN_PIPE) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as e:
            from slm_lab.cli.report import report_user_error, reword_usage_error

            reword_usage_error(e)
            if not report_user_error(e):
                raise
            raise typer.Exit(2) from None
        return result


app = typer.Typer(
    name="slm-lab",
    cls=Group,
    help="A deep reinforcement learning lab. An experiment is a JSON spec.\n\n"
    "`slm-lab SPEC_FILE SPEC_NAME MODE` is short for `slm-lab run`; `slm-lab run` alone trains PPO on CartPole.",
    rich_markup_mode=None,  # importing the rich help would take longer than everything else
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    spec_file: options.SpecFile = None,
    spec_name: options.SpecName = None,
    mode: options.ModeWord = None,
    sets: Sets = None,
    seed: options.Seed = None,
    start_from: options.StartFrom = None,
    render: options.Render = False,
    episodes: options.Episodes = None,
    video: options.Video = None,
    device: options.Device = "auto",
    cuda_offset: options.CudaOffset = 0,
    log_level: options.Level = LogLevel.INFO,
    log_metrics: options.LogMetrics = False,
    profile: options.Profile = False,
    keep: options.Keep = 3,
    ray_address: options.RayAddress = None,
    stop_ray: options.StopRay = False,
    upload_hf: options.UploadHF = False,
    upload_every: options.UploadEvery = 10.0,
    folder: options.Folder = None,
    out: Out = Path("data"),
    job: options.Job = None,
) -> None:
    """Run a spec: train it, resume it, search its hyper-parameters, or watch a trained policy.

    `slm-lab run ppo/ppo_cartpole.json ppo_cartpole train`, `slm-lab train@latest`, `slm-lab enjoy@data/FOLDER`
    """
    from slm_lab.cli.run import Command, main
    from slm_lab.experiment.session.run import Options

    if stop_ray:
        _stop_ray()
        raise typer.Exit
    command = Command(
        words=[word for word in (spec_file, spec_name, mode) if word is not None],
        sets=_pairs(sets),
        options=Options(
            out=out,
            seed=seed,
            device=device,
            cuda_offset=cuda_offset,
            render=render,
            log_level=log_level.value,
            log_metrics=log_metrics,
            profile=profile,
            keep=keep,
            start_from=start_from,
            ray_address=ray_address or None,
        ),
        job=job,
        episodes=episodes,
        video=video,
        folder=folder,
        upload=upload_hf,
        upload_every=upload_every,
        **_seen(ctx),
    )
    raise typer.Exit(main(command))


@app.command()
def validate(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Spec files, or folders of them.")],
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Check specs and report every fault of each. Exit code 2 if any spec can't run."""
    from slm_lab.cli.validate import main
    from slm_lab.lib.log import setup

    setup("WARNING")
    raise typer.Exit(main(paths, _pairs(sets), as_json=as_json))


@app.command()
def migrate(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A spec file of SLM-Lab 4 or 5, or a folder of them.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="NEW", help="Where to write; default: print it.")
    ] = None,
) -> None:
    """Convert spec files of older versions to the current format, and list the changes.

    Old files also run as they are: they are then converted each time they are loaded.
    """
    from slm_lab.cli.migrate import main

    raise typer.Exit(main(old, output))


@app.command()
def schema(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="File to write; default: print it.")
    ] = None,
) -> None:
    """Print the JSON schema of spec files, for editors."""
    import json

    from slm_lab.lib.errors import LabError
    from slm_lab.lib.files import write_atomic
    from slm_lab.spec.schema import file_schema

    text = json.dumps(file_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        write_atomic(output, text)
    except OSError as e:
        raise LabError(f"{output}: can't be written: {e.strerror}") from e


add_views(app)


@app.command("run-remote")
def run_remote(  # noqa: PLR0917  a parameter is an option
    spec_file: Annotated[str, typer.Argument(metavar="SPEC_FILE", help="As for run.")],
    spec_name: Annotated[str, typer.Argument(metavar="SPEC_NAME", help="Name of the spec in the file.")],
    mode: Annotated[str, typer.Argument(metavar="MODE", help="train, search or dev.")] = "train",
    name: Annotated[
        str | None, typer.Option("-n", "--name", metavar="NAME", help="Name at dstack; default: spec name and time.")
    ] = None,
    sets: Sets = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Use a machine with a GPU.")] = False,
    folder: Annotated[
        str | None, typer.Option(metavar="NAME", help="Run folder in HF_REPO to resume, of a job that has ended.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the task's YAML without submitting it.")] = False,
    no_upload: Annotated[bool, typer.Option("--no-upload", help="Do not upload the results.")] = False,
) -> None:
    """Run a spec on a machine that dstack provisions, and upload the results to HF_REPO."""
    from slm_lab.cli.run_remote import main

    words: dict[str, Any] = {"name": name, "folder": folder, "gpu": gpu, "dry_run": dry_run, "upload": not no_upload}
    main(spec_file, spec_name, mode, _pairs(sets), **words)


@app.command()
def push(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="A run folder: a path, a name in --out, or latest.")],
    out: Out = Path("data"),
) -> None:
    """Upload a run to the Hugging Face Hub (HF_REPO, HF_TOKEN)."""
    from slm_lab.cli.hub import push_run

    push_run(run_folder, out)


@app.command("list")
def list_(
    pattern: Pattern = "",
    as_json: AsJson = False,
) -> None:
    """List the runs on the Hugging Face Hub (HF_REPO), newest last."""
    from slm_lab.cli.hub import list_hub

    list_hub(pattern, as_json=as_json)


@app.command()
def pull(
    pattern: Pattern,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that were changed locally.")] = False,
    out: Out = Path("data"),
) -> None:
    """Download runs from the Hugging Face Hub (HF_REPO); files already here are not downloaded again."""
    from slm_lab.cli.hub import pull_runs

    pull_runs(pattern, out, force=force)


def _stop_ray() -> None:
    from slm_lab.experiment.search.cluster import stop_ray

    for line in stop_ray() or ["no Ray of this user's lab on this machine"]:
        typer.echo(line)


def _seen(ctx: typer.Context) -> dict[str, Any]:
    """Which options are on the command line, or in the environment, not defaults; and the names of all commands."""
    sources = {name: getattr(ctx.get_parameter_source(name), "name", "") for name in ctx.params}
    return {
        "typed": frozenset(name for name, source in sources.items() if source == "COMMANDLINE"),
        "given": frozenset(name for name, source in sources.items() if source in ("COMMANDLINE", "ENVIRONMENT")),
        "commands": list(getattr(ctx.parent and ctx.parent.command, "commands", ())),
    }


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
