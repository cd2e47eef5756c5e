import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import sklearn.datasets
import sklearn.linear_model

import jaxmlp
from jaxmlp import (
    Data,
    DataError,
    Dataset,
    DivergedError,
    Experiment,
    ExperimentError,
    Network,
    Optimizer,
    RunError,
    Schedule,
    Train,
)
from jaxmlp.training.epoch import initial_state
from jaxmlp.training.fit import divided

EXPERIMENT = Experiment(
    Network((20, 8, 3)),
    data=Data(validation=40),
    optimizer=Optimizer(learning_rate=2.0),
    train=Train(epochs=25, batch_size=16),
)


def shorter(**train: object) -> Experiment:
    return replace(EXPERIMENT, train=replace(EXPERIMENT.train, epochs=3, **train))


def test_a_network_learns_and_is_scored(digits: Dataset) -> None:
    run = jaxmlp.fit(EXPERIMENT, digits)
    assert run.result.test_accuracy >= 0.96
    assert [record.epoch for record in run.history] == list(range(1, 26))
    assert run.history[-1].train_loss < run.history[0].train_loss / 5
    assert (run.predict(digits.test.inputs) == digits.test.targets).mean() == run.result.test_accuracy
    assert run.result.validation_accuracy == run.history[-1].validation_accuracy


def test_training_transfers_nothing_implicitly(digits: Dataset) -> None:
    with jax.transfer_guard("disallow"):
        run = jaxmlp.fit(shorter(), digits)
        run.predict(digits.test.inputs)


