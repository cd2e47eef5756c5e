from dataclasses import replace

import jax
import pytest

import jaxmlp
from jaxmlp import Data, Dataset, Experiment, Network, Optimizer, Train
from jaxmlp.data.distortions import Distort
from jaxmlp.training import check
from jaxmlp.training.check import check_experiment
from jaxmlp.training.config import Schedule

pytestmark = pytest.mark.own_precision  # an experiment is checked in both

EXPERIMENT = Experiment(Network((20, 6, 3)), Data(validation=40), train=Train(batch_size=16))


def test_an_experiment_is_checked_in_both_precisions_at_the_start_and_after_training(digits: Dataset) -> None:
    checks = check_experiment(EXPERIMENT, digits)
    whens = [(checked.when, checked.report.dtype) for checked in checks]
    assert whens == [
        (when, dtype) for when in ("at initialisation", "after an epoch") for dtype in ("float32", "float64")
    ]
    assert all(checked.report.passed for checked in checks)
    assert checks[0].report.loss > checks[2].report.loss


@pytest.mark.usefixtures("optax_promotes")
def test_an_experiment_that_drops_distorts_and_regularises_is_checked_as_it_trains(digits: Dataset) -> None:
    experiment = replace(
        EXPERIMENT,
        network=Network((20, 4, 3), "tanh", "softmax", "cross_entropy", 0.4, 0.2, 0.05, 0.1),
        optimizer=Optimizer("sgd", 0.5, (("momentum", 0.9),), max_norm=2.0),
        schedule=Schedule("cosine", warmup=0.5),
        distort=Distort(shift=1.0, rotation=10.0, alpha=1.0, sigma=1.0),
    )
    checks = check_experiment(experiment, digits)
    assert len(checks) == 4
    for checked in checks:
        checked.report.raise_on_failure()


def test_of_large_batches_a_stated_number_of_examples_is_checked(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "CHECKED", 16)
    whole = replace(EXPERIMENT, train=Train(batch_size=163))
    small, large = (check_experiment(experiment, digits) for experiment in (EXPERIMENT, whole))
    assert large[:2] == small[:2]  # the same 16 examples
    assert all(checked.report.passed for checked in large)


def test_a_fault_that_shows_only_for_the_ragged_batch_is_caught(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unweighted(
        params: jaxmlp.Params, batch: jaxmlp.Batch, network: Network, key: None
    ) -> tuple[jax.Array, jaxmlp.Params]:
        cost = jaxmlp.loss(params, batch, network)
        return cost, jaxmlp.backprop(params, batch._replace(weights=None), network)

    monkeypatch.setattr(check, "value_and_backprop", unweighted)
    checks = check_experiment(EXPERIMENT, digits)
    assert [checked.report.passed for checked in checks] == [True, True, False, False]
    assert "is ignored" in checks[3].report.causes[0]
