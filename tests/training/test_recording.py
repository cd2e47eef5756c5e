import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmlp
from jaxmlp import Batch, Data, Dataset, Experiment, Network, Optimizer, Record, Train
from jaxmlp.data.dataset import Examples, on_device, split_indices
from jaxmlp.training.batches import order_of
from jaxmlp.training.config import QuantityName
from jaxmlp.training.epoch import Part, Recipe, TrainState, initial_state
from jaxmlp.training.instruments import OF_EXAMPLES
from jaxmlp.training.optimizers import make
from jaxmlp.training.recording import by_example, record_epoch, summary

QUANTITIES: tuple[QuantityName, ...] = get_args(QuantityName)
PLAIN = Experiment(
    Network((20, 8, 3)), Data(validation=42), Optimizer(learning_rate=2.0), Train(epochs=2, batch_size=16)
)
FULL = replace(PLAIN, record=Record(QUANTITIES))  # 161 examples, so that the last batch has a single one


def recordings(folder: Path) -> list[dict[str, np.ndarray]]:
    found = []
    for epoch in (1, 2):
        with np.load(folder / "recorded" / f"{epoch}.npz") as file:
            found.append(dict(file))
    return found


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "full"


@pytest.fixture
def run(full: Path, digits: Dataset) -> jaxmlp.Run:
    if not full.exists():
        with jax.transfer_guard("disallow"):
            jaxmlp.fit(FULL, digits, workdir=full)
    return jaxmlp.load(full)


def arguments(sizes: tuple[int, ...], batch: int) -> tuple[Any, ...]:
    """Of `record_epoch`, for 7 steps, and the recipe."""
    network, optimizer = Network(sizes), make(Optimizer("sgd", 0.5))
    params = jaxmlp.init(jax.random.key(0), network)
    examples = Examples(np.zeros((7 * batch, sizes[0]), np.uint8), np.zeros(7 * batch, np.int32))
    order = np.arange(7 * batch, dtype=np.int32).reshape(7, batch)
    state = TrainState(params, optimizer.init(params))
    return state, params, examples, order, Part.of(0, 7, 0, 0, 7 * batch), Recipe(network, optimizer)


def test_a_recorded_step_is_on_one_core_where_a_step_is_so_without_parts() -> None:
    for sizes, batch, one_core in (
        ((784, 16, 10), 32, True),
        ((784, 30, 10), 128, False),
        ((784, 100, 10), 128, False),
    ):
        *positional, recipe = arguments(sizes, batch)
        chosen = record_epoch.jitted(*positional, recipe=recipe, record=Record(("loss",)))
        assert chosen is (record_epoch.for_one_core if one_core else record_epoch.for_cpu)


@pytest.mark.own_precision
@pytest.mark.parametrize("name", QUANTITIES)
def test_no_quantity_copies_the_parameters(name: QuantityName) -> None:
    """Side by side, for one sum over all: XLA takes five times a gradient's time for that, where cores share it."""
    *positional, recipe = arguments((784, 64, 10), 32)
    program = record_epoch.for_cpu.lower(*positional, recipe=recipe, record=Record((name,))).as_text()
    joined = [int(n) for n in re.findall(r"stablehlo\.concatenate .*-> tensor<(\d+)x\w+>", program)]
    assert max(joined, default=0) < 784


@pytest.mark.own_precision
@pytest.mark.parametrize(
    ("name", "products"),  # of the network's two layers: of squares, or with the mean gradient
    [
        ("noise_scale", 0),
        ("norm_test", 0),
        ("inner_product_test", 2),
        ("orthogonality_test", 2),
        ("gsnr", 2),
        ("early_stopping", 2),
        ("example_cosines", 2),
        ("saturation", 0),
        ("dead_units", 0),
    ],
)
def test_no_quantity_computes_the_gradient_or_goes_forward_again(name: QuantityName, products: int) -> None:
    *positional, recipe = arguments((784, 16, 10), 32)
    plain, recorded = (
        record_epoch.for_cpu.lower(*positional, recipe=recipe, record=Record(names)).compile().as_text().count(" dot(")
        for names in (("loss",), ("loss", name))
    )
    assert recorded - plain == products


@pytest.mark.parametrize("every", [1, 3])
def test_all_that_a_step_records_is_written_at_once(every: int) -> None:
    *positional, recipe = arguments((784, 16, 10), 32)
    record = Record(QUANTITIES, every)
    program = record_epoch.for_cpu.lower(*positional, recipe=recipe, record=record).as_text()
    assert program.count("stablehlo.dynamic_update_slice") == 2  # that, and the step's cost


