import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_lab.remote.names import is_run_file, is_run_name

HOSTILE = [
    "../x.json",
    "a/../../x.json",
    "/etc/x.json",
    "C:\\x.json",
    "C:/x.json",
    "a\\..\\x.json",
    "a//x.json",
    "./x.json",
    ".env",
    ".git/config.json",
    "model/.hidden.pt",
    "a\0.json",
    "a\n.json",
    "x.json ",
    "x.json.",
    "evil.py",
    "evil.so",
    "evil.pth",
    "sitecustomize.pyc",
    "a/" * 9 + "x.json",
    "",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_hostile_names_do_not_travel(path: str) -> None:
    assert not is_run_file(path)


@pytest.mark.parametrize(
    "path",
    [
        "ppo_spec.json",
        "info/ppo_t0_s0_session_df_train.csv",
        "model/ppo_t0_s0_ckpt.pt",
        "model/ppo_t0_s0_ckpt.pt.prev",
        "log/events_ppo_t0_s0/events.out.tfevents.1700000000.host.1.0",
        "README.md",
    ],
)
def test_files_of_runs_travel(path: str) -> None:
    assert is_run_file(path)


@given(st.text(max_size=40))
def test_what_travels_stays_inside(path: str) -> None:
    if is_run_file(path):
        parts = path.split("/")
        assert not {"", ".", ".."} & set(parts)
        assert path.isascii()
        assert "\\" not in path
        assert ":" not in path


@pytest.mark.parametrize("name", ["..", "a_2026_01_31_120000/..", "", ".a_2026_01_31_120000", "a_2026_01_31_120000\n"])
def test_hostile_runs(name: str) -> None:
    assert not is_run_name(name)
