import io

import numpy as np
import pytest
from rich.console import Console

from jaxmlp.training.compare import Comparison, Pair
from jaxmlp.views.comparison import comparison_table

COMPARISON = Comparison(
    epochs=tuple(Pair(e, (0.5 / e, 0.5 / e), (0.9, 0.91), (1e-5 / e, 2e-5 / e), 1e-6 * e) for e in (1, 2, 4)),
    leaves=("kernel_1", "bias_1"),
    drift=np.array([[0, 1e-8], [1e-7, 2e-8]]),
)


def test_the_table_has_the_ends_the_times_and_the_drift_of_every_leaf() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(comparison_table(COMPARISON))
    text = console.file.getvalue()
    for part in (
        "0.125000",
        "90.00 %",
        "91.00 %",
        "-1.00 points",
        "auto / manual 2.00",
        "0.0e+00 to 1.0e-07",
        "from step 1 to",
    ):
        assert part in text


def test_the_first_epochs_compilation_is_not_in_the_time_of_a_step() -> None:
    assert COMPARISON.step_seconds == pytest.approx((3.75e-6, 7.5e-6))
