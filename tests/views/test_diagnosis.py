import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import jaxmlp
from jaxmlp import Data, Dataset, Experiment, Network, Record, Train
from jaxmlp.training.config import QuantityName
from jaxmlp.training.diagnosis import Figures, read_figures
from jaxmlp.views.diagnosis import PANELS, diagnosis_figure, smooth

pytestmark = pytest.mark.own_precision  # training is in float32


def figures_of(dataset: Dataset, folder: Path, *quantities: QuantityName) -> Figures:
    experiment = Experiment(Network((20, 6, 3)), Data(validation=42), train=Train(2, 16), record=Record(quantities))
    jaxmlp.fit(experiment, dataset, workdir=folder / "run")
    return read_figures(folder / "run", dataset)


def test_the_page_has_the_words_a_panel_of_everything_and_pictures(digits: Dataset, tmp_path: Path) -> None:
    figures = figures_of(digits, tmp_path, *get_args(QuantityName))
    page = diagnosis_figure(figures, ["the first thing", "the second"], "small")
    page.savefig(tmp_path / "page.png")
    titles = [axis.get_title() for part in page.subfigs for axis in part.axes]
    assert {panel[1] for panel in PANELS} < {*titles}
    assert "Elements of the mean gradient, last epoch" in titles
    position = figures.ranking[0]
    assert any(title.startswith(f"{figures.indices[position]}\n") for title in titles)
    said = "\n".join(text.get_text() for part in page.subfigs for text in part.texts)
    assert "the first thing\n- the second" in said


def test_the_page_says_what_could_not_be_judged(digits: Dataset, tmp_path: Path) -> None:
    page = diagnosis_figure(figures_of(digits, tmp_path, "loss", "example_losses"), [], "small")
    said = "\n".join(text.get_text() for part in page.subfigs for text in part.texts)
    assert "- nothing stands out\n- not recorded, and so not judged by: noise_scale gradient_norm" in said


def pictured(figures: Figures) -> list[tuple[str, str]]:
    """The label and what the network says, of each picture."""
    page = diagnosis_figure(figures, [], "small")
    titles = [axis.get_title() for part in page.subfigs for axis in part.axes]
    return [tuple(re.findall("label (.*), says (.*)", title)[0]) for title in titles if ", says " in title]


def test_only_examples_whose_labels_the_network_contradicts_are_pictured(digits: Dataset, tmp_path: Path) -> None:
    figures = figures_of(digits, tmp_path, "example_losses")
    assert 0 < len(pictured(figures)) <= 4  # 2 % of 161
    assert all(label != said for label, said in pictured(figures))


def test_of_gradient_norms_alone_no_example_is_pictured(digits: Dataset, tmp_path: Path) -> None:
    assert pictured(figures_of(digits, tmp_path, "example_norms")) == []


@pytest.mark.parametrize("quantity", ["loss", "noise_scale", "dead_units"])
def test_a_page_of_little_can_be_drawn(quantity: QuantityName, digits: Dataset, tmp_path: Path) -> None:
    figures = figures_of(replace(digits, shape=(20,)), tmp_path, quantity)
    page = diagnosis_figure(figures, [], "$\\foo$")
    page.savefig(tmp_path / "page.png")
    assert len(page.subfigs) == 2


def test_stretches_are_means_of_what_is_finite() -> None:
    values = np.array([1.0, 3.0, np.nan, 5.0, np.nan, np.nan])
    np.testing.assert_array_equal(smooth(values, 3), [2, 5, np.nan])
    np.testing.assert_array_equal(smooth(values), values)
