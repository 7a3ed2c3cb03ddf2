import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from slm_lab.experiment.session import checkpoint
from slm_lab.lib.errors import LabError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x_t0_s0_ckpt.pt"


def tree(number: int) -> dict:
    return {"number": number, "weights": torch.arange(1000) * number, "nested": {"list": [1, 2.5, None, True, (3,)]}}


def load_number(path: Path) -> int:
    return int(checkpoint.load(path)["number"])


def test_what_is_saved_is_loaded(path: Path) -> None:
    checkpoint.save(path, tree(7))
    found = checkpoint.load(path)
    assert torch.equal(found["weights"], torch.arange(1000) * 7)
    assert found["nested"] == tree(7)["nested"]


def test_the_one_before_is_kept_and_nothing_else(path: Path) -> None:
    for number in range(3):
        checkpoint.save(path, tree(number))
    assert load_number(path) == 2
    assert load_number(checkpoint.previous(path)) == 1
    assert {p.name for p in path.parent.iterdir()} == {path.name, path.name + ".prev"}


def test_a_full_disk_is_told_as_such(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torch_save(tree: object, file: object) -> None:
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 11520 vs 11456")

    monkeypatch.setattr("torch.save", torch_save)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        checkpoint.save(path, tree(1))
    assert list(path.parent.iterdir()) == []


def test_nothing_is_kept_where_nothing_is_asked(path: Path) -> None:
    for number in range(2):
        checkpoint.save(path, tree(number), keep=False)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_save_that_fails_leaves_everything_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(path, tree(0))
    checkpoint.save(path, tree(1))

    def fail(tree: dict, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path, tree(2))
    assert load_number(path) == 1
    assert load_number(checkpoint.previous(path)) == 0
    assert len(list(path.parent.iterdir())) == 2


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    place = data.find((torch.arange(1000) * 2).numpy().tobytes()[:800])
    assert place > 0
    data[place + 400] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def another_program(path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, path)


def another_version(path: Path) -> None:
    torch.save({"format": "slm_lab checkpoint", "version": 999}, path)


class Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("evil"),))


def code(path: Path) -> None:
    torch.save({"format": "slm_lab checkpoint", "version": 1, "x": Evil()}, path)


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (truncate, "damaged"),
        (flip_a_bit, "checksum"),
        (empty, "damaged"),
        (another_program, "not a checkpoint"),
        (another_version, "version 999"),
        (code, "damaged"),
        (Path.unlink, "missing"),
    ],
)
def test_a_bad_one_falls_back_to_the_one_before(
    path: Path, damage: object, word: str, log_text: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    checkpoint.save(path, tree(1))
    checkpoint.save(path, tree(2))
    damage(path)  # type: ignore[operator]
    assert checkpoint.exists(path)
    assert load_number(path) == 1
    assert word in "".join(log_text)
    assert not (path.parent / "evil").exists()


def test_two_bad_ones_are_an_error_that_tells_both(path: Path) -> None:
    checkpoint.save(path, tree(1))
    checkpoint.save(path, tree(2))
    empty(path)
    another_program(checkpoint.previous(path))
    with pytest.raises(LabError, match=r"(?s)no readable checkpoint.*_ckpt\.pt: .*_ckpt\.pt\.prev: not a checkpoint"):
        checkpoint.load(path)


def test_code_in_a_file_is_refused_without_advice_to_run_it(path: Path) -> None:
    code(path)
    with pytest.raises(LabError) as e:
        checkpoint.load(path)
    assert "holds other things than tensors and numbers" in str(e.value)
    assert "weights_only" not in str(e.value)


def test_random_streams_go_on_where_they_were(path: Path) -> None:
    def draw() -> tuple:
        return random.random(), np.random.random(), np.random.normal(), torch.rand(3).tolist()

    # an odd number of normals: numpy keeps one back
    draw()
    checkpoint.save(path, {"rng": checkpoint.get_rng()})
    expected = [draw() for _ in range(3)]
    checkpoint.set_rng(checkpoint.load(path)["rng"])
    assert [draw() for _ in range(3)] == expected


def test_weights_may_share_memory(tmp_path: Path) -> None:
    flat = torch.arange(6.0)
    checkpoint.save_weights(tmp_path / "w.safetensors", {"a": flat[:2], "b": flat[2:].view(2, 2).T}, frame=12)
    found = load_file(tmp_path / "w.safetensors")
    assert found["a"].tolist() == [0, 1]
    assert found["b"].tolist() == [[2, 4], [3, 5]]
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata() == {"frame": "12"}