def test_what_is_recorded_is_what_a_plain_loop_finds(run: jaxmlp.Run, full: Path, digits: Dataset) -> None:
    dataset = replace(digits, train=digits.train.take(split_indices(203, 42, 0)[1]))
    start = params = jax.device_get(initial_state(PLAIN).params)
    examples = on_device(dataset.train)
    value_and_grad = jax.jit(jax.value_and_grad(jaxmlp.loss), static_argnums=2)
    for epoch, recording in enumerate(recordings(full), start=1):
        for s, row in enumerate(order_of(0, epoch, 161, 16)):
            real = row if s < 10 else row[:1]
            inputs = jnp.asarray(np.asarray(examples.inputs)[real], jnp.float32) / 255
            batch = Batch(inputs, jnp.asarray(np.asarray(examples.targets)[real]))
            cost, gradient = value_and_grad(params, batch, PLAIN.network)
            after = jax.tree.map(lambda p, g: p - 2 * g, params, gradient)
            np.testing.assert_allclose(recording["loss"][s], cost, rtol=1e-4)
            for l in range(2):
                g, b, a, o = (
                    np.concatenate([np.ravel(leaf) for leaf in t[l]]) for t in (gradient, params, after, start)
                )
                np.testing.assert_allclose(recording["gradient_norm"][s, l], np.linalg.norm(g), rtol=1e-3)
                np.testing.assert_allclose(recording["update_size"][s, l], np.linalg.norm(a - b), rtol=1e-3)
                np.testing.assert_allclose(recording["distance"][s, l], np.linalg.norm(a - o), rtol=1e-3)
            trace = jaxmlp.backpropagate(params, batch, PLAIN.network)
            np.testing.assert_allclose(recording["example_losses"][real], trace.losses, rtol=1e-3, atol=1e-6)
            norms = np.sqrt(jaxmlp.perexample.squared_norms(trace))
            np.testing.assert_allclose(recording["example_norms"][real], norms, rtol=1e-3, atol=1e-6)
            if s < 10:
                Sigma = jaxmlp.perexample.total_variance(trace)
                np.testing.assert_allclose(recording["noise_scale"][s, 0], Sigma, rtol=1e-3)
            params = after
    assert recording["loss"].shape == (11,)
    assert np.isnan(recording["noise_scale"][10]).all()


def test_recording_trains_the_same_parameters_to_rounding(run: jaxmlp.Run, digits: Dataset) -> None:
    plain = jaxmlp.fit(PLAIN, digits)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), run.params, plain.params)
    assert plain.history[0].recorded is None


@pytest.mark.parametrize("every", [3, 2**40])
def test_every_so_many_steps_are_those_of_every_step(every: int, run: jaxmlp.Run, full: Path, digits: Dataset) -> None:
    sparse = full.with_name(f"every-{every}")
    jaxmlp.fit(replace(FULL, record=Record(QUANTITIES, every)), digits, workdir=sparse)
    for epoch, (dense, few) in enumerate(zip(recordings(full), recordings(sparse), strict=True), start=1):
        met = np.zeros(161, bool)
        met[order_of(0, epoch, 161, 16)[::every].ravel()[: 161 if every == 3 else 16]] = True
        for name in QUANTITIES:
            if name in OF_EXAMPLES:
                assert (np.isfinite(few[name]) <= met).all()
                np.testing.assert_allclose(few[name][met], dense[name][met], rtol=1e-3, atol=1e-4)
            elif name != "gradient_histogram":
                np.testing.assert_allclose(few[name], dense[name][::every], rtol=2e-3, atol=1e-3, err_msg=name)


def test_a_run_that_records_is_whole_and_its_lines_hold_no_nan(run: jaxmlp.Run, full: Path) -> None:
    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    names = {"checkpoints", "config.json", "losses.f32", "metrics.jsonl", "recorded", "result.json"}
    names |= {"lock", "tensorboard"}
    assert {path.name for path in full.iterdir()} == names
    assert sorted(path.name for path in (full / "recorded").iterdir()) == ["1.npz", "2.npz"]
    lines = [json.loads(line, parse_constant=refuse) for line in (full / "metrics.jsonl").read_text().splitlines()]
    expected = {*QUANTITIES, "total_variance", "squared_gradient"}
    assert [{*line["recorded"]} for line in lines] == [expected, expected]
    assert [line["recorded"] for line in lines] == [line.recorded for line in run.history]
    assert run.experiment == FULL


def test_without_quantities_the_lines_are_as_they_were(digits: Dataset, tmp_path: Path) -> None:
    jaxmlp.fit(PLAIN, digits, workdir=tmp_path / "run")
    assert not (tmp_path / "run" / "recorded").exists()
    assert "recorded" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_the_noise_scale_is_a_ratio_of_means_and_none_where_noise_hides_the_gradient() -> None:
    parts = np.array([[2.0, 1.0], [4.0, -0.5], [np.nan, np.nan]])
    short = summary({"noise_scale": parts})
    assert short == {"total_variance": 3.0, "squared_gradient": 0.25, "noise_scale": 12.0}
    assert summary({"noise_scale": -parts})["noise_scale"] is None
    assert summary({"loss": np.full(3, np.nan)}) == {"loss": None}


def test_the_sums_of_a_histogram_are_exact() -> None:
    counts = np.float32([[[2**24, 3]], [[1, 0]], [[1, 1]]])
    assert summary({"gradient_histogram": counts}) == {"gradient_histogram": [[2**24 + 2, 4]]}


def test_values_of_a_batch_go_to_the_examples_that_it_was_of() -> None:
    order = np.array([[4, 1], [3, 0], [2, 0]])
    found: Any = {"example_norms": np.array([[40.0, 10.0], [20.0, 99.0]]), "loss": np.zeros(2)}
    ordered = by_example(found, order, 5, every=2)
    np.testing.assert_array_equal(ordered["example_norms"], [np.nan, 10, 20, np.nan, 40])
