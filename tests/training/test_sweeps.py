from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxmlp
from jaxmlp import Checkpoint, Data, Dataset, Experiment, ExperimentError, Network, Optimizer, StoppedError, Train
from jaxmlp.data.npz import load_npz
from jaxmlp.training.sweeps import Swept, names_of, overruled, set_by

BASE = Experiment(Network((20, 8, 3)), data=Data(validation=40), train=Train(epochs=2, batch_size=16))
pytestmark = pytest.mark.own_precision  # training is in float32


def seeds(base: Experiment, count: int) -> list[Experiment]:
    return [replace(base, train=replace(base.train, seed=seed)) for seed in range(count)]


@pytest.fixture
def base(digits: Dataset, tmp_path: Path) -> Experiment:
    """An experiment whose data lie in a file."""
    file = tmp_path / "digits.npz"
    train, test = digits.train, digits.test
    np.savez(file, x_train=train.inputs, y_train=train.targets, x_test=test.inputs, y_test=test.targets)
    return replace(BASE, data=replace(BASE.data, source=f"npz:{file}"))


def test_runs_are_named_after_what_tells_them_apart() -> None:
    rates = [replace(one, optimizer=Optimizer(learning_rate=rate)) for one in seeds(BASE, 2) for rate in (0.5, 1.0)]
    assert names_of(rates) == [f"learning_rate={rate},seed={seed}" for seed in (0, 1) for rate in ("0.5", "1")]
    sizes = [replace(BASE, network=Network(sizes)) for sizes in ((20, 3), (20, 8, 3))]
    assert names_of(sizes) == ["sizes=20-3", "sizes=20-8-3"]
    sources = [replace(BASE, data=Data(source)) for source in ("npz:a/b.npz", "mnist")]
    assert names_of(sources) == ["source=npz:a%2Fb.npz", "source=mnist"]
    rates = [replace(BASE, optimizer=Optimizer(parameters=(("momentum", m),))) for m in (0.5, 0.5000001)]
    assert names_of(rates) == ["parameters=momentum-0.5", "parameters=momentum-0.5000001"]
    assert names_of([BASE]) == ["run"]


@given(st.sets(st.tuples(st.integers(0, 99), st.floats(0.001, 9.0), st.sampled_from(["sgd", "adam"])), min_size=1))
def test_no_two_runs_have_one_name(settings: set[tuple[int, float, str]]) -> None:
    experiments = [
        replace(BASE, optimizer=Optimizer(name, rate), train=replace(BASE.train, seed=seed))
        for seed, rate, name in settings
    ]
    names = names_of(experiments)
    assert len({*names}) == len(names) == len(settings)
    assert not any("/" in name or " " in name for name in names)


def test_two_runs_of_the_same_settings_are_refused() -> None:
    other = replace(BASE, train=replace(BASE.train, seed=1))
    with pytest.raises(ExperimentError, match=r"experiments, \[0\] and \[2\] are the same: expected diff"):
        names_of([BASE, other, replace(BASE, checkpoint=Checkpoint(keep=1))])


def test_a_name_too_long_for_a_folder_is_refused() -> None:
    sources = [replace(BASE, data=Data(f"npz:{'x' * 300}{i}")) for i in range(2)]
    with pytest.raises(ExperimentError, match=r"named source=npz:x+\.\.\., of 312 char.* a folder in 250"):
        names_of(sources)


def test_settings_that_the_sweep_makes_nothing_of_are_named() -> None:
    asked = replace(BASE, train=replace(BASE.train, seed=7, epochs=1))
    given = ["train.seed", "train.epochs"]
    assert overruled(given, asked, BASE, lambda one: seeds(one, 2)) == ["train.seed"]
    assert overruled(given, asked, asked, lambda one: seeds(one, 2)) == []  # the file's own values, said once more
    # a sweep may make more of a field than its value
    assert overruled(["train.epochs"], asked, BASE, lambda one: seeds(BASE, one.train.epochs)) == []
    classes = replace(BASE, network=Network((20, 3), output="softmax", loss="cross_entropy"))
    assert overruled(["network.loss"], classes, BASE, lambda one: seeds(one, 2)) == []


