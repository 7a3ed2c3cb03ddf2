"""The shape of the code: layers, one door for each heavy dependency, and the house rules a linter does not know."""

import ast
import importlib
import inspect
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "slm_lab"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PURE = sorted(p for p in (PACKAGE / "functional").glob("*.py") if p.name != "__init__.py")
MAX_LINES = 400


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> set[str]:
    """Full names of the modules that a file imports, in function bodies too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_layers() -> None:
    """The contracts of pyproject.toml: who may import whom."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py"], ids=label)
def test_package_is_a_docstring(path: Path) -> None:
    """No logic and no re-exports in __init__; the outermost also tells the version."""
    first, *rest = ast.parse(path.read_text()).body
    assert isinstance(first, ast.Expr)
    assert isinstance(first.value, ast.Constant)
    assert isinstance(first.value.value, str)
    names = [ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else ast.unparse(node) for node in rest]
    assert names == (["__version__"] if path.parent == PACKAGE else [])


ROOMS = sorted({p.parent for p in (PACKAGE / "experiment").rglob("*.py")})


@pytest.mark.parametrize("folder", ROOMS, ids=label)
def test_the_floor_plan_of_experiment_names_every_module(folder: Path) -> None:
    plan = (folder / "__init__.py").read_text()
    names = [p.stem for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    assert [name for name in sorted(names) if f"`{name}" not in plan and name != "__init__"] == []


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_no_star_imports_and_no_global_state(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Global), f"line {node.lineno}: global"
        if isinstance(node, ast.ImportFrom):
            assert "*" not in {alias.name for alias in node.names}, f"line {node.lineno}: star import"


def test_matplotlib_has_one_door() -> None:
    users = {
        label(p) for p in SOURCES if any(m.split(".")[0] == "matplotlib" for m in imports(ast.parse(p.read_text())))
    }
    assert users == {"slm_lab/experiment/graphs/draw.py"}


def test_the_hub_and_dstack_have_one_door_each() -> None:
    """dstack is a program: who calls it says its name as a word of a command."""
    hub = {label(p) for p in SOURCES if "huggingface_hub" in imports(ast.parse(p.read_text()))}
    assert hub == {"slm_lab/remote/hub.py"}
    callers = {
        label(p)
        for p in SOURCES
        if any(isinstance(n, ast.Constant) and n.value == "dstack" for n in ast.walk(ast.parse(p.read_text())))
    }
    assert callers == {"slm_lab/remote/dstack.py"}


@pytest.mark.parametrize("path", PURE, ids=label)
def test_functional_is_pure(path: Path) -> None:
    """Torch in, torch out: no spec, no state, and nothing that waits for a device."""
    tree = ast.parse(path.read_text())
    assert not {
        m
        for m in imports(tree)
        if m.startswith("slm_lab.") and not m.startswith(("slm_lab.functional", "slm_lab.types"))
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"item", "tolist", "cpu", "numpy"}, f"line {node.lineno}: .{node.attr}"


@pytest.mark.parametrize("path", PURE, ids=label)
def test_functions_show_an_example(path: Path) -> None:
    """Each public function of functional/ has a docstring with an example that is run as a doctest."""
    module = importlib.import_module(f"slm_lab.functional.{path.stem}")
    functions = {n: f for n, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__}
    bare = [n for n, f in functions.items() if not n.startswith("_") and ">>>" not in (inspect.getdoc(f) or "")]
    assert bare == []


HEAVY = {"torch", "numpy", "pandas", "gymnasium", "ray", "pydantic", "matplotlib", "tensorboard"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from slm_lab.cli.app import main\n"
        "sys.argv = ['slm-lab', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    code = stop.code\n"
        "print('modules:', *{m.split('.')[0] for m in sys.modules})\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text, _, modules = done.stdout.partition("modules: ")
    assert "run" in text
    assert "typer" in modules.split()
    assert HEAVY.isdisjoint(modules.split())


def test_help_is_quick() -> None:
    """Under 0.3 s, in time of the processor: what a busy machine does beside it does not count."""
    command = [str(Path(sys.executable).with_name("slm-lab")), "--help"]
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 0.3, seconds
