import pytest

from slm_lab.remote import failures
from slm_lab.remote.failures import DamagedError, retry


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(failures, "time", made)
    return made


def failing(times: int) -> list[Exception]:
    return [DamagedError(str(i)) for i in range(times)]


def ignore(error: Exception, wait: float) -> None:
    """Nobody is told."""


def attempt(errors: list[Exception]) -> str:
    if errors:
        raise errors.pop(0)
    return "done"


def test_waits_grow(clock: Clock) -> None:
    errors = failing(5)
    done = retry(lambda: attempt(errors), patience=100, told=ignore)
    assert done == "done"
    for wait, wanted in zip(clock.waits, [1, 2, 4, 8, 16], strict=True):
        assert 0.75 * wanted <= wait <= 1.25 * wanted


def test_patience_ends(clock: Clock) -> None:
    errors = failing(100)
    with pytest.raises(DamagedError, match=r"[2-4]"):
        retry(lambda: attempt(errors), patience=10, told=ignore)
    assert clock.now <= 10


def test_what_does_not_pass_is_raised_at_once(clock: Clock) -> None:
    with pytest.raises(ValueError, match="no"):
        retry(lambda: attempt([ValueError("no")]), patience=10, told=ignore)
    assert clock.waits == []
