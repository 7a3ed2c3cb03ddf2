"""`slm-lab export`."""

from pathlib import Path

from slm_lab.cli.runs import find_local_plugins, locate
from slm_lab.experiment.play.enjoy import SavedPolicy
from slm_lab.experiment.play.export import ENVS, STEPS, export
from slm_lab.experiment.play.measure import choose
from slm_lab.lib.log import setup


def main(run: str, output: Path, out: Path, which: str) -> None:
    """Write the file and say what goes in and comes out.

    Raises:
        LabError: no such run or policy; it can't be exported; the file can't be written.
    """
    setup("WARNING")
    find_local_plugins()
    [path] = choose(locate(run, out), which, out=out)
    done = export(SavedPolicy.open(path), output.expanduser())
    print(f"in:  {', '.join(done.inputs)}")
    print(f"out: {', '.join(done.outputs)}")
    print(f"checked on {ENVS * STEPS} observations: the greatest difference to the policy is {done.error:.3g}")
    print(done.path)
