"""The pages that the hub shows: of the repository (a dataset card) and of each run."""

import json
import shlex
from collections.abc import Collection, Iterable
from typing import Any

from slm_lab.experiment.records.history import RunLine
from slm_lab.remote.catalog import FILE
from slm_lab.remote.names import FOLDER

_BEGIN, _END = "<!-- slm-lab: runs -->", "<!-- slm-lab: end of runs -->"
_ROWS = 200
"""Rows of the card's table, the newest; the whole list is in the catalog."""
_HEAD = f"""---
pretty_name: slm-lab runs
tags:
- reinforcement-learning
- slm-lab
configs:
- config_name: runs
  data_files: {FILE}
---

# Runs of slm-lab

Each folder of `{FOLDER}/` is a run: spec, tables, metrics, graphs, checkpoints. `{FILE}` lists them.

```bash
slm-lab list                # with HF_REPO set to this repository
slm-lab pull NAME           # into data/
slm-lab enjoy@data/NAME     # watch it play
```

"""


def repo_card(old: str | None, entries: Iterable[RunLine]) -> str | None:
    """The card with a table of the runs, oldest first. What somebody wrote around the table of the `old` card stays.

    Returns:
        None where somebody has taken the table's place out: the card is theirs then.
    """
    rows = [
        "| run | env | algorithm | score | frames | status | date |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| [{_cell(e.name)}]({FOLDER}/{e.name}/README.md) | {_cell(e.env)} | {_cell(e.algorithm)} "
            f"| {number(e.total_reward_ma)} | {number(e.frames)} | {_cell(e.status)} | {e.date} |"
            for e in list(entries)[: -_ROWS - 1 : -1]
        ),
    ]
    table = "\n".join([_BEGIN, "", *rows, "", _END])
    if old is None or not old.strip():
        return f"{_HEAD}{table}\n"
    before, _, rest = old.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    return before + table + after if end else None


def run_readme(
    entry: RunLine, spec: Any, scalars: dict[str, Any], run: dict[str, Any], files: Collection[str], repo: str
) -> str:
    """The page of a run: result, learning curve, the commands that reproduce and play it, spec."""
    name = entry.name
    facts = [
        ("algorithm", entry.algorithm),
        ("frames", number(entry.frames)),
        ("sessions", number(entry.sessions)),
        ("status", entry.status),
        ("begun", entry.date),
        *(run.get("versions") or {}).items(),
        ("commit", run.get("git_commit")),
    ]
    graphs = sorted(f for f in files if "/" not in f and f.endswith(".png"))
    spec_file = next((f for f in sorted(files, key=len) if f == f"{entry.spec}_spec.json"), None)
    options = run.get("options") or {}
    origin = f"model/{entry.spec}_origin.pt"
    start_from = f"{FOLDER}/{name}/{origin}" if origin in files else options.get("start_from")
    mode = run.get("mode") or "train"
    commands = [f"HF_REPO={repo} slm-lab pull {name}"]
    if spec_file is not None:
        given = [("--seed", options.get("seed")), ("--from", start_from)]
        words = ["slm-lab", "run", f"{FOLDER}/{name}/{spec_file}", entry.spec, mode]
        words += [str(word) for option, value in given if value is not None for word in (option, value)]
        commands.append(f"{shlex.join(words)}    # train it again")
    commands.append(f"slm-lab enjoy@{FOLDER}/{name}    # watch it play")
    parts = [
        f"# {_cell(entry.spec)} on {_cell(entry.env)}",
        _table(("", ""), facts),
        *([_table(("metric", "value"), [(k, number(v)) for k, v in scalars.items()])] if scalars else []),
        *(f"![{graph.removesuffix('.png')}]({graph})" for graph in graphs),
        "```bash\n" + "\n".join(commands) + "\n```",
        *(["## Spec", f"```json\n{json.dumps(spec, indent=2)}\n```"] if spec is not None else []),
    ]
    return "\n\n".join(parts) + "\n"


def number(value: float | None) -> str:
    """A number for a table; nothing for None.

    >>> number(200000), number(460.3361), number(0.000012), number(None)
    ('200,000', '460.34', '1.2e-05', '')
    """
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.3g}"


def _table(head: tuple[str, str], rows: Iterable[tuple[str, Any]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {_cell(k)} | {_cell(v)} |" for k, v in rows if v not in (None, ""))])


def _cell(value: Any) -> str:
    """Text that can't break out of its place in a table."""
    text = "".join(c if c.isprintable() else " " for c in str(value if value is not None else ""))
    return text.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")
