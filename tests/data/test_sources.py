from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxmlp import DataError, load_data

pytestmark = pytest.mark.own_precision  # it computes nothing


@pytest.mark.parametrize(
    "source",
    [
        "",
        "cifar",
        "mnist:",
        "mnist:x",
        "idx",
        "idx:",
        "npz:",
        "csv:x",
        ":",
        "tfds",
        "tfds:",
        "dct:",
        "dct:cifar",
        "dct:dct:mnist",
    ],
)
def test_an_unknown_source_is_refused(source: str) -> None:
    with pytest.raises(DataError, match="expected mnist, idx:FOLDER, npz:FILE, tfds:NAME, or dct: and one of these"):
        load_data(source)


def test_a_folder_and_a_file_of_the_same_arrays_are_the_same_data_set(
    idx_folder: Callable[..., Path], tmp_path: Path
) -> None:
    idx = load_data(f"idx:{idx_folder()}", classes=4)
    arrays = {
        "x_train": idx.train.inputs.reshape(-1, 3, 2),
        "y_train": idx.train.targets,
        "x_test": idx.test.inputs.reshape(-1, 3, 2),
        "y_test": idx.test.targets,
    }
    np.savez(tmp_path / "same.npz", **arrays)
    npz = load_data(f"npz:{tmp_path / 'same.npz'}", classes=4)
    for a, b in ((idx.train, npz.train), (idx.test, npz.test)):
        np.testing.assert_array_equal(a.inputs, b.inputs)
        np.testing.assert_array_equal(a.targets, b.targets)
        assert (a.inputs.dtype, a.targets.dtype) == (b.inputs.dtype, b.targets.dtype)
    assert idx.shape == npz.shape