@pytest.mark.parametrize("gradient", ["manual", "auto"])
def test_a_seed_gives_the_same_run_bit_for_bit_and_another_seed_another(digits: Dataset, gradient: str) -> None:
    a, b = (jaxmlp.fit(shorter(gradient=gradient, seed=7), digits) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    assert [r.train_loss for r in a.history] == [r.train_loss for r in b.history]
    c = jaxmlp.fit(shorter(gradient=gradient, seed=8), digits)
    assert (a.params[0].kernel != c.params[0].kernel).any()


def test_manual_and_automatic_gradients_give_the_same_curve(digits: Dataset) -> None:
    manual, auto = (jaxmlp.fit(shorter(gradient=gradient), digits) for gradient in ("manual", "auto"))
    np.testing.assert_allclose(
        [(r.train_loss, r.validation_loss) for r in manual.history],
        [(r.train_loss, r.validation_loss) for r in auto.history],
        rtol=1e-4,
    )


def test_the_seed_is_of_the_initial_parameters_too() -> None:
    first, other = (initial_state(shorter(seed=seed)).params for seed in (0, 1))
    assert (first[0].kernel != other[0].kernel).all()


def test_a_run_begins_with_what_init_draws_bit_for_bit() -> None:
    code = """
import jax, numpy, jaxmlp
from jaxmlp.training.epoch import initial_state
for initializer in ("scaled", "orthogonal", "glorot_uniform"):
    network = jaxmlp.Network((20, 8, 3), initializer=initializer)
    run, drawn = initial_state(jaxmlp.Experiment(network)).params, jaxmlp.init(jax.random.key(0), network)
    jax.tree.map(numpy.testing.assert_array_equal, run, drawn)
"""
    users = os.environ | {"XLA_FLAGS": ""}  # those of the tests change last bits
    subprocess.run([sys.executable, "-c", code], check=True, env=users)


def test_the_final_scores_are_of_the_test_set(digits: Dataset) -> None:
    test = digits.test._replace(targets=(digits.test.targets + 1) % 3)  # every label wrong
    run = jaxmlp.fit(EXPERIMENT, replace(digits, test=test))
    assert run.result.validation_accuracy > 0.95
    assert run.result.test_accuracy < 0.05


def test_times_are_of_training_alone_and_add_up(digits: Dataset) -> None:
    run = jaxmlp.fit(shorter(), digits)
    for record in run.history:
        assert record.images_per_second == 163 / record.seconds
    assert run.result.train_seconds == sum(record.seconds for record in run.history)
    assert run.result.wall_seconds > run.result.train_seconds


def test_labels_that_do_not_occur_are_classes_all_the_same() -> None:
    x, labels = np.eye(4), np.array([0, 1, 1, 0])
    experiment = Experiment(Network((4, 3)), Data(validation=0), train=Train(epochs=1))
    run = jaxmlp.fit(experiment, Dataset.from_arrays(x, labels, x, labels, classes=3))
    assert run.probabilities(x).shape == (4, 3)


def test_the_test_set_leaves_no_mark_on_training(digits: Dataset) -> None:
    shuffled = replace(digits, test=digits.test._replace(targets=digits.test.targets[::-1].copy()))
    a, b = jaxmlp.fit(shorter(), digits), jaxmlp.fit(shorter(), shuffled)
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    assert [r.validation_loss for r in a.history] == [r.validation_loss for r in b.history]


def test_without_a_validation_split_all_examples_are_trained_on(digits: Dataset) -> None:
    run = jaxmlp.fit(replace(shorter(), data=Data(validation=0)), digits)
    assert run.history[-1].validation_loss is run.history[-1].validation_accuracy is None
    assert run.result.test_accuracy is not None


def test_a_batch_larger_than_the_data_is_the_full_set(digits: Dataset) -> None:
    a, b = jaxmlp.fit(shorter(batch_size=163), digits), jaxmlp.fit(shorter(batch_size=10**6), digits)
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


def test_of_labels_that_count_from_1_it_is_said(digits: Dataset) -> None:
    train, test = (part._replace(targets=part.targets + 1) for part in (digits.train, digits.test))
    from_1 = Dataset.from_arrays(*train, *test)
    with pytest.raises(ExperimentError, match="expected 4 as the last size; labels count from 0, but none is 0"):
        jaxmlp.fit(EXPERIMENT, from_1)


@pytest.mark.usefixtures("unchecked")
def test_arrays_in_place_of_a_dataset_are_refused(digits: Dataset) -> None:
    arrays: Any = (*digits.train, *digits.test)
    for function in (jaxmlp.fit, jaxmlp.compare, jaxmlp.check_experiment):
        with pytest.raises(DataError, match="dataset is a tuple: expected what Dataset.from_arrays or load_data gives"):
            function(EXPERIMENT, arrays)


@pytest.mark.parametrize("what", ["outputs", "predict"])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("number", [np.nan, np.inf, 1e300])
def test_inputs_that_are_not_finite_have_no_outputs(
    what: str, standardize: bool, number: float, digits: Dataset
) -> None:
    data = Data(validation=40, standardize=standardize)
    run = jaxmlp.fit(replace(EXPERIMENT, data=data, train=Train(epochs=1)), digits)
    inputs = np.zeros((3, 20))
    inputs[1, 7] = number
    with pytest.raises(RunError, match=r"inputs\[1\] has a number that is not finite in float32 \(1 such of 3\)"):
        getattr(run, what)(inputs)


def test_linear_regression_finds_the_line() -> None:
    x = np.random.default_rng(0).normal(size=(300, 2))
    y = x @ np.array([2.0, -1.0]) + 0.5
    experiment = Experiment(
        Network((2, 1), output="identity"), Data(validation=50), Optimizer(learning_rate=0.1), Train(epochs=10)
    )
    run = jaxmlp.fit(experiment, Dataset.from_arrays(x[:200], y[:200], x[200:], y[200:]))
    np.testing.assert_allclose(run.params[0].kernel[:, 0], [2, -1], atol=1e-3)
    np.testing.assert_allclose(run.params[0].bias, [0.5], atol=1e-3)
    assert run.result.test_accuracy is run.history[0].validation_accuracy is None
    assert run.result.test_loss < 1e-5


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize(
    ("sizes", "output", "loss"),
    [
        ((2, 2), "sigmoid", "squared_error"),
        ((2, 1), "sigmoid", "binary_cross_entropy"),
        ((2, 2), "softmax", "cross_entropy"),
        ((2, 4, 1), "sigmoid", "huber"),
    ],
)
def test_two_classes_take_one_output_or_two(sizes: tuple[int, ...], output: str, loss: str) -> None:
    x = np.random.default_rng(0).normal(size=(300, 2))
    labels = (x.sum(axis=1) > 0).astype(int)
    experiment = Experiment(Network(sizes, "tanh", output, loss), Data(validation=0), Optimizer("adam", 0.05))
    run = jaxmlp.fit(experiment, Dataset.from_arrays(x, labels, x, labels))
    assert run.result.test_accuracy > 0.95
    probabilities = run.probabilities(x)
    assert probabilities.shape == (300, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), run.predict(x))


def test_divergence_ends_the_run_with_the_epoch_and_the_rate(digits: Dataset) -> None:
    wild = replace(EXPERIMENT, network=Network((20, 8, 3), "relu", "identity"), optimizer=Optimizer(learning_rate=1e6))
    with pytest.raises(
        DivergedError, match=r"in epoch 1, at step \d+ of 11: .*smaller optimizer.learning_rate than 1e\+06"
    ):
        jaxmlp.fit(wild, digits)


