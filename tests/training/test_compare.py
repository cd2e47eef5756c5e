from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmlp
from jaxmlp import Data, Dataset, DivergedError, Experiment, Network, Optimizer, Train
from jaxmlp.training import epoch
from jaxmlp.training.compare import TURNS, compare, distance

pytestmark = pytest.mark.own_precision  # training is in float32

EXPERIMENT = Experiment(Network((20, 6, 3)), Data(validation=40), train=Train(epochs=3, batch_size=16, seed=5))


def test_it_trains_as_fit_does_with_either_gradient(digits: Dataset) -> None:
    comparison = compare(EXPERIMENT, digits)
    for i, gradient in enumerate(("manual", "auto")):
        run = jaxmlp.fit(replace(EXPERIMENT, train=replace(EXPERIMENT.train, gradient=gradient)), digits)
        assert [pair.train_loss[i] for pair in comparison.epochs] == [record.train_loss for record in run.history]
        accuracies = [record.validation_accuracy for record in run.history]
        assert [pair.validation_accuracy[i] for pair in comparison.epochs] == accuracies


def test_the_right_gradient_drifts_by_rounding_alone(digits: Dataset) -> None:
    comparison = compare(EXPERIMENT, digits)
    assert comparison.leaves == ("[0].kernel", "[0].bias", "[1].kernel", "[1].bias")
    assert comparison.drift.shape == (3 * 11, 4)  # 163 examples make 11 batches
    assert comparison.drift.max() < 1e-4
    assert comparison.epochs[-1].drift == comparison.drift[-1].max()


def test_both_gradients_are_compared_whichever_the_experiment_names(digits: Dataset) -> None:
    auto = replace(EXPERIMENT, train=replace(EXPERIMENT.train, gradient="auto"))
    np.testing.assert_array_equal(compare(auto, digits).drift, compare(EXPERIMENT, digits).drift)


def test_a_wrong_gradient_shows_in_the_leaf_that_it_spoils(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*args: object) -> tuple[jax.Array, jaxmlp.Params]:
        cost, (first, second) = jaxmlp.value_and_backprop(*args)
        return cost, (first, second._replace(bias=1.01 * second.bias))

    monkeypatch.setitem(epoch.GRADIENTS, "manual", faulty)
    jax.clear_caches()
    drift = compare(EXPERIMENT, digits).drift
    jax.clear_caches()
    np.testing.assert_allclose(drift[0, 3], 0.01, rtol=1e-3)
    assert drift[0, :3].max() < 1e-6


def test_the_times_are_as_many_after_few_epochs_and_leave_the_training_as_it_is(digits: Dataset) -> None:
    once = compare(replace(EXPERIMENT, train=replace(EXPERIMENT.train, epochs=1)), digits)
    more = compare(EXPERIMENT, digits)
    assert once.step_seconds.shape == more.step_seconds.shape == (TURNS, 2)
    assert (once.step_seconds > 0).all()
    assert once.epochs == more.epochs[:1]


def test_it_transfers_nothing_implicitly(digits: Dataset) -> None:
    with jax.transfer_guard("disallow"):
        compare(EXPERIMENT, digits)


def test_a_last_step_that_breaks_the_parameters_is_a_divergence(digits: Dataset) -> None:
    broken = replace(EXPERIMENT, optimizer=Optimizer(learning_rate=3e38), train=Train(epochs=1, batch_size=163))
    with pytest.raises(DivergedError, match="in epoch 1: parameters are not finite, or too large for their norms"):
        compare(broken, replace(digits, train=digits.train._replace(inputs=np.float32(1e3) * digits.train.inputs)))


def test_steps_that_are_skipped_do_not_end_a_comparison(digits: Dataset) -> None:
    inputs = digits.train.inputs.astype(np.float32) / np.float32(255)
    inputs[::50] = 1e30
    experiment = replace(
        EXPERIMENT,
        network=Network((20, 3), output="identity"),
        optimizer=Optimizer(learning_rate=0.01, nonfinite="skip"),
    )
    pairs = compare(experiment, replace(digits, train=digits.train._replace(inputs=inputs))).epochs
    assert np.isfinite([pair.train_loss for pair in pairs]).all()


def test_what_lies_apart_from_nothing_lies_apart_as_far_as_it_is_long() -> None:
    zero, one = jnp.zeros(2), jnp.ones(2)
    assert [float(distance(p, q)) for p, q in ((zero, zero), (one, zero), (zero, one))] == [0, 1, 1]
