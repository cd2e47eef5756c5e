from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jaxmlp import Dataset
from jaxmlp.data.cache import Note
from jaxmlp.data.listing import UNKNOWN, Entry
from jaxmlp.views.data import data_table, examples_figure


def test_a_table_says_what_is_known() -> None:
    note = Note(train=60000, test=10000, shape=(28, 28), classes=10)
    console = Console(width=120, record=True)
    console.print(data_table([Entry("mnist", "the package", note, 11_300_000), Entry("tfds:x", "there", UNKNOWN, 5)]))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.export_text().splitlines()[3:5]]
    assert lines == [
        ["mnist", "60,000", "10,000", "28 x 28", "10", "11.3 MB", "the package"],
        ["tfds:x", "?", "?", "?", "-", "5 B", "there"],
    ]


def picture(dataset: Dataset) -> tuple[np.ndarray, list[str], str]:
    """The image that is drawn, its rows' labels and its title."""
    figure = examples_figure(dataset)
    assert figure is not None
    [axes] = figure.axes
    array = np.asarray(axes.images[0].get_array())
    return array, [label.get_text() for label in axes.get_yticklabels()], axes.get_title()


def images(shape: tuple[int, ...], labels: np.ndarray, names: tuple[str, ...] = ()) -> Dataset:
    """Images that are all of their label's grey level."""
    levels = np.broadcast_to(labels.reshape(-1, *[1] * len(shape)), (len(labels), *shape)).astype(np.uint8)
    made = Dataset.from_arrays(levels, labels, levels, labels, name="made", classes=len(names) or None)
    return Dataset(made.name, made.train, made.test, made.classes, made.shape, names)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3)])
def test_each_class_has_a_row_of_its_own_images_beside_its_name(shape: tuple[int, ...]) -> None:
    labels = np.repeat([2, 0, 3], [12, 3, 1])
    array, names, title = picture(images(shape, labels, ("a", "b", "c", "d")))
    assert names == ["a", "c", "d"]
    assert title == "made: the first of 16 training images, 3 of 4 classes"
    for row, (label, count) in enumerate(((0, 3), (2, 10), (3, 1))):
        middle = array[row * 5 + 2, 3::7]
        np.testing.assert_allclose(middle[:count], [[label / 255] * 3 + [1]] * count, atol=1e-6)
        assert not middle[count:].any()


def test_of_many_classes_ten_are_drawn() -> None:
    array, names, title = picture(images((2, 2), np.arange(37)))
    assert (len(names), title.endswith("10 of 37 classes")) == (10, True)
    assert array.shape == (10 * 3 - 1, 10 * 3 - 1, 4)


def test_images_without_labels_are_drawn_without() -> None:
    inputs = np.random.default_rng(0).normal(size=(13, 3, 3))
    array, names, _ = picture(Dataset.from_arrays(inputs, np.zeros(13), inputs, np.zeros(13)))
    assert names == []
    assert array.shape == (2 * 4 - 1, 10 * 4 - 1, 4)
    assert (array.min(), array.max()) == (0, 1)


def test_images_of_one_level_are_drawn_too() -> None:
    inputs = np.ones((3, 3, 3))
    array, _, _ = picture(Dataset.from_arrays(inputs, np.arange(3), inputs, np.arange(3)))
    assert np.isfinite(array).all()


@pytest.mark.parametrize("shape", [(9,), (3, 3, 2), (2, 2, 3, 3), (1, 9)])
def test_what_is_no_image_is_not_drawn(shape: tuple[int, ...]) -> None:
    assert examples_figure(images(shape, np.arange(3))) is None


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    made = images((4, 6), np.arange(2), ("$\\a$", "b"))
    figure = examples_figure(replace(made, name="$\\foo$"))
    assert figure is not None
    figure.savefig(tmp_path / "page.png")
