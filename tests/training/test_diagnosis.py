from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jaxmlp
from jaxmlp import Data, Dataset, DivergedError, Experiment, Network, Optimizer, Record, RunError, Train
from jaxmlp.training.config import Schedule
from jaxmlp.training.diagnosis import ADVISED, Figures, chance, findings, rates, read_figures, unjudged

pytestmark = pytest.mark.own_precision  # training is in float32

LESSON = Network((784, 16, 16, 10))
RECORD = Record(tuple(ADVISED.split()))


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    whole = jaxmlp.load_data("mnist")
    return replace(whole, train=whole.train.take(slice(12_000)), test=whole.test.take(slice(100)))


def figures_of(dataset: Dataset, folder: Path, network: Network, rate: float, batch: int, epochs: int) -> Figures:
    experiment = Experiment(network, Data(validation=1000), Optimizer("sgd", rate), Train(epochs, batch), RECORD)
    jaxmlp.fit(experiment, dataset, workdir=folder / "run")
    return read_figures(folder / "run", dataset)


def unscaled(dataset: Dataset) -> Dataset:
    train, test = dataset.train, dataset.test
    return Dataset.from_arrays(
        train.inputs.astype(np.float32), train.targets, test.inputs.astype(np.float32), test.targets
    )


DEEP = Network((784, *[16] * 6, 10), "sigmoid", "softmax", "cross_entropy")


@pytest.mark.parametrize(
    ("expected", "network", "rate", "batch", "epochs"),
    [
        (set(), LESSON, 0.7, 32, 6),
        ({"rate too high"}, LESSON, 21.0, 32, 4),
        ({"rate too low"}, LESSON, 0.7 / 30, 32, 4),
        ({"rate too low", "batch"}, LESSON, 0.7, 8192, 12),
        ({"layer"}, DEEP, 0.1, 32, 3),
        ({"rate too high"}, Network((784, 32, 32, 32, 32, 10)), 30.0, 32, 3),
    ],
)
def test_a_sick_run_is_named_and_a_healthy_one_is_not(
    expected: set[str], network: Network, rate: float, batch: int, epochs: int, mnist: Dataset, tmp_path: Path
) -> None:
    said = findings(figures_of(mnist, tmp_path, network, rate, batch, epochs))
    assert {*said} == expected, said
    assert all("\n" not in line for line in said.values())


def test_a_warm_ups_first_step_which_updates_nothing_leaves_no_layer_behind(mnist: Dataset, tmp_path: Path) -> None:
    schedule, train = Schedule(warmup=1.0), Train(3, 32)
    experiment = Experiment(DEEP, Data(validation=1000), Optimizer("sgd", 0.1), train, RECORD, schedule=schedule)
    jaxmlp.fit(experiment, mnist, workdir=tmp_path / "run")
    assert {*findings(read_figures(tmp_path / "run", mnist))} == {"layer"}


def test_of_layers_left_behind_one_that_was_so_from_the_first_update_is_named(digits: Dataset, tmp_path: Path) -> None:
    figures = run_on(tmp_path, digits, Network((20, 64, 64, 3)), Optimizer("sgd", 10.0), 3)
    ratios = np.tile(np.float32([9e-4, 8e-4, 1]), (figures.steps, 1))
    first = np.vstack([np.float32([1e-5, 2e-2, 1]), ratios[1:]])
    recordings = tuple({"update_ratio": each} for each in (first, ratios, ratios))
    said = findings(replace(figures, recordings=recordings))
    assert {*said} == {"layer"}
    assert said["layer"].startswith(
        "layer 1 hardly learns: a step changes it by 9.0e-04 of its norm, layer 3 by 1.0e+00"
    )