def test_what_a_sweep_sets_is_where_its_runs_differ_from_what_it_was_given() -> None:
    assert set_by([replace(one, data=Data(validation=7)) for one in seeds(BASE, 2)], BASE) == [
        "data.validation",
        "train.seed",
    ]


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_list_of_experiments_is_refused() -> None:
    with pytest.raises(ExperimentError, match="experiments has type Experiment: expected a list of jaxmlp.Exp"):
        jaxmlp.sweep(BASE)
    with pytest.raises(ExperimentError, match=r"experiments\[1\] has type Network: expected a jaxmlp.Experiment"):
        jaxmlp.sweep([BASE, BASE.network])


def test_a_run_that_does_not_fit_its_data_is_refused_before_any_is_trained(base: Experiment) -> None:
    wrong = replace(base, data=replace(base.data, examples=164))
    started: list[int] = []
    with pytest.raises(ExperimentError, match=r"examples=164: data.examples is 164, but .* expected 163 or fewer"):
        jaxmlp.sweep([base, wrong], starting=lambda number, name: started.append(number))
    assert not started


def test_each_run_is_that_of_fit_and_is_kept_in_a_folder_of_its_own(base: Experiment, tmp_path: Path) -> None:
    ends: list[Swept] = []
    runs = jaxmlp.sweep(seeds(base, 3), workdir=tmp_path / "all", ended=ends.append)
    assert [(end.number, end.name, end.run) for end in ends] == [(i + 1, f"seed={i}", runs[i]) for i in range(3)]
    alone = jaxmlp.fit(seeds(base, 3)[2])
    for run in (runs[2], jaxmlp.load(tmp_path / "all" / "seed=2")):
        assert run.result.test_loss == alone.result.test_loss
        np.testing.assert_array_equal(run.params[0].kernel, alone.params[0].kernel)


def test_all_runs_may_be_of_a_data_set_that_is_given(digits: Dataset) -> None:
    base = replace(BASE, data=Data("npz:nowhere", validation=40))
    runs = jaxmlp.sweep(seeds(base, 2), digits)
    assert [run.result.test_loss for run in runs] == [
        jaxmlp.fit(one, digits).result.test_loss for one in seeds(base, 2)
    ]
    with pytest.raises(ExperimentError, match="seed=1: network.sizes is 21 3: 21 inputs, but an example of digits"):
        jaxmlp.sweep([base, replace(base, network=Network((21, 3)), train=Train(seed=1))], digits)


def test_a_sweep_goes_on_where_it_was_left_and_trains_nothing_twice(base: Experiment, tmp_path: Path) -> None:
    trained: list[int] = []
    with pytest.raises(StoppedError):
        jaxmlp.sweep(
            seeds(base, 3),
            workdir=tmp_path / "all",
            report=lambda record: trained.append(record.epoch),
            stop=lambda: len(trained) > 2,
        )
    assert trained == [1, 2, 1]
    runs = jaxmlp.sweep(seeds(base, 4), workdir=tmp_path / "all", report=lambda record: trained.append(record.epoch))
    assert trained == [1, 2, 1, 2, 1, 2, 1, 2]
    alone = jaxmlp.fit(seeds(base, 3)[1])
    assert [record.train_loss for record in runs[1].history] == [record.train_loss for record in alone.history]


def test_a_run_that_diverges_is_left_out_and_not_trained_again(base: Experiment, tmp_path: Path) -> None:
    wild = replace(base, optimizer=Optimizer(learning_rate=1e38), network=Network((20, 8, 3), output="identity"))
    ends: list[Swept] = []
    written: list[int] = []
    for _ in range(2):
        runs = jaxmlp.sweep((one for one in (wild, base)), workdir=tmp_path / "all", ended=ends.append)
        assert len(runs) == 1
        written.append((tmp_path / "all" / ends[0].name / "stopped.json").stat().st_mtime_ns)
    assert [end.run is None for end in ends] == [True, False] * 2
    assert "training diverged in epoch 1" in ends[0].failure
    assert (ends[2].failure, ends[3].failure) == (ends[0].failure, "")
    assert [end.seconds is None for end in ends] == [False, False, True, True]
    assert written[1] == written[0]  # training again would take it away, and write it anew


def test_data_are_read_once_for_all_runs(base: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    monkeypatch.setattr(
        "jaxmlp.data.sources.load_npz", lambda path, *more: (reads.append(str(path)), load_npz(path, *more))[1]
    )
    jaxmlp.sweep(seeds(base, 3))
    assert len(reads) == 1
