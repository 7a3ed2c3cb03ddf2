"""What is shipped: the lock file and the wheel."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

REQUIREMENT = re.compile(
    r"(?m)^([a-z0-9][a-z0-9._-]*)==(\S+)((?: ; [^\\\n]*)?)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)$"
)


def pinned(text: str) -> dict[tuple[str, str], tuple[str, frozenset[str]]]:
    """{(name, marker): (version, hashes)} of a requirements file."""
    return {
        (name, marker.strip(" ;")): (version, frozenset(re.findall(r"sha256:\w+", hashes)))
        for name, version, marker, hashes in REQUIREMENT.findall(text)
    }


@pytest.fixture
def lock(root: Path) -> str:
    return (root / "requirements.lock").read_text()


def test_lock_has_hashes_and_no_addresses(lock: str) -> None:
    pins = pinned(lock)
    assert len(pins) > 30
    assert [key for key, (_, hashes) in pins.items() if not hashes] == []
    requirements = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(requirements) == len(pins), "a line that is no pinned requirement"
    for word in (
        "://",
        "--index",
        "--extra-index",
        "--find-links",
        "-e ",
        " @ ",
        "file:",
        "/home",
        "/work",
        "/root",
        "/opt",
    ):
        assert word not in lock


def test_lock_is_the_current_resolution(root: Path, lock: str) -> None:
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    if not (root / "uv.lock").exists():
        pytest.skip("no uv.lock: nothing was resolved here")
    command = [uv, "export", "--frozen", "--offline", "--quiet", "--no-emit-project", "--no-dev"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = pinned(done.stdout)
    assert len(wanted) > 30
    assert pinned(lock) == wanted, "renew it: uv export --frozen --no-emit-project --no-dev -o requirements.lock"


def test_lock_covers_the_dependencies(root: Path, lock: str) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    locked = {name for name, _ in pinned(lock)}
    lines = project["dependencies"] + project["optional-dependencies"]["train"]
    wanted = {re.split(r"[\[<>=!~; ]", line)[0].lower() for line in lines}
    assert "torch" in wanted
    assert wanted <= locked


def test_resolution_is_not_committed(root: Path) -> None:
    """uv.lock names the registry it was made with; requirements.lock names none."""
    assert "uv.lock" in (root / ".gitignore").read_text().split()


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs."""
    here = Path(__file__).resolve().parent.parent
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=here, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def test_wheel_holds_code_and_specs(root: Path, unpacked: Path) -> None:
    shipped = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
    sources = {
        p.relative_to(root).as_posix() for p in (root / "slm_lab").rglob("*") if p.is_file() and p.suffix != ".pyc"
    }
    specs = {"slm_lab/" + p.relative_to(root).as_posix() for p in (root / "specs").rglob("*.json")}
    assert "slm_lab/specs/ppo/ppo_cartpole.json" in specs
    templates = {f"slm_lab/.dstack/{kind}-{work}.yml" for kind in ("cpu", "gpu") for work in ("train", "search")}
    assert (sources | specs | templates | {"slm_lab/requirements.lock"}) <= shipped
    assert not [name for name in shipped if name.startswith(("test", "benchmark", "data"))]


def test_installed_elsewhere_run_remote_has_all_it_sends(unpacked: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(unpacked)}
    words = ["run-remote", "ppo/ppo_cartpole.json", "ppo_cartpole", "--no-upload", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-m", "slm_lab", *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "exec python -m slm_lab run job/ppo_cartpole.json ppo_cartpole train" in done.stdout


def test_installed_elsewhere_it_finds_its_specs(unpacked: Path, tmp_path: Path) -> None:
    """As `uv tool install` leaves it: no repository around, another working folder."""
    code = (
        "import slm_lab.spec.load as load, pathlib\n"
        "spec = load.load_spec('ppo/ppo_cartpole.json', 'ppo_cartpole')\n"
        "print(spec.name, pathlib.Path(load.__file__).parents[1])"
    )
    env = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ppo_cartpole", str(unpacked / "slm_lab")]
