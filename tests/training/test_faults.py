"""What goes wrong while training: numbers that are not finite, disks that are full, memory that is not there."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxmlp
from jaxmlp import (
    Data,
    Dataset,
    DivergedError,
    Experiment,
    Network,
    Optimizer,
    OutOfMemoryError,
    Privacy,
    Record,
    RunError,
    Train,
)
from jaxmlp.data.dataset import split_indices
from jaxmlp.network import masks
from jaxmlp.training import fit as fitting
from jaxmlp.training.batches import order_of
from jaxmlp.training.epoch import Recipe, key_of

pytestmark = pytest.mark.own_precision  # training is in float32
EXPERIMENT = Experiment(
    Network((4, 3), output="identity"),
    Data(validation=6),
    Optimizer(learning_rate=0.01),
    Train(epochs=4, batch_size=8),
)


def dataset(bad: dict[int, float] | None = None) -> Dataset:
    """60 training examples, some of which have a number, finite but huge, in the place of an input.

    Its square is not finite, nor is the gradient of a squared error.
    """
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 3, 60)
    for i, value in (bad or {}).items():
        x[i, 2] = value
    return Dataset.from_arrays(x, y, rng.normal(size=(9, 4)), rng.integers(0, 3, 9))


def where(example: int, epoch: int, experiment: Experiment = EXPERIMENT) -> tuple[int, list[int]]:
    """The step, from 1, in which an epoch meets a training example, and its whole batch."""
    _, indices = split_indices(60, experiment.data.validation, experiment.train.seed)
    order = indices[order_of(experiment.train.seed, epoch, len(indices), 8).ravel()[: len(indices)]]
    place = order.tolist().index(example)
    first = 8 * (place // 8)
    return place // 8 + 1, order[first : first + 8].tolist()


TRAINED = split_indices(60, 6, 0)[1]


@pytest.mark.parametrize("gathers", [False, True])
@pytest.mark.parametrize("portion", [1, 64])
@pytest.mark.parametrize("gradient", ["manual", "auto"])
def test_the_step_the_leaf_and_the_batch_of_a_fault_are_named(
    gradient: str, portion: int, gathers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "FIRST_PORTION", portion)
    monkeypatch.setattr(Recipe, "gathers", lambda *args: gathers)
    example = int(TRAINED[17])
    step, batch = where(example, epoch=1)
    experiment = replace(EXPERIMENT, train=replace(EXPERIMENT.train, gradient=gradient))
    with pytest.raises(DivergedError) as caught:
        jaxmlp.fit(experiment, dataset({example: 1e30}))
    message = str(caught.value)
    assert f"training diverged in epoch 1, at step {step} of 7: the losses are not finite; its batch has" in message
    assert "the training examples " + " ".join(map(str, batch)) + "; a smaller optimizer.learning_rate" in message


@pytest.mark.parametrize("gradient", ["manual", "auto"])
def test_a_fault_is_found_where_it_was_met_also_with_dropout(gradient: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps that are trained again drop what they dropped: the huge input is met when it first isn't left out."""
    monkeypatch.setattr(fitting, "FIRST_PORTION", 3)
    example = int(TRAINED[17])
    experiment = replace(
        EXPERIMENT,
        network=replace(EXPERIMENT.network, input_dropout=0.7, label_smoothing=0.1, l2=0.01),
        train=replace(EXPERIMENT.train, gradient=gradient, epochs=30),
    )
    for epoch in range(1, 31):  # by the masks alone, without training
        step, batch = where(example, epoch)
        key = key_of(*jax.device_put((np.uint32(0), np.uint32(7 * (epoch - 1) + step - 1))))
        M = masks(jax.random.split(key)[0], jax.numpy.zeros((8, 4), np.float32), experiment.network)
        if M[0][batch.index(example), 2] > 0:
            break
    assert epoch > 1
    with pytest.raises(DivergedError) as caught:
        jaxmlp.fit(experiment, dataset({example: 1e30}))
    message = str(caught.value)
    assert f"training diverged in epoch {epoch}, at step {step} of 7: the losses are not finite; its" in message
    assert "the training examples " + " ".join(map(str, batch)) + "; a smaller optimizer.learning_rate" in message


