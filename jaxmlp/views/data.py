"""Data sets: a table of them, and a picture of one."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Num
from matplotlib.figure import Figure
from rich.table import Table

from jaxmlp.data.dataset import Dataset, Numbers
from jaxmlp.data.listing import Entry

SIDE = 10
"""Rows of a picture, and images in a row."""
GAP = 0.1
"""Between two images, of their size."""


def data_table(entries: Sequence[Entry]) -> Table:
    """Data sets, one a row."""
    table = Table()
    table.add_column("data.source", overflow="fold")
    for name in ("training", "test", "example", "classes", "on disk"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("in", overflow="fold")
    for source, place, note, size in entries:
        counts = ["?" if n is None else f"{n:,}" for n in (note.train, note.test)]
        shape = "?" if note.shape is None else " x ".join(map(str, note.shape))
        table.add_row(source, *counts, shape, "-" if note.classes is None else str(note.classes), in_units(size), place)
    return table


def in_units(size: int) -> str:
    """A number of bytes for people.

    >>> in_units(1), in_units(54_950_000), in_units(3_000_000_000)
    ('1 B', '55.0 MB', '3.0 GB')
    """
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} B"


def examples_figure(dataset: Dataset) -> Figure | None:
    """The first training images of each of the first ten classes, a class a row; None where examples are no images.

    Without labels, the first hundred.
    """
    shape = dataset.shape
    if len(shape) not in (2, 3) or shape[2:] not in ((), (1,), (3,)) or min(shape[:2]) < 2:
        return None
    rows, labels = _rows(dataset)
    figure = Figure(figsize=(7.5, 7.5 * shape[0] / shape[1] * len(rows) / SIDE + 0.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(_mosaic(dataset, rows), interpolation="nearest")
    pitch = shape[0] + _gap(shape)
    axes.set_yticks([pitch * row + shape[0] / 2 for row in range(len(labels))], labels, parse_math=False)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    shown = f", {len(labels)} of {dataset.classes} classes" if labels and len(labels) != dataset.classes else ""
    axes.set_title(
        f"{dataset.name}: the first of {dataset.train.size:,} training images{shown}", fontsize=10, parse_math=False
    )
    return figure


def _rows(dataset: Dataset) -> tuple[list[Numbers], list[str]]:
    """Indices of the images in each row, and the rows' labels."""
    targets = dataset.train.targets
    if not dataset.labelled:
        first = np.arange(min(SIDE**2, dataset.train.size))
        return [first[start : start + SIDE] for start in range(0, len(first), SIDE)], []
    found = np.unique(targets)[:SIDE]
    return [np.flatnonzero(targets == label)[:SIDE] for label in found], [
        dataset.names[label] if dataset.names else str(label) for label in found
    ]


def _gap(shape: tuple[int, ...]) -> int:
    return max(1, round(GAP * min(shape[:2])))


def _mosaic(dataset: Dataset, rows: list[Numbers]) -> Num[np.ndarray, "H W 4"]:
    """The images side by side, in red, green, blue and opacity from 0 to 1."""
    H, W = dataset.shape[:2]
    gap = _gap(dataset.shape)
    canvas = np.zeros((len(rows) * (H + gap) - gap, SIDE * (W + gap) - gap, 4), np.float32)
    levels = dataset.train.inputs[np.concatenate(rows)].astype(np.float32)
    low, high = (0, 255) if dataset.train.inputs.dtype == np.uint8 else (levels.min(), levels.max())
    for row, indices in enumerate(rows):
        for column, index in enumerate(indices):
            image = dataset.train.inputs[index].astype(np.float32).reshape(H, W, -1)
            place = canvas[row * (H + gap) :, column * (W + gap) :][:H, :W]
            place[..., :3] = (image - low) / max(high - low, 1e-30)
            place[..., 3] = 1
    return canvas
