"""`--profile`: where the time of a run goes."""

import cProfile
import pstats
from collections.abc import Callable
from pathlib import Path

from slm_lab.experiment.session.run import RunResult

LINES = 40
"""Functions listed in each part of the text."""


def profiled(run: Callable[[], RunResult]) -> tuple[RunResult, Path]:
    """Run under cProfile, which sees this process only: a dev run is all in it.

    Returns:
        What the run gave; `profiler/` in its run folder, with `profile.pstats` for tools and `profile.txt` to read.
    """
    profile = cProfile.Profile()
    with profile:
        result = run()
    folder = result.folder / "profiler"
    folder.mkdir(exist_ok=True)
    profile.dump_stats(folder / "profile.pstats")
    with (folder / "profile.txt").open("w", encoding="utf-8") as file:
        stats = pstats.Stats(profile, stream=file).strip_dirs()
        for title, key in (("in the function itself", "tottime"), ("with all that it calls", "cumulative")):
            file.write(f"Time {title}\n")
            stats.sort_stats(key).print_stats(LINES)
    return result, folder
