from pathlib import Path

import pytest

from slm_lab.lib.errors import LabError
from slm_lab.remote.account import Account, read_dotenv


def test_dotenv_and_the_shell_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# comment\nexport HF_REPO='me/a'\nHF_TOKEN=hf_file # secret\nSLM_LAB_HUB_TIMEOUT=5\n\nnot a line\n"
    )
    account = Account.read(tmp_path, {"HF_REPO": "me/b"})
    assert (account.repo, account.token, account.timeout, account.patience) == ("me/b", "hf_file", 5.0, 60.0)
    assert account.url == "https://huggingface.co/datasets/me/b"


def test_token_is_never_shown() -> None:
    account = Account("me/a", "hf_secret")
    assert "hf_secret" not in repr(account)
    assert account.hide("bad token hf_secret here") == "bad token *** here"


def test_no_dotenv(tmp_path: Path) -> None:
    assert read_dotenv(tmp_path / ".env") == {}


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "HF_REPO is not set: the dataset repository .* .env.example explains"),
        ({"HF_REPO": "runs"}, "HF_REPO: must be owner/name"),
        ({"HF_REPO": "a/../b"}, "HF_REPO: must be owner/name"),
        ({"HF_REPO": "a/b", "SLM_LAB_HUB_TIMEOUT": "soon"}, "SLM_LAB_HUB_TIMEOUT: must be a number"),
        ({"HF_REPO": "a/b", "SLM_LAB_HUB_PATIENCE": "nan"}, "SLM_LAB_HUB_PATIENCE: must be a number"),
    ],
)
def test_faults(environ: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=message):
        Account.read(tmp_path, environ)


def test_dotenv_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe")
    with pytest.raises(LabError, match="not UTF-8"):
        Account.read(tmp_path, {})
