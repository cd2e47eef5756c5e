"""Which data sets are there: in the package, in TFDS's standard folder, in the cache."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxmlp.data.cache import VERSION, Note, file_of, home, read_note
from jaxmlp.data.dataset import Dataset
from jaxmlp.data.idx import find
from jaxmlp.data.mnist import DIGESTS, FOLDER
from jaxmlp.data.sources import load_data
from jaxmlp.data.tfds import Name, standard_folder
from jaxmlp.errors import DataError


class Entry(NamedTuple):
    """A data set that is there.

    Attributes:
        source: What data.source calls it.
        place: the package; TFDS, for its standard folder; the cache; else a folder.
        note: None of its fields is known where it can't be read.
        size: Bytes on disk.
    """

    source: str
    place: str
    note: Note
    size: int


UNKNOWN = Note(train=None, test=None, shape=None, classes=None)


def available() -> list[Entry]:
    """All data sets that a source without a path can name, without reading them.

    >>> available()[0].source
    'mnist'
    """
    mnist = Entry("mnist", "the package", Note(60_000, 10_000, (28, 28), 10), _size(_files("mnist")))
    return [mnist, *_prepared(), *_cached()]


def loaded(source: str) -> tuple[Entry, Dataset]:
    """The data set that a source names, and what there is to say of it.

    Raises:
        DataError: as `load_data`.
    """
    dataset = load_data(source, classes=None)
    note = Note(dataset.train.size, dataset.test.size, dataset.shape, dataset.classes, dataset.names)
    files = _files(dataset.name.removeprefix("dct:"))
    kind = dataset.name.removeprefix("dct:").partition(":")[0]
    place = {"mnist": "the package", "tfds": "the cache"}.get(kind, str(files[0].parent))
    return Entry(dataset.name, place, note, _size(files)), dataset


def short_name(source: str) -> str:
    """A file's name for a source, without its ending.

    >>> short_name("tfds:emnist/letters"), short_name("idx:data/fashion"), short_name("dct:npz:some/data.npz")
    ('emnist-letters', 'fashion', 'dct-data')
    """
    plain = source.removeprefix("dct:")
    kind, _, place = plain.partition(":")
    name = (
        Name.parse(place).full.replace("/", "-") if kind == "tfds" else Path(place or kind).expanduser().resolve().name
    )
    return "dct-" * (plain != source) + (name.removesuffix(".npz") or kind)


def _files(source: str) -> list[Path]:
    """The files of a data set that has been loaded."""
    kind, _, place = source.partition(":")
    if kind == "mnist":
        return [FOLDER / f"{name}.gz" for name in DIGESTS]
    if kind == "idx":
        return [find(Path(place), name) for name in DIGESTS]
    if kind == "npz":
        return [Path(place)]
    name = Name.parse(place)
    return [file_of(name.full, name.version or "")]


def _size(files: Iterator[Path] | list[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.is_file())


def _prepared() -> Iterator[Entry]:
    root = standard_folder()
    for info in sorted([*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json")]):
        folder = info.parent
        if VERSION.fullmatch(folder.name):
            name = f"tfds:{folder.parent.relative_to(root).as_posix()}:{folder.name}"
            yield Entry(name, "TFDS", describe(folder), _size(folder.iterdir()))


def _cached() -> Iterator[Entry]:
    for path in sorted([*home().glob("*/*.npz"), *home().glob("*/*/*.npz")]):
        if VERSION.fullmatch(path.stem):
            try:
                note = read_note(path)
            except DataError:
                note = UNKNOWN
            yield Entry(
                f"tfds:{path.parent.relative_to(home()).as_posix()}:{path.stem}", "the cache", note, _size([path])
            )


def describe(folder: Path) -> Note:
    """What the JSON files of a folder that TFDS prepared say of its data set, read without TFDS."""
    try:
        info = json.loads((folder / "dataset_info.json").read_text())
        features = json.loads((folder / "features.json").read_text())["featuresDict"]["features"]
        counts = {split["name"]: sum(map(int, split["shardLengths"])) for split in info["splits"]}
        keys = [item.get("featureKey") for item in info.get("supervisedKeys", {}).get("tuple", {}).get("items", [])]
        inputs, label = (features.get(key, {}) for key in keys) if len(keys) == 2 else ({}, {})
        classes = label.get("classLabel", {}).get("numClasses")
        test = counts.get("test", counts.get("validation"))
        return Note(counts.get("train"), test, _shape(inputs), int(classes) if classes else None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return UNKNOWN


def _shape(feature: dict[str, Any]) -> tuple[int, ...] | None:
    """Of an image or a tensor, without the axis of a single channel; None where it is neither or varies."""
    given = feature.get("image", feature.get("tensor", {})).get("shape", {}).get("dimensions", [])
    shape = tuple(map(int, given))
    if not shape or min(shape) < 1:
        return None
    return shape[:2] if shape[2:] == (1,) else shape