def test_units_dead_from_the_start_are_laid_to_no_step(digits: Dataset, tmp_path: Path) -> None:
    positive = [part._replace(inputs=abs(part.inputs) + 1) for part in (digits.train, digits.test)]
    network = Network((20, 40, 3), "relu", "softmax", "cross_entropy")
    experiment = Experiment(network, Data(validation=0), Optimizer("sgd", 0.0), Train(2, 32), RECORD)
    dataset = replace(digits, train=positive[0], test=positive[1])
    jaxmlp.fit(experiment, dataset, workdir=tmp_path / "run")
    figures = read_figures(tmp_path / "run", dataset)
    assert figures.per_epoch("dead_units")[-1].max() > 0.1
    said = findings(figures)
    assert not any("pass nothing back" in line for line in said.values())
    assert not any("too high" in line for line in said.values())


def test_units_that_long_steps_saturate_are_named_and_not_the_labels(mnist: Dataset, tmp_path: Path) -> None:
    network = Network((784, 40, 10), "sigmoid", "sigmoid", "binary_cross_entropy")
    said = findings(figures_of(mnist, tmp_path, network, 6.0, 20, 4))
    assert {*said} == {"units"}, said
    assert said["units"].endswith("% pass nothing back on a whole batch; learning rate too high? (6)")


def test_saturated_units_are_named_with_their_layer(mnist: Dataset, tmp_path: Path) -> None:
    said = findings(figures_of(unscaled(mnist), tmp_path, Network((784, 30, 16, 10)), 0.7, 32, 2))
    assert {*said} == {"layer"}
    assert said["layer"].startswith("hidden layer 1 is saturated: 9")


def test_changed_labels_rank_highest_and_are_said(mnist: Dataset, tmp_path: Path) -> None:
    rng, labels = np.random.default_rng(0), mnist.train.targets.copy()
    which = rng.choice(12_000, 120, replace=False)
    labels[which] = (labels[which] + rng.integers(1, 10, 120)) % 10
    changed = replace(mnist, train=mnist.train._replace(targets=labels))
    network = Network((784, 32, 10), "sigmoid", "softmax", "cross_entropy")
    figures = figures_of(changed, tmp_path, network, 0.5, 32, 8)
    first = figures.indices[figures.ranking[: round(0.02 * len(figures.indices))]]
    trained = np.isin(which, figures.indices)
    assert np.isin(which[trained], first).mean() >= 0.8
    np.testing.assert_array_equal(labels[figures.indices], figures.examples.targets)
    said = findings(figures)
    assert {*said} == {"labels"}
    suspect = figures.suspects[0]
    assert f"first example {suspect.index} with label {suspect.label}" in said["labels"]
    assert (suspect.index in which) or mnist.train.targets[suspect.index] == suspect.label


@pytest.fixture
def small(digits: Dataset, tmp_path: Path) -> Any:
    """Makes a run of the small digits that records the named quantities."""

    def make(*quantities: Any) -> Path:
        experiment = Experiment(Network((20, 8, 3)), Data(validation=40), train=Train(2, 16), record=Record(quantities))
        jaxmlp.fit(experiment, digits, workdir=tmp_path / "run")
        return tmp_path / "run"

    return make


@pytest.mark.parametrize("quantity", ADVISED.split())
def test_rules_are_silent_about_what_was_not_recorded(quantity: str, small: Any, digits: Dataset) -> None:
    findings(read_figures(small(quantity), digits))


def test_a_run_that_recorded_nothing_is_refused_with_what_to_record(small: Any, digits: Dataset) -> None:
    with pytest.raises(RunError, match="recorded nothing: expected one trained with --record.quantities noise_s"):
        read_figures(small(), digits)


def test_missing_and_damaged_recordings_are_named(small: Any, digits: Dataset) -> None:
    file = small("loss", "example_norms") / "recorded" / "2.npz"
    whole = file.read_bytes()
    flags = whole.index(b"PK\x01\x02") + 8  # that it is encrypted
    for content in (b"", whole[:100], whole[:flags] + b"\1" + whole[flags + 1 :]):
        file.write_bytes(content)
        with pytest.raises(RunError, match=r"2.npz: can't be read as what epoch 2 recorded"):
            read_figures(file.parents[1], digits)
    file.unlink()
    with pytest.raises(RunError, match=r"2.npz: no such file"):
        read_figures(file.parents[1], digits)