@pytest.mark.parametrize(
    "kept", [{"record": Record(("loss",))}, {"privacy": Privacy(epsilon=8.0, delta=1e-3, clip=1e6)}]
)
def test_an_epoch_in_one_piece_that_ends_unsound_is_not_kept(kept: dict[str, Any], tmp_path: Path) -> None:
    optimizer, train = Optimizer(learning_rate=3e38), Train(epochs=1, batch_size=60)
    experiment = replace(EXPERIMENT, data=Data(validation=0), optimizer=optimizer, train=train, **kept)
    with pytest.raises(
        DivergedError, match="in epoch 1: a parameter, or what the optimizer keeps of it, is not finite"
    ):
        jaxmlp.fit(experiment, dataset({3: 1e15}), workdir=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_goes_bad_first_is_named_in_the_order_of_computation() -> None:
    identity = Network((4, 5, 3), "identity", "identity", "squared_error")
    network = jaxmlp.training.faults.first_fault
    params = jaxmlp.init(jax.random.key(0), identity)
    batch = jaxmlp.Batch(jax.numpy.ones((2, 4)), jax.numpy.array([0, 1]))
    experiment = Experiment(identity)
    huge = (params[0], params[1]._replace(kernel=params[1].kernel * 1e38 * 1e2))
    assert network(huge, batch, params, experiment) == "the weighted inputs by [1].kernel (layer 2) are"
    large = (params[0], params[1]._replace(bias=params[1].bias + 1e25))
    assert network(large, batch, params, experiment) == "the losses are"
    nan = (params[0], params[1]._replace(bias=params[1].bias + np.nan))
    assert network(params, batch, nan, experiment) == "after the update [1].bias (layer 2) are"
    assert network(params, batch, params, experiment) == "the loss is"


def test_a_fault_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    experiment = replace(EXPERIMENT, optimizer=Optimizer(learning_rate=30.0), train=Train(epochs=40, batch_size=8))
    with pytest.raises(DivergedError, match=r"in epoch \d+, at step \d of 7: .* not finite") as caught:
        jaxmlp.fit(experiment, dataset(), workdir=tmp_path / "run")
    assert "epoch 1," not in str(caught.value)
    assert not (tmp_path / "run" / "result.json").exists()
    run = jaxmlp.load(tmp_path / "run")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))
    with pytest.raises(DivergedError) as again:
        jaxmlp.fit(experiment, dataset(), workdir=tmp_path / "run", resume=True)
    assert str(again.value) == str(caught.value)


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_updates_that_are_not_finite_can_be_skipped_and_are_counted(name: str) -> None:
    bad = {int(TRAINED[17]): 1e30, int(TRAINED[30]): -1e30}
    steps = [{where(example, epoch)[0] for example in bad} for epoch in range(1, 5)]
    optimizer = Optimizer(name, learning_rate=0.01, nonfinite="skip")
    run = jaxmlp.fit(replace(EXPERIMENT, optimizer=optimizer), dataset(bad))
    assert [record.skipped for record in run.history] == [len(met) for met in steps]
    assert all(np.isfinite(record.train_loss) for record in run.history)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))


def test_a_run_in_which_nothing_is_skipped_is_the_same_as_one_that_would_stop() -> None:
    runs = [
        jaxmlp.fit(replace(EXPERIMENT, optimizer=replace(EXPERIMENT.optimizer, nonfinite=nonfinite)), dataset())
        for nonfinite in ("stop", "skip")
    ]
    assert [record.skipped for record in runs[1].history] == [0] * 4
    assert [record.skipped for record in runs[0].history] == [None] * 4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), runs[0].params, runs[1].params)


def test_a_folder_that_is_removed_meanwhile_is_a_clear_error(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(RunError, match="can't be written: No such file or directory"):
        jaxmlp.fit(EXPERIMENT, dataset(), workdir=run, report=lambda _: run.exists() and run.rename(tmp_path / "gone"))
    assert not run.exists()


COMMAND = "from jaxmlp.cli import command; command()"
SMALL = """
from jaxmlp import *
def experiment():
    return Experiment(Network((6, 5, 4)), Data("idx:data", validation=2), train=Train(epochs=100000, batch_size=2))
"""


@pytest.fixture
def full_disk(tmp_path: Path) -> list[str]:
    """Runs a shell command where `small` is a real file system of 1 MB; a copy of what it held stays as `was`."""
    script = 'mount -t tmpfs -o size=1m none small && "$@"; status=$?; cp -r small was; exit $status'
    (tmp_path / "small").mkdir()
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    if subprocess.run([*command, "true"], cwd=tmp_path, check=False, capture_output=True).returncode:
        pytest.skip("this machine allows no mounts")
    shutil.rmtree(tmp_path / "was")
    return command


def test_a_full_disk_is_one_clear_line_and_the_last_checkpoint_is_whole(
    full_disk: list[str], idx_folder: object, tmp_path: Path
) -> None:
    idx_folder()
    (tmp_path / "small.py").write_text(SMALL)
    train = [sys.executable, "-c", COMMAND, "train", "small.py", "--workdir", "small/run"]
    end = subprocess.run([*full_disk, *train], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert end.returncode == 2
    assert end.stderr.startswith("jaxmlp: small/run")
    assert end.stderr.count("\n") == 1, end.stderr
    assert "can't be written: No space left on device" in end.stderr
    run = jaxmlp.load(tmp_path / "was" / "run")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))
    for line in (tmp_path / "was" / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line)


@pytest.mark.parametrize("error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")])
def test_a_lack_of_memory_names_the_batch_size_to_try(error: Exception) -> None:
    with pytest.raises(OutOfMemoryError, match="training 4-3, .* in batches of 8: try train.batch_size 4"):  # noqa: SIM117
        with fitting.memory_for(EXPERIMENT):
            raise error
    with pytest.raises(jax.errors.JaxRuntimeError), fitting.memory_for(EXPERIMENT):
        raise jax.errors.JaxRuntimeError("INTERNAL: another")


@pytest.mark.parametrize("function", [jaxmlp.fit, jaxmlp.compare, jaxmlp.check_experiment])
def test_a_network_larger_than_the_machine_is_refused_before_anything_is_drawn(function: Any) -> None:
    giant = replace(EXPERIMENT, network=Network((4, 10**7, 10**7, 3), output="identity"))
    message = (
        r"has 100,000,090,000,003 parameters: training takes 1,200,001 GB or more, and this machine has [\d,]+: try"
    )
    with pytest.raises(OutOfMemoryError, match=message):
        function(giant, dataset())


def test_too_little_memory_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    x, y = np.zeros((20_000, 6), np.float32), np.arange(20_000) % 4
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)); " + COMMAND
    wide = ["--network.sizes", "6", "60000", "4", "--data.source", "npz:x.npz", "--train.batch-size", "20000"]
    end = subprocess.run(
        [sys.executable, "-c", code, "train", "small.py", *wide],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert end.returncode == 2, end.stderr
    assert end.stderr.startswith("jaxmlp: out of memory, training 6-60000-4")
    assert "in batches of 20000: try train.batch_size 10000 (RESOURCE_EXHAUSTED" in end.stderr
