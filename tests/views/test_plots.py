from pathlib import Path

import numpy as np

from jaxmlp.training.compare import Comparison, Pair
from jaxmlp.views.plots import comparison_figure


def test_no_drift_at_all_can_be_drawn(tmp_path: Path) -> None:
    same = Comparison((Pair(1, (0.5, 0.5), (None, None), 0.0),), ("[0].kernel",), np.zeros((3, 1)), np.ones((5, 2)))
    comparison_figure(same, "title").savefig(tmp_path / "same.png")


def test_the_figure_draws_both_curves_and_every_leafs_drift() -> None:
    comparison = Comparison(
        epochs=(Pair(1, (0.5, 0.5), (0.9, 0.91), 1e-6),),
        leaves=("[0].kernel", "[0].bias"),
        drift=np.array([[0, 1e-8], [1e-7, 2e-8]]),
        step_seconds=np.full((5, 2), 1e-6),
    )
    curves, drift, times = comparison_figure(comparison, "title").axes
    assert [line.get_label() for line in curves.lines] == ["manual", "auto"]
    assert [line.get_label() for line in drift.lines] == ["[0].kernel", "[0].bias"]
    assert [line.get_marker() for line in curves.lines] == ["o", "s"]  # of a single point no line is seen
    assert {line.get_marker() for line in drift.lines} == {"o"}
    assert [tick.get_text() for tick in times.get_xticklabels()] == ["manual", "auto"]


def test_losses_that_differ_by_rounding_are_drawn_alike() -> None:
    pairs = (Pair(1, (0.46676530, 0.46676538), (0.9, 0.9), 1e-6),)
    curves, *_ = comparison_figure(Comparison(pairs, ("[0].kernel",), np.ones((3, 1)), np.ones((5, 2))), "title").axes
    low, high = curves.get_ylim()
    assert high - low > 0.005
    pairs = (Pair(1, (0.5, 0.4), (0.9, 0.9), 1e-6),)
    curves, *_ = comparison_figure(Comparison(pairs, ("[0].kernel",), np.ones((3, 1)), np.ones((5, 2))), "title").axes
    assert curves.get_ylim()[1] < 0.6
