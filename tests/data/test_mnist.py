import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxmlp import DataError
from jaxmlp.data import mnist


def test_mnist_is_whole_and_kept_as_bytes() -> None:
    dataset = mnist.load_mnist()
    assert (dataset.train.inputs.shape, dataset.test.inputs.shape) == ((60_000, 784), (10_000, 784))
    assert dataset.train.inputs.dtype == dataset.test.inputs.dtype == np.uint8
    assert np.bincount(dataset.train.targets).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert dataset.shape == (28, 28)


@pytest.mark.parametrize("name", ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
def test_an_altered_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(mnist.FOLDER, tmp_path, dirs_exist_ok=True)
    path = tmp_path / f"{name}.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    path.write_bytes(gzip.compress(content, compresslevel=1))
    monkeypatch.setattr(mnist, "FOLDER", tmp_path)
    with pytest.raises(DataError, match=rf"{name}.gz: sha256 .* expected {mnist.DIGESTS[name]}; reinstall"):
        mnist.load_mnist()