def test_a_regression_has_outputs_and_neither_labels_nor_probabilities() -> None:
    x, y = np.ones((4, 2)), np.linspace(0, 1, 4)
    experiment = Experiment(Network((2, 1)), Data(validation=0), train=Train(epochs=1))
    run = jaxmlp.fit(experiment, Dataset.from_arrays(x, y, x, y))
    assert run.outputs(x).shape == (4, 1)
    with pytest.raises(RunError, match=r"the run is a regression.*expected outputs\(\), not predict\(\)"):
        run.predict(x)
    with pytest.raises(RunError, match="the targets were no labels"):
        run.probabilities(x)


def test_only_so_many_examples_are_trained_on_as_data_examples_says(digits: Dataset) -> None:
    few = replace(EXPERIMENT, data=Data(validation=40, examples=30))
    data = divided(few, digits)
    assert (data.dataset.train.size, data.held_out.size, data.dataset.test.size) == (30, 40, 50)
    np.testing.assert_array_equal(data.dataset.train.inputs, digits.train.inputs[data.indices])
    np.testing.assert_array_equal(data.held_out.inputs, divided(EXPERIMENT, digits).held_out.inputs)
    alone = replace(digits, train=data.dataset.train)
    run, same = jaxmlp.fit(few, digits), jaxmlp.fit(replace(EXPERIMENT, data=Data(validation=0)), alone)
    jax.tree.map(np.testing.assert_array_equal, run.params, same.params)


def test_more_examples_than_are_left_are_refused(digits: Dataset) -> None:
    data = Data(validation=40, examples=164)
    with pytest.raises(
        ExperimentError, match=r"examples is 164, but digits has 203 .* holds out 40: expected 163 or f"
    ):
        jaxmlp.fit(replace(EXPERIMENT, data=data), digits)


@pytest.mark.parametrize("validation", [203, 5000])
def test_a_split_that_leaves_nothing_to_train_on_is_refused(validation: int, digits: Dataset) -> None:
    with pytest.raises(ExperimentError, match=rf"data.validation is {validation:,}, but digits has 203 training exam"):
        jaxmlp.fit(replace(EXPERIMENT, data=Data(validation=validation)), digits)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((19, 3), "network.sizes is 19 3: 19 inputs, but an example of digits has 20 features: expected 20"),
        ((20, 4), "network.sizes is 20 4: 4 outputs, but digits has labels of 3 classes: expected 3 as the last"),
        ((20, 2), "labels of 3 classes: expected 3"),
        ((20, 1), "labels of 3 classes: expected 3 as the last size; targets of a floating type, such as float32, are"),
    ],
)
def test_sizes_that_do_not_fit_the_data_are_refused(sizes: tuple[int, ...], message: str, digits: Dataset) -> None:
    with pytest.raises(ExperimentError, match=message):
        jaxmlp.fit(replace(EXPERIMENT, network=Network(sizes)), digits)


STANDARDISED = replace(EXPERIMENT, data=Data(validation=40, standardize=True), train=Train(epochs=2, batch_size=16))


@pytest.mark.parametrize(
    ("network", "targets", "message"),
    [
        (Network((20, 1), loss="binary_cross_entropy"), [25.0, 346.0], "go from 25 to 346: expected 0 to 1; for other"),
        (Network((20, 1), loss="binary_cross_entropy"), [0.5, 1.001], "go from 0.5 to 1.001: expected 0 to 1; for"),
        (Network((20, 1), loss="binary_cross_entropy"), [0.5, -0.5], "go from -0.5 to 0.5: expected 0 to 1; for other"),
        (
            Network((20, 2), output="softmax", loss="cross_entropy"),
            [[0.5, 0.5], [2.0, -1.0]],
            "network.loss is 'cross_entropy', but the targets of arrays go from -1 to 2: expected 0 or more; for other",
        ),
    ],
)
def test_targets_whose_loss_has_no_lower_bound_are_refused(network: Network, targets: list, message: str) -> None:
    x, y = np.zeros((2, 20), np.float32), np.float32(targets)
    for train, test in ((y, y[:1]), (y[:1], y)):
        data = Dataset.from_arrays(x[: len(train)], train, x[: len(test)], test)
        with pytest.raises(ExperimentError, match=message):
            jaxmlp.fit(Experiment(network, Data(validation=0)), data)


