"""Sphinx: `uv run --group docs sphinx-build -W docs data/docs`."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmark"))
import generate

project = "slm-lab"
author = "the slm-lab authors"
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["equations", "notebooks", "_build"]
html_theme = "furo"
html_title = "slm-lab"
html_show_sourcelink = False
html_show_copyright = False


def setup(app: Any) -> None:
    """Generate pages from the code; render equations."""
    app.connect("builder-inited", generate.generate)
    app.connect("source-read", generate.render_math)
