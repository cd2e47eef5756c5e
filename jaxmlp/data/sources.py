"""A data set by the name of its source."""

import difflib
from os.path import isdir
from pathlib import Path

from jaxmlp.data.dataset import Dataset
from jaxmlp.data.frequencies import transformed
from jaxmlp.data.idx import load_idx
from jaxmlp.data.mnist import load_mnist
from jaxmlp.data.npz import load_npz
from jaxmlp.data.tfds import load_tfds
from jaxmlp.errors import DataError

SOURCES = "mnist, idx:FOLDER, npz:FILE, tfds:NAME"


def load_data(source: str, classes: int | None = 10) -> Dataset:
    """The data set that `source` names: `mnist` (in the package), `idx:FOLDER`, `npz:FILE` or `tfds:NAME`.

    `dct:` and one of these makes each image its 99 lowest frequencies (jaxmlp.data.frequencies).

    `classes` bounds the labels of a folder or file: they must be whole numbers from 0 to `classes` - 1; None counts the
    classes up to the largest label. Other sources know their number of classes. That of TensorFlow Datasets is what
    its ClassLabel says, so `tfds:emnist/letters`, whose labels are 1 to 26, has 37 as the other parts of EMNIST have.

    Raises:
        DataError: for an unknown source, or data that can't be used.

    >>> dataset = load_data("mnist")
    >>> dataset.train.size, dataset.test.size, dataset.features, dataset.outputs
    (60000, 10000, 784, 10)
    """
    try:
        return _load(source, classes)
    except (OSError, RuntimeError) as error:  # a name too long, a ~user that doesn't exist
        raise DataError(f"data.source is {source!r}: {error}") from error


def _load(source: str, classes: int | None) -> Dataset:
    plain = source.removeprefix("dct:")
    kind, colon, place = plain.partition(":")
    if kind == "mnist" and not colon:
        dataset = load_mnist()
    elif kind == "idx" and place:
        dataset = load_idx(Path(place).expanduser(), classes)
    elif kind == "npz" and place:
        dataset = load_npz(Path(place).expanduser(), classes)
    elif kind == "tfds" and place:
        dataset = load_tfds(place)
    else:
        near = meant(plain)
        hint = f" (did you mean {source.removesuffix(plain)}{near}?)" if near else ""
        raise DataError(f"data.source is {source!r}{hint}: expected {SOURCES}, or dct: and one of these")
    return dataset if plain == source else transformed(dataset)


def meant(source: str) -> str | None:
    """What a source that is none may have been meant to be."""
    kind, colon, place = source.partition(":")
    if colon:
        near = difflib.get_close_matches(kind.lower(), ("idx", "npz", "tfds"), 1)
        return f"{near[0]}:{place}" if near and place else None
    if difflib.get_close_matches(kind.lower(), ["mnist"]):
        return "mnist"
    if source.endswith(".npz"):
        return f"npz:{source}"
    return f"idx:{source}" if isdir(source) else None  # noqa: PTH112  (Path.is_dir raises for a name too long)
