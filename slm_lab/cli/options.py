"""The arguments and options of the commands, each with its help text."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class LogLevel(StrEnum):
    """Least severe level that is shown."""

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
        help="Set a ${variable} of the spec, or a key by its path: agent.algorithm.gamma=0.9. Repeatable.",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder that holds the run folders.")]

SpecFile = Annotated[
    str | None, typer.Argument(metavar="SPEC_FILE", help="A path, or a bundled spec such as ppo/ppo_cartpole.json.")
]
SpecName = Annotated[
    str | None,
    typer.Argument(metavar="SPEC_NAME", help="Name of the spec in the file; optional if the file has only one."),
]
ModeWord = Annotated[
    str | None,
    typer.Argument(
        metavar="MODE",
        help="dev: one session with extra checks. train: all sessions. train@latest, train@RUN_FOLDER: resume; "
        "with -s env.max_frame=N: extend. "
        "search: the trials of the spec's search block. search@latest, search@RUN_FOLDER: resume. "
        "enjoy, enjoy@RUN_FOLDER: watch a trained policy. A mode with @ needs no spec.",
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Random seed; overrides meta.random_seed.")]
StartFrom = Annotated[
    str | None,
    typer.Option("--from", metavar="RUN", help="Start from the best weights and normalizer of a run or checkpoint."),
]
Render = Annotated[bool, typer.Option("--render", envvar="RENDER", help="Show the environment in a window.")]
Episodes = Annotated[int | None, typer.Option(min=1, help="Number of episodes of enjoy; default 10.")]
Video = Annotated[Path | None, typer.Option(metavar="FILE", help="Record enjoy to an .mp4 or .gif file.")]
Device = Annotated[
    str,
    typer.Option(
        help="cpu, cuda, cuda:1, or auto (a GPU if one is present and the run is large enough to benefit; see net.gpu)."
    ),
]
CudaOffset = Annotated[int, typer.Option(min=0, envvar="CUDA_OFFSET", help="Added to the GPU index of each session.")]
Level = Annotated[
    LogLevel, typer.Option(envvar="LOG_LEVEL", case_sensitive=False, help="Least severe level that is shown.")
]
LogMetrics = Annotated[
    bool,
    typer.Option(
        "--log-metrics",
        "--log-extra",
        envvar=["LOG_METRICS", "LOG_EXTRA"],
        help="Also log and plot strength, efficiency and stability.",
    ),
]
Profile = Annotated[
    bool, typer.Option("--profile", envvar="PROFILE", help="Run in dev mode and report where the time is spent.")
]
Keep = Annotated[
    int, typer.Option(min=-1, envvar="KEEP_TRIALS", help="Number of best trials whose models a search keeps; -1: all.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        envvar="RAY_ADDRESS",
        help="Ray cluster for searches: auto or host:port; default: this machine.",
    ),
]
StopRay = Annotated[
    bool, typer.Option("--stop-ray", help="Stop your searches on this machine, and their Ray processes.")
]
UploadHF = Annotated[
    bool, typer.Option("--upload-hf", help="Upload the run to HF_REPO while it runs and when it ends.")
]
UploadEvery = Annotated[float, typer.Option(metavar="MINUTES", min=0.01, help="Time between uploads of --upload-hf.")]
Folder = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name of the run folder; if it exists, here or in HF_REPO, the run is resumed."),
]
Job = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Run the specs of a JSON file in turn: {spec_file: {spec_name: mode}}."),
]

Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...", help="Run folders: paths, names or patterns (with * or ?) in --out, spec names, or latest."
    ),
]
Pattern = Annotated[str, typer.Argument(metavar="PATTERN", help="A name, a part of names, or a pattern (with * or ?).")]
Metric = Annotated[
    str,
    typer.Option("-m", "--metric", metavar="NAME", help="A column of the CSV tables, or a metric such as strength."),
]
At = Annotated[
    int | None, typer.Option(metavar="FRAMES", min=1, help="Compare scores at this frame; default: at the end.")
]
Target = Annotated[
    float | None,
    typer.Option(
        metavar="SCORE",
        help="Report how many frames and seconds each method needed until total_reward_ma first reached this value; "
        "default: 90 % of the way from random to the best run.",
    ),
]
Legends = Annotated[
    str | None, typer.Option("-l", "--legends", metavar="A,B,...", help="One label per run; default: the specs' names.")
]
OneRun = Annotated[
    str, typer.Argument(metavar="RUN", help="A run folder (path, name in --out, or latest) or a checkpoint file.")
]
Checkpoint = Annotated[
    str, typer.Option(metavar="WHICH", help="best, latest, or a frame kept by meta.keep_checkpoints.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