def test_a_data_set_of_another_size_is_refused(small: Any, digits: Dataset) -> None:
    with pytest.raises(RunError, match="training examples, but digits leaves 60"):
        read_figures(small("example_norms"), replace(digits, train=digits.train.take(slice(100))))


def test_a_data_set_of_the_same_size_that_is_another_is_refused(small: Any, digits: Dataset) -> None:
    folder = small("example_norms")
    for order in (slice(None, None, -1), np.zeros(digits.train.size, np.int32)):
        with pytest.raises(RunError, match="trained on another data set than digits, whose checksum is ........ and"):
            read_figures(folder, replace(digits, train=digits.train.take(order)))


def run_on(
    folder: Path, dataset: Dataset, network: Network, optimizer: Optimizer, epochs: int, batch: int = 16
) -> Figures:
    experiment = Experiment(network, Data(validation=0), optimizer, Train(epochs, batch), RECORD)
    jaxmlp.fit(experiment, dataset, workdir=folder / "run")
    return read_figures(folder / "run", dataset)


def findings_of(*run: Any, **settings: Any) -> dict[str, str]:
    return findings(run_on(*run, **settings))


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize("optimizer", [Optimizer("adam", 1e-7), Optimizer("sgd", 0.0)])
def test_a_rate_far_too_low_is_not_called_too_high(optimizer: Optimizer, digits: Dataset, tmp_path: Path) -> None:
    said = findings_of(tmp_path, digits, Network((20, 8, 3), "tanh", "softmax", "cross_entropy"), optimizer, 3)
    assert "rate too high" not in said
    assert "batch" not in said
    assert "learning rate too low" in said["nothing learned"]


@pytest.mark.parametrize("rate", [10.0, 300.0])
def test_a_rate_that_saturates_the_outputs_is_not_called_too_low(rate: float, digits: Dataset, tmp_path: Path) -> None:
    figures = run_on(tmp_path, digits, Network((20, 64, 64, 3)), Optimizer("sgd", rate), 3)
    assert {*findings(figures)} == {"rate too high"}
    little = [{"gradient_norm": recording["gradient_norm"]} for recording in figures.recordings]
    said = findings(replace(figures, recordings=tuple(little)))
    assert "learning rate too high" in said["nothing learned"]


def test_nothing_is_said_of_a_run_that_has_learned_all_there_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    inputs = rng.normal(size=(300, 2)) + 6 * labels[:, None] - 3
    blobs = Dataset.from_arrays(inputs.astype(np.float32), labels, inputs[:9].astype(np.float32), labels[:9])
    for name, network in {
        "one": Network((2, 8, 1), "tanh", "sigmoid", "squared_error"),
        "two": Network((2, 8, 2), "tanh", "softmax", "cross_entropy"),
    }.items():
        assert findings_of(tmp_path / name, blobs, network, Optimizer("sgd", 0.3), 20) == {}


@pytest.mark.usefixtures("optax_promotes")
def test_a_regression_that_learns_nothing_is_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype(np.float32)
    y = (x @ rng.normal(size=(5, 2))).astype(np.float32)
    linear = Dataset.from_arrays(x, y, x[:9], y[:9])
    said = findings_of(tmp_path, linear, Network((5, 16, 2), "relu", "identity"), Optimizer("adam", 1e-8), 3)
    assert {*said} == {"nothing learned"}, said