def test_probabilities_are_targets_of_the_cross_entropies() -> None:
    x, y = np.zeros((2, 20), np.float32), np.float32([[0.0, 1.0000001], [0.3, 0.7]])
    for output, loss in (("softmax", "cross_entropy"), ("sigmoid", "binary_cross_entropy")):
        network = Network((20, 2), output=output, loss=loss)
        experiment = Experiment(network, Data(validation=0), train=Train(epochs=1))
        assert jaxmlp.fit(experiment, Dataset.from_arrays(x, y, x, y)).result.test_loss > 0


@pytest.mark.parametrize("epochs", [1.0, 2.0])
def test_a_warm_up_that_does_not_end_is_refused(epochs: float, digits: Dataset) -> None:
    experiment = replace(EXPERIMENT, schedule=Schedule(warmup=epochs), train=Train(epochs=1))
    with pytest.raises(ExperimentError, match=rf"schedule.warmup is {epochs:g} epochs, but train.epochs is 1: expec"):
        jaxmlp.fit(experiment, digits)


def test_numbers_that_hardly_are_grey_levels_are_said(caplog: pytest.LogCaptureFixture) -> None:
    counts, labels = np.full((5, 8, 8), 16, np.uint8), np.arange(5)
    experiment = Experiment(Network((64, 5)), Data(validation=0))
    with caplog.at_level(logging.WARNING, "jaxmlp"):
        for inputs in (4 * counts, np.float32(counts)):
            divided(experiment, Dataset.from_arrays(inputs, labels, inputs, labels))
        dark = Dataset.from_arrays(counts, labels, counts, labels, name="counts")
        divided(replace(experiment, data=Data(validation=0, standardize=True)), dark)
        assert not caplog.messages
        divided(experiment, dark)
    assert caplog.messages[0].startswith("jaxmlp: counts: inputs of uint8 count as grey levels, 255 as 1, but none is")


def test_one_hot_rows_are_said_to_be_no_labels(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 4)), rng.integers(0, 3, 40)
    rows = np.eye(3)[labels]
    network = Network((4, 3), output="softmax", loss="cross_entropy")
    experiment = Experiment(network, Data(validation=0), train=Train(epochs=1))
    for targets in (labels, 0.9 * rows + 0.1 / 3, rows[:, :1] @ np.ones((1, 3)) / 3):
        jaxmlp.fit(experiment, Dataset.from_arrays(x, targets, x, targets))
    assert not caplog.messages
    for targets in (rows, rows.astype(np.int64)):
        run = jaxmlp.fit(experiment, Dataset.from_arrays(x, targets, x, targets))
        assert run.result.test_accuracy is None
    assert ["a row with a single 1" in message for message in caplog.messages] == [True, True]
    caplog.clear()
    encoder, eye = replace(experiment, network=Network((8, 3, 8))), np.eye(8)
    jaxmlp.fit(encoder, Dataset.from_arrays(eye, eye, eye, eye))
    assert not caplog.messages


def test_targets_that_no_output_reaches_are_said(caplog: pytest.LogCaptureFixture) -> None:
    x, y = np.zeros((2, 20), np.float32), np.float32([25, 346])
    with caplog.at_level(logging.WARNING, "jaxmlp"):
        for output, targets in (("identity", y), ("sigmoid", y / 346), ("tanh", y / 346 - 1)):
            experiment = Experiment(Network((20, 1), output=output), Data(validation=0))
            divided(experiment, Dataset.from_arrays(x, targets, x, targets))
        assert not caplog.messages
        divided(Experiment(Network((20, 1)), Data(validation=0)), Dataset.from_arrays(x, y, x, y))
    (said,) = caplog.messages
    assert "targets go from 25 to 346, but outputs of sigmoid only from 0 to 1: network.output identity" in said


