"""What tests of `slm-lab run` share."""

import json
from pathlib import Path
from typing import Any

Calls = list[tuple[Any, ...]]
"""Of functions: name, arguments, and those by name."""


def run_dir(folder: Path, name: str, stamp: str, raw: dict[str, Any]) -> Path:
    path = folder / "data" / f"{name}_{stamp}"
    path.mkdir(parents=True)
    (path / f"{name}_spec.json").write_text(json.dumps({**raw, "name": name}))
    return path
