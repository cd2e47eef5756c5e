import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jaxmlp
from jaxmlp import (
    Checkpoint,
    Data,
    Dataset,
    Experiment,
    ExperimentError,
    Network,
    NetworkError,
    Optimizer,
    Privacy,
    Record,
    Train,
)
from jaxmlp.data.distortions import Distort
from jaxmlp.training.config import Schedule

pytestmark = pytest.mark.own_precision


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Data(validation=-1), "data.validation is -1: expected 0 or more"),
        (lambda: Optimizer(learning_rate=-0.5), "optimizer.learning_rate is -0.5: expected a finite number"),
        (lambda: Optimizer(learning_rate=float("nan")), "optimizer.learning_rate is nan"),
        (lambda: Optimizer(learning_rate=float("inf")), "optimizer.learning_rate is inf"),
        (
            lambda: Optimizer(name="sdg"),
            r"optimizer.name is 'sdg' \(did you mean sgd\?\): expected one of .*adam, .*sgd",
        ),
        (lambda: Train(epochs=0), "train.epochs is 0: expected 1 or more"),
        (lambda: Train(batch_size=0), "train.batch_size is 0"),
        (lambda: Train(seed=-1), "train.seed is -1: expected a number from 0"),
        (lambda: Train(seed=2**32), "train.seed is 4294967296"),
        (lambda: Train(epochs="3"), "train.epochs is '3': expected a whole number, 1 or more"),
        (lambda: Train(epochs=1.5), "train.epochs is 1.5"),
        (lambda: Train(seed=True), "train.seed is True"),
        (lambda: Optimizer(learning_rate="0.1"), "optimizer.learning_rate is '0.1'"),
        (lambda: Experiment(Network((4, 2)), optimizer="adam"), "optimizer is 'adam': expected a jaxmlp.Optimizer"),
        (lambda: Experiment(network=(4, 2)), r"network is \(4, 2\): expected a jaxmlp.Network"),
        (lambda: Optimizer(nonfinite="ignore"), "optimizer.nonfinite is 'ignore': expected stop or skip"),
        (lambda: Checkpoint(keep=0), "checkpoint.keep is 0: expected 1 or more"),
        (lambda: Checkpoint(seconds=-1.0), "checkpoint.seconds is -1.0: expected 0 or more seconds"),
        (lambda: Schedule("linear"), "schedule.name is 'linear': expected constant, cosine, exponential or step"),
        (lambda: Schedule(warmup=-1.0), "schedule.warmup is -1.0: expected a finite number of 0 or more"),
        (lambda: Schedule(factor=0.0), "schedule.factor is 0.0: expected a finite number above 0"),
        (lambda: Schedule(every=0), "schedule.every is 0.0: expected a finite number above 0"),
        (lambda: Schedule(end=float("nan")), "schedule.end is nan"),
        (lambda: Data(examples=0), "data.examples is 0: expected 1 or more examples, or None"),
        (lambda: Data(examples=2.5), "data.examples is 2.5: expected a whole number, 1 or more examples, or None"),
        (lambda: Data(standardize=1), "data.standardize is 1: expected True or False"),
        (lambda: Experiment(Network((4, 2)), schedule="cosine"), "schedule is 'cosine': expected a jaxmlp.Schedule"),
        (lambda: Train(gradient="magic"), "train.gradient is 'magic': expected manual or auto"),
        (lambda: Train(batch_size=32.0), "train.batch_size is 32.0: expected a whole number, 1 or more examples"),
        (lambda: Record("loss"), "record.quantities is 'loss': expected a tuple of names"),
        (lambda: Record(None), "record.quantities is None: expected a tuple of names"),
        (lambda: Experiment.from_dict([1]), "not an experiment's settings: .*unknown: 1"),
        (lambda: Optimizer(parameters=("momentum", 0.9)), r"expected pairs of .*, such as \(\('momentum', 0.9\),\)"),
        (
            lambda: Optimizer(parameters=(("momentum", 0.9), ("momentum", 0.8))),
            "optimizer.parameters is momentum 0.9 momentum 0.8: expected each name once",
        ),
        (
            lambda: Experiment.from_dict(Experiment(Network((4, 2))).as_dict() | {"trian": {}}),
            "not an experiment's settings: .*unknown: trian",
        ),
    ],
)
def test_a_setting_out_of_range_is_refused(make: object, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        make()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("function", [jaxmlp.fit, jaxmlp.compare, jaxmlp.check_experiment])
def test_what_is_no_experiment_is_said(function: Callable, digits: Dataset) -> None:
    for data in (digits, None):
        with pytest.raises(ExperimentError, match="experiment has type Network: expected a jaxmlp.Experiment"):
            function(Network((20, 3)), data)


@pytest.mark.usefixtures("unchecked")
def test_numpys_numbers_are_as_good_as_pythons() -> None:
    given = Experiment(
        Network((np.int64(4), np.int32(2))),
        optimizer=Optimizer("sgd", np.float32(0.5)),
        train=Train(epochs=np.int64(2)),
    )
    assert json.loads(json.dumps(given.as_dict()))["network"]["sizes"] == [4, 2]
    assert type(given.train.epochs) is int


def test_settings_survive_json() -> None:
    experiment = Experiment(
        Network(
            (4, 3, 2), "relu", dropout=0.1, input_dropout=0.2, l2=0.3, label_smoothing=0.4, initializer="normal:0.1"
        ),
        optimizer=Optimizer("adam", 0.01, (("b1", 0.8), ("nesterov", 1.0)), 0.1, 1.0, 2.0),
        schedule=Schedule("cosine", warmup=1.0),
        train=Train(seed=3),
        distort=Distort(shift=1.0),
    )
    assert Experiment.from_dict(json.loads(json.dumps(experiment.as_dict()))) == experiment


@pytest.mark.parametrize("settings", [{}, {"network": {"sizes": [4, 2]}}, {"network": {"size": [4, 2]}}])
def test_settings_of_something_else_are_refused(settings: dict) -> None:
    with pytest.raises(ExperimentError, match="not an experiment's settings"):
        Experiment.from_dict(settings)


def test_recordings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ExperimentError, match="record.quantities is loss loss: expected each once"):
        Record(("loss", "loss"))
    with pytest.raises(ExperimentError, match="record.every is 0: expected 1 or more steps"):
        Record(every=0)
    with pytest.raises(ExperimentError, match="read off the hand-derived pass: expected manual"):
        Experiment(Network((2, 2)), train=Train(gradient="auto"), record=Record(("loss",)))


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_quantity_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ExperimentError, match="record.quantities has 'los': expected some of loss, noise_scale, "):
        Record(("los",))


