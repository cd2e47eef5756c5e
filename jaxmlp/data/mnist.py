"""MNIST as it ships inside the package, checked against its digests (attribution and licence: mnist/README.md)."""

import hashlib
from pathlib import Path

import numpy as np

from jaxmlp.data.dataset import Dataset
from jaxmlp.data.idx import UNSIGNED_BYTE, read_idx
from jaxmlp.errors import DataError

FOLDER = Path(__file__).parent / "mnist"

DIGESTS = {  # sha256 of the uncompressed files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def load_mnist() -> Dataset:
    """60,000 training and 10,000 test images of 28 x 28 grey levels, labels 0 to 9.

    Raises:
        DataError: where a file of the installed package is missing or altered.
    """
    arrays = []
    for name, digest in DIGESTS.items():
        path = FOLDER / f"{name}.gz"
        array = read_idx(path, 3 if "idx3" in name else 1)
        header = bytes([0, 0, UNSIGNED_BYTE, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        found = hashlib.sha256(header)
        found.update(array.data)
        if found.hexdigest() != digest:
            raise DataError(
                f"{path}: sha256 of its content is {found.hexdigest()}: expected {digest}; reinstall jaxmlp"
            )
        arrays.append(array)
    return Dataset.from_arrays(*arrays, name="mnist", classes=10)
