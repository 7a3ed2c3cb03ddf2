"""What the README shows works, and it stays short."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from support.pages import block, page, run_python

from slm_lab.cli.runs import check_folder
from slm_lab.spec.load import load_spec

ROOT = Path(__file__).resolve().parent.parent


def test_it_is_short_and_its_first_example_ends_with_a_report() -> None:
    assert len(page("README.md").splitlines()) < 200
    first = re.findall(r"```bash\n(.*?)```", page("README.md"), re.DOTALL)[0].splitlines()
    assert first[1].startswith("uv run slm-lab run ")
    assert first[-1].startswith("uv run slm-lab report latest")


def test_pictures_are_small() -> None:
    sizes = {path.suffix: path.stat().st_size for path in (ROOT / "docs" / "_static").iterdir()}
    assert set(sizes) == {".gif", ".svg"}
    assert sizes[".gif"] < 300_000
    assert sizes[".svg"] < 100_000


def test_library_example(tmp_path: Path) -> None:
    final, action = run_python(block("README.md", "python", "api.load_agent"), tmp_path).split()
    assert float(final) > 0
    assert action in ("0", "1")


def test_every_page_is_linked() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert [name for name in sorted(pages) if f"(docs/{name})" not in page("README.md")] == []
    assert [name for name in sorted(pages) if name.removesuffix(".md") not in page("docs/index.md").split()] == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CLAUDE.md", "BENCHMARKS.md", "benchmark/README.md"])
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page(name)):
        assert ((ROOT / name).parent / target).exists(), target


def test_the_map_of_the_package_names_files_that_exist() -> None:
    named = re.findall(r"`((?:\w+/)+\w+\.py)`", page("slm_lab/README.md"))
    assert len(named) > 15
    assert [name for name in named if not (ROOT / "slm_lab" / name).exists()] == []


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))])
def test_commands_that_train_bundled_specs_are_accepted(name: str) -> None:
    for line in re.findall(r"^uv run slm-lab (?:run )?(\w+/\w+\.json .*)", page(name), re.MULTILINE):
        file, spec_name, *rest = shlex.split(line, comments=True)
        given = list(pairwise(rest))
        load_spec(file, spec_name, sets=dict(value.split("=", 1) for key, value in given if key in ("-s", "--set")))
        for key, value in given:
            if key == "--folder":
                check_folder(value, spec_name)


def test_bundled_specs_that_are_named_exist() -> None:
    rows = re.findall(r"`(\w+/\w+\.json)` `(\w+)` \| `(\w+\.py)`", page("README.md"))
    assert len(rows) == 10
    for file, name, module in rows:
        assert load_spec(file, name).name == name
        assert (ROOT / "slm_lab" / "agent" / "algorithm" / module).exists()
