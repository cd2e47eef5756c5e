import io

import numpy as np
from rich.console import Console

from jaxmlp.training.compare import Comparison, Pair
from jaxmlp.views.comparison import comparison_table

COMPARISON = Comparison(
    epochs=tuple(Pair(e, (0.5 / e, 0.5 / e), (0.9, 0.91), 1e-6 * e) for e in (1, 2, 4)),
    leaves=("[0].kernel", "[0].bias"),
    drift=np.array([[0, 1e-8], [1e-7, 2e-8]]),
    step_seconds=np.array([[1e-6, 2e-6], [9e-6, 8e-6], [2e-6, 4e-6]]),
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
        "2.0 us",
        "4.0 us",
        "auto / manual 2.00 (1.44 to 2.00)",
        "0.0e+00 to 1.0e-07",
        "from step 1 to",
    ):
        assert part in text