def test_labels_beyond_the_outputs_name_the_outputs(tmp_path: Path) -> None:
    x, y = np.zeros((2, 20), np.float32), np.array([0, 7])
    np.savez(tmp_path / "some.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    experiment = Experiment(Network((20, 3)), Data(f"npz:{tmp_path / 'some.npz'}", validation=0))
    with pytest.raises(DataError, match=r"label 7 at index 1 .* but wanted outputs; network.sizes ends with 3 outputs"):
        jaxmlp.fit(experiment)


def test_standardisation_is_of_the_examples_trained_on_alone(digits: Dataset) -> None:
    data = divided(STANDARDISED, digits)
    train = digits.train.inputs[data.indices].astype(np.float64)
    np.testing.assert_allclose(data.scale.mean, train.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(data.scale.deviation, train.std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(data.dataset.train.inputs.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(data.dataset.train.inputs.std(axis=0), 1, rtol=1e-5)
    held_out = np.setdiff1d(np.arange(203), data.indices)
    for inputs, raw in (
        (data.held_out.inputs, digits.train.inputs[held_out]),
        (data.dataset.test.inputs, digits.test.inputs),
    ):
        np.testing.assert_allclose(inputs, (raw - train.mean(axis=0)) / train.std(axis=0), rtol=1e-4, atol=1e-5)
    other = digits.train.inputs.copy()
    other[held_out] = 255 - other[held_out]
    changed = divided(STANDARDISED, replace(digits, train=digits.train._replace(inputs=other)))
    np.testing.assert_array_equal(changed.scale.mean, data.scale.mean)


def test_outputs_of_raw_inputs_are_the_networks_of_standardised_ones_also_after_loading(
    digits: Dataset, tmp_path: Path
) -> None:
    run = jaxmlp.fit(STANDARDISED, digits, workdir=tmp_path / "run")
    raw = digits.test.inputs
    scaled = (raw.astype(np.float32) - run.scale.mean) / run.scale.deviation
    expected = jaxmlp.forward(run.params, jax.numpy.asarray(scaled), STANDARDISED.network)
    np.testing.assert_allclose(run.outputs(raw), expected, rtol=1e-5)
    assert (run.predict(raw) == digits.test.targets).mean() == run.result.test_accuracy
    loaded = jaxmlp.load(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, loaded.scale, run.scale)
    np.testing.assert_array_equal(loaded.outputs(raw), run.outputs(raw))
    np.testing.assert_array_equal(loaded.outputs(raw.astype(np.float64)), run.outputs(raw))  # of any type
    np.testing.assert_array_equal(loaded.outputs(raw.reshape(-1, 5, 4)), run.outputs(raw))


@pytest.mark.usefixtures("optax_promotes")
def test_a_constant_feature_does_no_harm() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(1000, 1e-3, size=(200, 3)).astype(np.float32)
    x[:, 1] = 0.1
    labels = (x[:, 0] > 1000).astype(int)
    experiment = Experiment(
        Network((3, 1), loss="binary_cross_entropy"), Data(validation=0, standardize=True), Optimizer("adam", 0.1)
    )
    run = jaxmlp.fit(experiment, Dataset.from_arrays(x, labels, x, labels))
    assert run.scale.deviation[1] == 1
    assert run.result.test_accuracy > 0.97


def tabular(name: str) -> Dataset:
    """A set that comes with scikit-learn, a third of it to test on."""
    x, y = getattr(sklearn.datasets, name)(return_X_y=True, **{"scaled": False} if name == "load_diabetes" else {})
    order = np.random.default_rng(0).permutation(len(x))
    test, train = order[: len(x) // 3], order[len(x) // 3 :]
    return Dataset.from_arrays(x[train], y[train], x[test], y[test], name=name)


@pytest.mark.usefixtures("optax_promotes")
def test_wine_is_told_apart_only_where_its_features_are_brought_to_one_scale() -> None:
    network = Network((13, 16, 3), "tanh", "softmax", "cross_entropy")
    experiment = Experiment(network, Data(validation=0, standardize=True), Optimizer("adam", 0.01), Train(epochs=30))
    wine = tabular("load_wine")
    assert jaxmlp.fit(experiment, wine).result.test_accuracy >= 0.95
    assert jaxmlp.fit(replace(experiment, data=Data(validation=0)), wine).result.test_accuracy < 0.9


@pytest.mark.usefixtures("optax_promotes")
def test_diabetes_is_predicted_about_as_well_as_by_least_squares() -> None:
    dataset = tabular("load_diabetes")
    y = dataset.train.targets
    mean, deviation = y.mean(), y.std()
    dataset = replace(
        dataset,
        train=dataset.train._replace(targets=(y - mean) / deviation),
        test=dataset.test._replace(targets=(dataset.test.targets - mean) / deviation),
    )
    network = Network((10, 16, 1), "tanh", "identity", l2=0.02)
    experiment = Experiment(network, Data(validation=0, standardize=True), Optimizer("adam", 0.01), Train(epochs=30))
    run = jaxmlp.fit(experiment, dataset)
    line = sklearn.linear_model.LinearRegression().fit(dataset.train.inputs, dataset.train.targets)
    least_squares = ((line.predict(dataset.test.inputs) - dataset.test.targets) ** 2).mean()
    assert run.result.test_loss < 1.1 * least_squares < 0.75  # of a variance of about 1
