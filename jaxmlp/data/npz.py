"""NPZ files with the four arrays x_train, y_train, x_test, y_test, as Keras distributes its data sets."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxmlp.data.dataset import NUMBERED, Dataset, Numbers
from jaxmlp.errors import DataError

NAMES = ("x_train", "y_train", "x_test", "y_test")


def load_npz(path: Path, classes: int | None) -> Dataset:
    """The data set in an NPZ file, by the rules of `Dataset.from_arrays`. Pickled objects are refused.

    Raises:
        DataError: where the file is missing, is not an NPZ file, is damaged, lacks an array, or as `from_arrays`.
    """
    if not path.is_file():
        found = "not a file" if path.exists() else "no such file"
        raise DataError(f"{path}: {found}: expected an NPZ file with the arrays {', '.join(NAMES)}")
    return Dataset.from_arrays(*read_arrays(path, NAMES), name=f"npz:{path}", classes=classes)


def read_arrays(path: Path, names: Sequence[str]) -> list[Numbers]:
    """The arrays of these names in an NPZ file. Their checksums are in it, and NumPy checks them.

    Raises:
        DataError: where the file is no NPZ file, is damaged, or lacks one of them.
    """
    arrays = []
    try:
        with zipfile.ZipFile(path):  # np.load would take other formats, pickles among them
            pass
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file.files]
            if missing:
                raise DataError(
                    f"{path}: found the arrays {', '.join(file.files) or '(none)'}: expected {', '.join(missing)} too"
                )
            for name in names:
                try:
                    array = file[name]
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
                    raise DataError(
                        f"{path}: {name} has type object, as pandas' strings have: expected numbers{NUMBERED}"
                    ) from error
                if not isinstance(array, np.ndarray):  # a member that isn't in NumPy's format comes back as bytes
                    raise DataError(f"{path}: {name} is not an array in NumPy's format: expected one")
                arrays.append(array)
    except DataError:
        raise
    except Exception as error:  # of whatever kind zipfile, zlib, and NumPy with a damaged header raise
        cut = str(error) == "File is not a zip file" and begins_as_zip(path)
        why = "it begins as one, but is cut short" if cut else error
        raise DataError(
            f"{path}: can't be read as an NPZ file ({why}): expected one with the arrays {', '.join(names)}"
        ) from error
    return arrays


def begins_as_zip(path: Path) -> bool:
    """Whether a file has a zip file's first bytes; what says that it is one stands at its end."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
