"""dstack, which rents and runs machines; the only module that calls it.

Its command line is the steadier seam than its library, but its exit codes mislead: a run that no machine will ever
take, or that replaces an active one, is accepted with 0. So each thing that could go wrong is asked for before anything
is submitted, and afterwards whether the run is there.
"""

import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_lab.lib.errors import LabError

NAME = re.compile(r"[a-z][a-z0-9-]{1,40}")
"""What dstack takes as the name of a run."""
LIMIT = 2 << 20
"""Bytes that a server takes at most, where nothing else is set."""
LIMIT_VARIABLE = "DSTACK_SERVER_CODE_UPLOAD_LIMIT"
TIMEOUT = 300.0
"""Seconds for one of its commands."""
CONFIRMED = 30.0
"""Seconds within which a submitted run must be listed."""
_FINISHED = frozenset({"done", "failed", "terminated"})
"""Statuses of a run that neither has nor waits for a machine."""
_INSTALL = "`uv tool install dstack`, or `pip install 'slm-lab[dstack]'`"


class DstackError(LabError):
    """dstack is not there, or refuses."""


@dataclass(frozen=True)
class RemoteRun:
    """A run as the server reports it."""

    status: str
    submitted: str
    reason: str = ""
    """Why it ended."""


def upload_limit() -> int:
    """Bytes of code that the server takes."""
    text = os.environ.get(LIMIT_VARIABLE, "")
    return int(text) if text.isdigit() and int(text) > 0 else LIMIT


class Dstack:
    """The dstack command.

    Raises:
        DstackError: it is not on PATH.
    """

    def __init__(self) -> None:
        program = shutil.which("dstack")
        if program is None:
            raise DstackError(f"dstack is not installed: {_INSTALL}; then `dstack project add` names your server")
        self._program = str(Path(program).absolute())

    def runs(self) -> dict[str, RemoteRun]:
        """All runs of the project by name, finished ones too."""
        text = self._run("ps", "--all", "--json")
        try:
            found = json.loads(text[text.index("{") :])["runs"]
            return {
                run["run_spec"]["run_name"]: RemoteRun(run["status"], run["submitted_at"], _reason(run))
                for run in found
            }
        except (ValueError, KeyError, TypeError) as e:
            raise DstackError(f"dstack ps: can't be understood ({e}); is this dstack too new or too old?") from None

    def free(self, name: str) -> RemoteRun | None:
        """The finished run of this name, if there was one.

        Raises:
            DstackError: one is active, which dstack would replace without a word.
        """
        run = self.runs().get(name)
        if run is not None and run.status not in _FINISHED:
            raise DstackError(
                f"dstack: a run '{name}' is {run.status}; it is not replaced. Take another name (-n), or end it first: "
                f"dstack stop {name}"
            )
        return run

    def has_secret(self, name: str) -> bool:
        """Whether the project has a secret of this name."""
        return any(line.split()[:1] == [name] for line in self._run("secret", "list").splitlines())

    def check(self, file: Path) -> str:
        """What the server plans for a task, which is not submitted.

        Raises:
            DstackError: it is refused, or no machine could take it.
        """
        plan = self._run("apply", "-f", file.name, folder=file.parent, answer="n\n")
        if "has no fleets" in plan:
            raise DstackError(
                "dstack: the project has no fleet, so no machine would ever take the job. Make one first, such as\n"
                "  printf 'type: fleet\\nname: default\\nnodes: 0..4\\n' | dstack apply -y -f -"
            )
        if "No matching instance offers" in plan:
            raise DstackError(
                "dstack: no offer: no machine of the project's fleets fits resources, price and spot policy. Relax "
                f"them in a copy of the template in .dstack/, or add a fleet. The plan was:\n{_indented(plan)}"
            )
        return plan

    def submit(self, file: Path, name: str) -> RemoteRun:
        """Submit a task and make sure that it was taken.

        Raises:
            DstackError: it was not, or it has failed at once.
        """
        before = self.free(name)
        said = self._run("apply", "-f", file.name, "-y", "-d", folder=file.parent)
        end = time.monotonic() + CONFIRMED
        while True:
            run = self.runs().get(name)
            if run is not None and (before is None or run.submitted != before.submitted):
                break
            if time.monotonic() > end:
                raise DstackError(f"dstack: the run was not accepted. It said:\n{_indented(said)}")
            time.sleep(1)
        if run.status in ("failed", "terminated"):
            raise DstackError(f"dstack: the run '{name}' has {run.status} at once: {run.reason or 'see dstack event'}")
        return run

    def _run(self, *args: str, folder: Path | None = None, answer: str = "") -> str:
        # it takes files below its working folder only
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": TIMEOUT, "cwd": folder}
        env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
        try:
            done = subprocess.run([self._program, *args], input=answer, env=env, check=False, **options)
        except subprocess.TimeoutExpired:
            hint = "; `dstack ps` shows whether the run was submitted all the same" if args[0] == "apply" else ""
            raise DstackError(f"dstack {args[0]}: no answer within {TIMEOUT:g} s{hint}") from None
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()
            raise DstackError(f"dstack {args[0]}: failed (exit code {done.returncode}). It said:\n{_indented(said)}")
        return done.stdout


def _reason(run: dict[str, Any]) -> str:
    job = ((run.get("jobs") or [{}])[-1].get("job_submissions") or [{}])[-1]
    words = [run.get("termination_reason"), job.get("termination_reason"), job.get("termination_reason_message")]
    return ": ".join(dict.fromkeys(str(word) for word in words if word))


def _indented(text: str) -> str:
    return "\n".join(f"  {line.rstrip()}" for line in text.strip().splitlines()[-25:])
