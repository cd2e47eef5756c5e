from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prepared import builder, image_features, labelled, prepare, tfds

from jaxmlp import DataError, load_data
from jaxmlp.data.cache import Note, file_of
from jaxmlp.data.listing import UNKNOWN, available, describe, loaded, short_name

pytestmark = pytest.mark.own_precision


@pytest.fixture(autouse=True)
def standard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "standard"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "standard"


@pytest.fixture
def folder(standard: Path) -> Path:
    """Of a data set that TFDS has prepared."""
    images = np.zeros((9, 12, 12), np.uint8)
    examples = labelled(images, np.arange(9) % 3)
    given = {"train": examples[:6], "validation": examples[6:]}
    kind = builder("digits", given, image_features(12, 3), ("image", "label"), configs=["some"])
    return prepare(kind, standard, "some")


def test_the_bundled_data_set_is_what_the_list_says() -> None:
    [entry] = available()
    assert (entry.source, entry.place) == ("mnist", "the package")
    assert loaded("mnist")[0] == entry


def test_what_is_prepared_is_listed_and_what_is_kept_too(folder: Path, standard: Path) -> None:
    expected = Note(train=6, test=3, shape=(12, 12), classes=3)
    _, prepared_ = available()
    assert (prepared_.source, prepared_.place, prepared_.note) == ("tfds:digits/some:1.0.0", "TFDS", expected)
    assert prepared_.size == sum(path.stat().st_size for path in folder.iterdir())
    entry, dataset = loaded("tfds:digits/some")
    assert (dataset.train.size, entry.place) == (6, "the cache")
    kept_ = available()[2]
    assert (kept_.source, kept_.size, entry.size) == (prepared_.source, entry.size, kept_.size)
    assert (kept_.note.train, kept_.note.test, kept_.note.shape, kept_.note.classes) == (6, 3, (12, 12), 3)


def test_what_is_listed_can_be_loaded_by_its_name(folder: Path) -> None:
    assert load_data(available()[1].source).train.size == 6


def test_what_cannot_be_read_is_listed_as_unknown(folder: Path) -> None:
    load_data("tfds:digits/some")
    file_of("digits/some", "1.0.0").write_bytes(b"damaged")
    (folder / "features.json").write_text("[")
    assert [entry.note for entry in available()[1:]] == [UNKNOWN, UNKNOWN]


def test_tensors_are_described_and_what_is_no_classification_lacks_what_it_has_not(standard: Path) -> None:
    features = {"x": tfds.features.Tensor(shape=(2, 3), dtype=np.float32), "y": tfds.features.Text()}
    given = {"train": [{"x": np.zeros((2, 3), np.float32), "y": "a"}]}
    named = prepare(builder("named", given, features, ("x", "y")), standard)
    unnamed = prepare(builder("unnamed", given, features, None), standard)
    assert describe(named) == Note(train=1, test=None, shape=(2, 3), classes=None)
    assert describe(unnamed) == Note(train=1, test=None, shape=None, classes=None)


def test_a_folder_and_a_file_are_shown_whatever_their_classes(idx_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = idx_folder()
    entry, _ = loaded(f"idx:{folder}")
    assert (entry.place, entry.note) == (str(folder), Note(train=7, test=4, shape=(3, 2), classes=4))
    assert entry.size == sum(path.stat().st_size for path in folder.iterdir())
    inputs, labels = np.zeros((30, 4)), np.arange(30)
    np.savez(tmp_path / "x.npz", x_train=inputs, y_train=labels, x_test=inputs, y_test=labels)
    entry, dataset = loaded(f"npz:{tmp_path / 'x.npz'}")
    assert (dataset.classes, entry.size) == (30, (tmp_path / "x.npz").stat().st_size)


def test_frequencies_are_shown_with_the_files_that_they_come_from() -> None:
    entry, dataset = loaded("dct:mnist")
    assert (entry.source, entry.place, entry.note.shape) == ("dct:mnist", "the package", (99,))
    assert dataset.features == 99


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("mnist", "mnist"),
        ("dct:mnist", "dct-mnist"),
        ("tfds:emnist/letters:3.1.0", "emnist-letters"),
        ("idx:some/folder/", "folder"),
        ("idx:/", "idx"),
        ("npz:~/some/file.npz", "file"),
    ],
)
def test_a_picture_is_called_after_its_source(source: str, name: str) -> None:
    assert short_name(source) == name


def test_a_source_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="expected mnist"):
        loaded("cifar")
