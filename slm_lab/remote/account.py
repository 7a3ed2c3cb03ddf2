"""Which repository on the Hugging Face Hub, and with which token: from the environment, else from a `.env` file."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slm_lab.lib.errors import LabError

HUB = "https://huggingface.co"
_LINE = re.compile(r"\s*(?:export\s+)?(\w+)\s*=\s*(.*?)\s*$")


@dataclass(frozen=True)
class Account:
    """A dataset repository and how it is reached."""

    repo: str
    """owner/name"""
    token: str | None = field(default=None, repr=False)
    endpoint: str = HUB
    timeout: float = 60.0
    """Seconds without a byte after which a request has failed."""
    patience: float = 60.0
    """Seconds for which failed requests are repeated."""

    @classmethod
    def read(cls, folder: Path | None = None, environ: Mapping[str, str] | None = None) -> "Account":
        """HF_REPO, HF_TOKEN, HF_ENDPOINT, SLM_LAB_HUB_TIMEOUT and SLM_LAB_HUB_PATIENCE.

        The `.env` is that of a folder, by default the working one; `environ`, by default the process's, wins over it.

        Raises:
            LabError: HF_REPO is missing or not of the form owner/name; a number is none.
        """
        values = {**read_dotenv((folder or Path.cwd()) / ".env"), **(os.environ if environ is None else environ)}
        repo = values.get("HF_REPO", "").strip()
        if not repo:
            raise LabError(
                "HF_REPO is not set: the dataset repository for results, owner/name, where owner is your user name on "
                f"{HUB} (it is made if there is none). Set it in the shell or in .env; .env.example explains"
            )
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo, re.ASCII):
            raise LabError(f"HF_REPO: must be owner/name (got {repo!r})")
        return cls(
            repo,
            values.get("HF_TOKEN", "").strip() or None,
            (values.get("HF_ENDPOINT", "").strip() or HUB).rstrip("/"),
            _seconds(values, "SLM_LAB_HUB_TIMEOUT", cls.timeout),
            _seconds(values, "SLM_LAB_HUB_PATIENCE", cls.patience),
        )

    @property
    def url(self) -> str:
        """The repository's page."""
        return f"{self.endpoint}/datasets/{self.repo}"

    def hide(self, text: str) -> str:
        """The text without the token, wherever it came from."""
        return text.replace(self.token, "***") if self.token else text


def read_dotenv(path: Path) -> dict[str, str]:
    """The variables of a `.env` file: `NAME=value` lines, quotes and ` #` comments as in a shell; none without a file.

    Raises:
        LabError: it can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as e:
        raise LabError(f"{path}: can't be read: {getattr(e, 'strerror', None) or 'not UTF-8 text'}") from None
    return {match[1]: _value(match[2]) for line in text.splitlines() if (match := _LINE.match(line))}


def _value(text: str) -> str:
    """What follows the `=`.

    >>> _value("'a b' # c"), _value("a#b # c"), _value('"a"'), _value("# c")
    ('a b', 'a#b', 'a', '')
    """
    for quote in ("'", '"'):
        if text.startswith(quote) and quote in text[1:]:
            return text[1 : text.index(quote, 1)]
    return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].strip()


def _seconds(values: Mapping[str, str], name: str, default: float) -> float:
    text = values.get(name, "").strip()
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise LabError(f"{name}: must be a number of seconds (got {text!r})")
    return seconds
