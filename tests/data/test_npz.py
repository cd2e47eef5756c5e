import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmlp import DataError
from jaxmlp.data.npz import load_npz

pytestmark = pytest.mark.own_precision

GOOD: dict[str, Any] = {
    "x_train": np.arange(24, dtype=np.uint8).reshape(6, 2, 2),
    "y_train": np.array([0, 1, 2, 0, 1, 2]),
    "x_test": np.zeros((3, 2, 2), np.uint8),
    "y_test": np.array([2, 1, 0]),
}


def write(path: Path, **changes: Any) -> Path:
    np.savez(path, **{name: array for name, array in (GOOD | changes).items() if array is not None})
    return path


def test_a_file_that_is_cut_short_is_told_from_one_of_another_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"a.npz: can't be read as an NPZ file \(it begins as one, but is cut short\)"):
        load_npz(tmp_path / "a.npz", None)


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    dataset = load_npz(write(tmp_path / "data.npz"), classes=3)
    np.testing.assert_array_equal(dataset.train.inputs, GOOD["x_train"].reshape(6, 4))
    np.testing.assert_array_equal(dataset.test.targets, GOOD["y_test"])
    assert dataset.train.inputs.dtype == np.uint8
    assert (dataset.shape, dataset.outputs, dataset.labelled) == ((2, 2), 3, True)


def test_targets_of_real_numbers_are_regression(tmp_path: Path) -> None:
    path = write(tmp_path / "data.npz", y_train=np.linspace(0, 1, 6), y_test=np.zeros(3))
    dataset = load_npz(path, classes=2)
    assert (dataset.outputs, dataset.labelled, dataset.train.targets.shape) == (1, False, (6, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, "expected x_train too"),
        ({"y_test": None}, "expected y_test too"),
        ({"x_train": np.zeros((5, 2, 2), np.uint8)}, "5 inputs and 6 targets: expected as many"),
        ({"x_train": np.zeros((0, 2, 2), np.uint8), "y_train": np.zeros(0, int)}, "expected at least one"),
        ({"x_train": np.zeros(6)}, "expected an example a row"),
        ({"x_train": np.array(1.0)}, "expected an example a row"),
        ({"x_train": np.zeros((6, 2, 2))}, "expected both uint8"),
        ({"x_train": np.full((6, 2, 2), 1e300)}, r"inputs\[0, 0, 0\] is 1e\+300: expected .* finite in float32"),
        ({"x_train": np.full((6, 2, 2), np.nan)}, r"inputs\[0, 0, 0\] is nan: expected numbers that are finite"),
        ({"x_train": np.full((6, 2, 2), "a")}, "type <U1: expected real numbers"),
        ({"x_train": np.zeros((6, 2, 2), complex)}, "type complex128: expected real numbers"),
        ({"x_test": np.zeros((3, 2, 3), np.uint8)}, r"training input has shape \(2, 2\), a test input \(2, 3\)"),
        ({"y_train": np.array([0, 1, 3, 0, 1, 2])}, "label 3 at index 2 .*expected labels from 0 to 2"),
        ({"y_train": np.array([0, 1, -1, 0, 1, 2])}, "label -1 at index 2"),
        ({"y_train": np.zeros((6, 1, 1))}, "expected an example a row"),
        ({"y_train": np.zeros(6)}, "a training target is a row of 1 numbers, a test target a label"),
        ({"y_train": np.full(6, np.inf), "y_test": np.zeros(3)}, r"targets\[0\] is inf"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "data.npz", **changes)
    with pytest.raises(DataError, match=message) as refusal:
        load_npz(path, classes=3)
    assert str(path) in str(refusal.value)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was loaded",))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    inside, itself = tmp_path / "inside.npz", tmp_path / "itself.npz"
    np.savez(inside, **(GOOD | {"x_train": np.array([Hostile()], object)}))
    itself.write_bytes(pickle.dumps(Hostile()))
    for path, message in (
        (inside, "x_train has type object, .*: expected numbers"),
        (itself, "can't be read as an NPZ"),
    ):
        with pytest.raises(DataError, match=message):
            load_npz(path, classes=3)


def test_a_file_cut_anywhere_or_changed_is_refused_or_whole(tmp_path: Path) -> None:
    whole = write(tmp_path / "data.npz").read_bytes()
    path = tmp_path / "cut.npz"
    for cut in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError):
            load_npz(path, classes=3)
    for place in range(0, len(whole), 41):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        try:
            dataset = load_npz(path, classes=3)
        except DataError as refusal:
            assert "\n" not in str(refusal)  # noqa: PT017
        else:  # a byte that doesn't matter, such as a date's
            np.testing.assert_array_equal(dataset.train.inputs, GOOD["x_train"].reshape(6, 4))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none.npz: no such file: expected an NPZ file with the arrays x_train"):
        load_npz(tmp_path / "none.npz", classes=3)


def test_damage_that_is_met_before_the_checksum_is_a_data_error(tmp_path: Path) -> None:
    path, x, y = tmp_path / "data.npz", np.zeros((99, 99)), np.arange(99) % 3
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    whole = path.read_bytes()
    header_ends, flags = whole.index(b"}"), whole.index(b"PK\x01\x02") + 8
    for place, value in ((header_ends, ord("|")), (flags, 1)):
        path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
        with pytest.raises(DataError, match="can't be read as an NPZ file"):
            load_npz(path, None)