@pytest.mark.parametrize(
    ("labels", "network", "expected"),
    [
        ([0, 0, 1, 2], Network((4, 3), output="softmax", loss="cross_entropy"), 1.5 * np.log(2)),
        ([0, 0, 1, 1], Network((4, 2)), 0.5),
        ([0, 0, 1, 1], Network((4, 1)), 0.25),
        ([0, 0, 1, 1], Network((4, 2), output="sigmoid", loss="binary_cross_entropy"), 2 * np.log(2)),
        ([1, 1, 1, 1], Network((4, 2), output="softmax", loss="cross_entropy"), None),
        ([[1.0], [3.0], [1.0], [3.0]], Network((4, 1), output="identity"), 1.0),
        ([0, 0, 1, 1], Network((4, 2), output="identity", loss="huber"), None),
    ],
)
def test_the_cost_of_constant_outputs(labels: Any, network: Network, expected: float | None, tmp_path: Path) -> None:
    x = np.eye(4, dtype=np.float32)
    y = np.asarray(labels, np.float32 if isinstance(labels[0], list) else np.int32)
    dataset = Dataset.from_arrays(x, y, x, y if y.ndim > 1 else np.arange(4) % 2)
    experiment = Experiment(network, Data(validation=0), train=Train(1, 4), record=Record(("loss",)))
    jaxmlp.fit(experiment, dataset, workdir=tmp_path / "run")
    found = chance(read_figures(tmp_path / "run", dataset))
    assert found is None if expected is None else found == pytest.approx(expected)


def test_a_recording_of_another_kind_or_shape_is_named(small: Any, digits: Dataset) -> None:
    file = small("loss", "noise_scale") / "recorded" / "2.npz"
    for noise in (np.zeros(4), np.array(["a", "b"]), np.float64(1)):
        np.savez(file, loss=np.zeros(4, np.float32), noise_scale=noise)
        with pytest.raises(RunError, match=r"2.npz: can't be read as what epoch 2 recorded: "):
            read_figures(file.parents[1], digits)


def test_of_a_run_that_diverged_before_an_epoch_ended_it_is_said_why_there_is_nothing(
    digits: Dataset, tmp_path: Path
) -> None:
    network, steep = Network((20, 6, 3), "relu", "identity"), Optimizer("sgd", 1e20)
    for quantities, why in (
        ((), "recorded nothing"),
        (("loss",), r"no epoch has ended \(training diverged in epoch 1"),
    ):
        folder = tmp_path / str(len(quantities))
        with pytest.raises(DivergedError):
            jaxmlp.fit(
                Experiment(network, Data(validation=0), steep, record=Record(quantities)), digits, workdir=folder
            )
        with pytest.raises(RunError, match=why):
            read_figures(folder, digits)
        with pytest.raises(RunError, match="no checkpoint is whole: training diverged in epoch 1"):
            jaxmlp.load(folder)


def test_a_run_on_other_data_than_its_source_names_is_not_diagnosed_by_those(mnist: Dataset, tmp_path: Path) -> None:
    own = replace(mnist, name="own")
    for number, network in enumerate([LESSON, Network((784, 4, 11))]):
        dataset = own if number == 0 else replace(own, classes=11)
        experiment = Experiment(network, train=Train(1), record=Record(("example_losses",)))
        jaxmlp.fit(experiment, dataset, workdir=tmp_path / str(number))
        with pytest.raises(
            RunError, match="trained on own, which is not what data.source names, mnist: expected to be g"
        ):
            read_figures(tmp_path / str(number))
        assert read_figures(tmp_path / str(number), dataset).ranking.size


def test_what_was_not_recorded_is_said_to_be_unjudged(small: Any, digits: Dataset) -> None:
    folder = small("loss", "noise_scale", "gradient_norm", "update_ratio", "saturation", "dead_units")
    assert unjudged(read_figures(folder, digits)) == "not recorded, and so not judged by: example_losses"


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (Optimizer("sgd", 0.5), [0.5, 0.25]),
        (Optimizer("sgd", 0.5, (("momentum", 0.75), ("nesterov", 1.0))), [2.0, 1.0]),
        (Optimizer("sgd", 0.5, clip_norm=1.0), None),
        (Optimizer("adam", 0.5), None),
    ],
)
def test_the_fall_that_is_promised_is_by_the_rate_of_the_schedule_and_the_momentum(
    optimizer: Optimizer, expected: list[float] | None, small: Any, digits: Dataset
) -> None:
    figures = read_figures(small("noise_scale"), digits)
    experiment = replace(figures.run.experiment, optimizer=optimizer, schedule=Schedule("step", factor=0.5, every=1.0))
    found = rates(replace(figures, run=replace(figures.run, experiment=experiment)))
    assert (found if found is None else found.tolist()) == expected
