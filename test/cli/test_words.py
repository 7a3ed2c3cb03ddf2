"""What the words of a command line mean."""

from collections.abc import Callable

import pytest
import typer
from typer.testing import Result

from slm_lab.cli.app import app, route
from slm_lab.cli.modes import DEFAULT_FILE, DEFAULT_NAME, MODES, Request, parse_mode, parse_words
from slm_lab.experiment.session.run import Mode
from slm_lab.lib.errors import LabError
from slm_lab.spec.files import find_file
from slm_lab.spec.load import load_spec

COMMANDS = [
    "run",
    "validate",
    "migrate",
    "schema",
    "plot",
    "report",
    "compare",
    "eval",
    "export",
    "list-runs",
    "run-remote",
    "push",
    "list",
    "pull",
]


@pytest.mark.parametrize(
    ("line", "routed"),
    [
        ("", "--help"),
        ("--version", "--version"),
        ("--help run", "--help run"),
        ("run", "run"),
        ("spec.json name dev", "run spec.json name dev"),
        ("train@latest", "run train@latest"),
        ("spec.json name dev --help", "run spec.json name dev --help"),
        ("-s env=x spec.json name dev", "run -s env=x spec.json name dev"),
        ("-s env=x run spec.json name dev", "run -s env=x spec.json name dev"),
        ("-s run spec.json", "run -s run spec.json"),
        ("--set=a=b --render plot -f a", "plot --set=a=b --render -f a"),
        ("--seed 3", "run --seed 3"),
        ("spec.json plot", "run spec.json plot"),
        ("validate run", "validate run"),
        ("-- plot", "run -- plot"),
    ],
)
def test_route(line: str, routed: str) -> None:
    own, with_value = ["--version", "--help"], ["-s", "--set", "--seed", "-f"]
    assert route(line.split(), COMMANDS, own, with_value) == routed.split()


def test_the_commands() -> None:
    group = typer.main.get_command(app)
    assert sorted(group.commands) == sorted(COMMANDS)  # type: ignore[attr-defined]


def test_modes_are_those_of_the_experiment() -> None:
    assert list(MODES) == [mode.value for mode in Mode]


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        ("", Request(DEFAULT_FILE, DEFAULT_NAME, "train")),
        ("dev", Request(DEFAULT_FILE, DEFAULT_NAME, "dev")),
        ("enjoy", Request(DEFAULT_FILE, DEFAULT_NAME, "enjoy")),
        ("f.json", Request("f.json", None, "train")),
        ("f.json dev", Request("f.json", None, "dev")),
        ("f.json x", Request("f.json", "x", "train")),
        ("f.json x dev", Request("f.json", "x", "dev")),
        ("f.json x train@latest", Request("f.json", "x", "train", "latest")),
        ("f.json enjoy@data/a@b", Request("f.json", None, "enjoy", "data/a@b")),
        ("train@latest", Request(None, None, "train", "latest")),
        ("dev@latest", Request(None, None, "dev", "latest")),
        ("enjoy@data/x", Request(None, None, "enjoy", "data/x")),
        ("me@home.json", Request("me@home.json", None, "train")),
    ],
)
def test_words(words: str, request_: Request) -> None:
    assert parse_words(words.split()) == request_


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trian", "unknown mode 'trian', did you mean 'train'? (known: dev, train, search, enjoy)"),
        ("zzz@latest", "unknown mode 'zzz' (known: dev, train, search, enjoy)"),
        ("Train", "unknown mode 'Train', did you mean 'train'? (known: dev, train, search, enjoy)"),
        ("train@", "train@: name what to resume: train@latest, or train@ and a run folder"),
    ],
)
def test_wrong_modes(word: str, message: str) -> None:
    with pytest.raises(LabError) as caught:
        parse_mode(word)
    assert str(caught.value) == message
    with pytest.raises(LabError) as caught:
        parse_words(["f.json", "x", word])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate latest", "'evaluate' is neither a command nor a spec file, did you mean 'eval'?"),
        ("upload latest", "'upload' is neither a command nor a spec file, did you mean 'push'?"),
        ("latest", "'latest' is neither a command nor a spec file, did you mean 'train@latest'?"),
        ("resume", "'resume' is neither a command nor a spec file, did you mean 'train@latest'?"),
        ("resume data/x", "'resume' is neither a command nor a spec file, did you mean 'train@data/x'?"),
        ("resume a.json x", "'resume' is neither a command nor a spec file, did you mean 'a.json x train@latest'?"),
        (
            "profile a.json x",
            "'profile' is neither a command nor a spec file, did you mean 'run SPEC_FILE SPEC_NAME --profile'?",
        ),
        ("train ppo", "train: the mode comes last: slm-lab run SPEC_FILE SPEC_NAME train"),
        ("search a.json x", "search: the mode comes last: slm-lab run SPEC_FILE SPEC_NAME search"),
    ],
)
def test_words_that_begin_like_a_command(words: str, message: str) -> None:
    with pytest.raises(LabError) as caught:
        parse_words(words.split())
    assert str(caught.value) == message


def test_modes_of_another_command() -> None:
    with pytest.raises(LabError, match=r"did you mean 'train'\? \(known: dev, train\)"):
        parse_mode("trian", ("dev", "train"))


def test_the_default_spec_is_there() -> None:
    assert load_spec(find_file(DEFAULT_FILE), DEFAULT_NAME).name == DEFAULT_NAME


def test_a_mistyped_command_with_arguments_is_told(slm: Callable[..., Result]) -> None:
    done = slm("validat", "specs")
    assert done.exit_code == 2
    assert "'validat' is neither a command nor a spec file, did you mean 'validate'?" in done.stderr
