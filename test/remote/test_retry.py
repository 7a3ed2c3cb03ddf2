import pytest

from slm_lab.remote.retry import retry


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def failing(times: int) -> list[Exception]:
    return [OSError(str(i)) for i in range(times)]


def attempt(errors: list[Exception]) -> str:
    if errors:
        raise errors.pop(0)
    return "done"


def test_waits_grow() -> None:
    clock = Clock()
    errors = failing(5)
    done = retry(lambda: attempt(errors), lambda e: True, patience=100, sleep=clock.sleep, clock=clock)
    assert done == "done"
    for wait, wanted in zip(clock.waits, [1, 2, 4, 8, 16], strict=True):
        assert 0.75 * wanted <= wait <= 1.25 * wanted


def test_patience_ends() -> None:
    clock = Clock()
    errors = failing(100)
    with pytest.raises(OSError, match=r"[2-4]"):
        retry(lambda: attempt(errors), lambda e: True, patience=10, sleep=clock.sleep, clock=clock)
    assert clock.now <= 10


def test_what_does_not_pass_is_raised_at_once() -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="no"):
        retry(
            lambda: attempt([ValueError("no")]),
            lambda e: isinstance(e, OSError),
            patience=10,
            sleep=clock.sleep,
            clock=clock,
        )
    assert clock.waits == []