def test_settings_without_a_record_are_an_older_runs() -> None:
    experiment = Experiment(Network((2, 2)))
    settings = experiment.as_dict()
    del settings["record"]
    assert Experiment.from_dict(settings) == experiment


def test_a_private_run_does_not_standardise() -> None:
    with pytest.raises(ExperimentError, match=r"data.standardize is True, but privacy.epsilon is 2: expected False"):
        Experiment(Network((4, 2)), Data(standardize=True), privacy=Privacy(epsilon=2.0))


def test_a_private_run_records_nothing() -> None:
    with pytest.raises(ExperimentError, match=r"record.quantities is loss, but privacy.epsilon is 2: expected none"):
        Experiment(Network((4, 2)), record=Record(("loss",)), privacy=Privacy(epsilon=2.0))


VALID = json.loads(json.dumps(Experiment(Network((4, 3, 2)), record=Record(("loss",))).as_dict()))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
WORDS = st.sampled_from(
    ["relu", "softmax", "sgd", "mnist", "loss", "stop", "skip", "sizes", "record", "epsilon", "auto", "cosine", "muon"]
)
SIMPLE = SCALARS | WORDS
VALUES = SIMPLE | st.lists(SIMPLE, max_size=2) | st.dictionaries(WORDS, SIMPLE, max_size=2)


@pytest.mark.usefixtures("unchecked")
@settings(max_examples=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.sampled_from([*VALID, None]), st.integers(0, 4), VALUES), max_size=2), whole=VALUES)
def test_whatever_stands_in_a_config_is_an_experiment_or_a_documented_error(edits: Any, whole: Any) -> None:
    changed: Any = copy.deepcopy(VALID)
    for section, which, value in edits:
        if section is None:
            changed = whole
        elif isinstance(changed, dict) and isinstance(changed.get(section), dict) and which < len(changed[section]):
            changed[section][[*changed[section]][which]] = value
        elif isinstance(changed, dict):
            changed[section] = value
    try:
        experiment = Experiment.from_dict(changed)
    except (ExperimentError, NetworkError):
        return
    assert Experiment.from_dict(json.loads(json.dumps(experiment.as_dict(), allow_nan=False))) == experiment


def test_updates_are_stopped_at_or_skipped() -> None:
    with pytest.raises(ExperimentError, match="optimizer.nonfinite is 'skip', but the run records or is private"):
        Experiment(Network((4, 2)), optimizer=Optimizer(nonfinite="skip"), record=Record(("loss",)))
