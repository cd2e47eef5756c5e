import dataclasses
import itertools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import in_memory

import jaxmlp
from jaxmlp import Batch, Dataset, Network
from jaxmlp.data.dataset import Examples, on_device
from jaxmlp.data.distortions import Distort
from jaxmlp.products import ALIASED, BRIEF, LONG, SHORT, WIDE, turns
from jaxmlp.training import epoch
from jaxmlp.training.batches import Ordered, in_order, order_of
from jaxmlp.training.epoch import (
    BROAD,
    SEVERAL,
    Part,
    Recipe,
    Trained,
    TrainState,
    evaluate,
    flip,
    make_step,
    mean_loss,
    portions,
    score,
    train_epoch,
    train_steps,
)
from jaxmlp.training.program import CPU_OPTIONS

NETWORK = Network((20, 6, 3))


def start(network: Network, optimizer: optax.GradientTransformation, seed: int = 0) -> TrainState:
    params = jaxmlp.init(jax.random.key(seed), network, jnp.float32)
    return TrainState(params, optimizer.init(params))


def one_epoch(
    digits: Dataset, batch_size: int, *, gradient: str = "manual", **changes: Any
) -> tuple[TrainState, float]:
    """The state, and the mean loss."""
    network = changes.get("network", NETWORK)
    optimizer = changes.get("optimizer", SGD)
    order = jax.device_put(order_of(0, 1, digits.train.size, batch_size))
    state = start(network, optimizer)
    batches, recipe = in_order(on_device(digits.train), order), Recipe(network, optimizer, gradient)
    trained = train_epoch(state, batches, digits.train.size, recipe=recipe)
    assert bool(trained.sound)
    return trained.state, mean_loss(trained.losses, digits.train.size, batch_size)


SGD = optax.sgd(0.5)


def numpy_epoch(digits: Dataset, batch_size: int, rate: float) -> tuple[list[np.ndarray], float]:
    """The lesson, written out in NumPy and float64: each example alone, then the mean of their wishes."""
    params = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(start(NETWORK, SGD).params)]
    order = np.random.default_rng([0, 1]).permutation(digits.train.size)
    total = 0.0
    for first in range(0, order.size, batch_size):
        batch = order[first : first + batch_size]
        wishes = [np.zeros_like(p) for p in params]
        for i in batch:
            W1, b1, W2, b2 = params[0], params[1], params[2], params[3]
            x = digits.train.inputs[i] / 255
            h = 1 / (1 + np.exp(-(x @ W1 + b1)))
            a = 1 / (1 + np.exp(-(h @ W2 + b2)))
            e = a - np.eye(3)[digits.train.targets[i]]
            total += (e**2).sum()
            d2 = 2 * e * a * (1 - a)
            d1 = (W2 @ d2) * h * (1 - h)
            for wish, part in zip(wishes, (np.outer(x, d1), d1, np.outer(h, d2), d2), strict=True):
                wish += part
        params = [p - rate * wish / len(batch) for p, wish in zip(params, wishes, strict=True)]
    return params, total / order.size


@pytest.mark.parametrize("gradient", ["manual", "auto"])
@pytest.mark.parametrize("batch_size", [1, 32, 100, 203])
def test_an_epoch_is_the_lessons_with_the_ragged_batch_weighted_properly(
    digits: Dataset, batch_size: int, gradient: str
) -> None:
    state, cost = one_epoch(digits, batch_size, gradient=gradient)
    params, mean_cost = numpy_epoch(digits, batch_size, 0.5)
    for ours, theirs in zip(jax.tree.leaves(state.params), params, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(cost, mean_cost, rtol=1e-5)


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize("optimizer", [optax.sgd(0.3, momentum=0.9), optax.adam(0.01)])
def test_an_epoch_is_a_plain_loop_over_optax(digits: Dataset, optimizer: optax.GradientTransformation) -> None:
    state, _ = one_epoch(digits, 50, optimizer=optimizer)
    plain = start(NETWORK, optimizer)
    for batch in order_of(0, 1, 203, 50):
        real = np.asarray(batch if batch is not None else [])
        weights = np.ones(50, np.float32)
        if (real[3:] == 0).all():  # the last batch has 3 examples and 47 places of fill
            weights[3:] = 0
        inputs = jnp.asarray(digits.train.inputs[real], jnp.float32) / 255
        gradients = jax.grad(jaxmlp.loss)(
            plain.params, Batch(inputs, jnp.asarray(digits.train.targets[real]), jnp.asarray(weights)), NETWORK
        )
        updates, optimizer_state = optimizer.update(gradients, plain.optimizer, plain.params)
        plain = TrainState(optax.apply_updates(plain.params, updates), optimizer_state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), state, plain)


@pytest.mark.parametrize(("output", "loss"), [("sigmoid", "squared_error"), ("softmax", "cross_entropy")])
def test_manual_and_automatic_gradients_train_alike(digits: Dataset, output: str, loss: str) -> None:
    network = Network((20, 6, 3), "tanh", output, loss)
    (manual, cost), (auto, its_cost) = (one_epoch(digits, 32, gradient=g, network=network) for g in ("manual", "auto"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), manual.params, auto.params)
    np.testing.assert_allclose(cost, its_cost, rtol=1e-5)


def test_one_program_serves_every_epoch_and_the_ragged_batch(digits: Dataset) -> None:
    train_steps.for_one_core.clear_cache()
    examples, state = on_device(digits.train), start(NETWORK, SGD)
    for number in range(1, 4):
        order = jax.device_put(order_of(0, number, 203, 50))
        state, _, _ = train_epoch(state, in_order(examples, order), 203, recipe=Recipe(NETWORK, SGD))
    assert train_steps.for_one_core._cache_size() == 1


def rolled(array: Any, by: int) -> Any:
    """Row `by` comes first."""
    return np.roll(array, -by, axis=0)


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize("optimizer", [optax.sgd(0.3, momentum=0.9), optax.adam(0.01)])
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, 12)))
def test_an_epoch_is_the_same_bit_for_bit_whole_and_in_parts(
    digits: Dataset, optimizer: optax.GradientTransformation, cuts: set[int]
) -> None:
    batches = in_order(on_device(digits.train), jax.device_put(order_of(0, 1, 203, 16)))
    recipe = Recipe(NETWORK, optimizer)
    whole = train_epoch(start(NETWORK, optimizer), batches, 203, recipe=recipe)
    state, losses = start(NETWORK, optimizer), jnp.zeros(13, jnp.float32)
    for first, last in itertools.pairwise([0, *sorted(cuts), 13]):
        part, rest = Part.of(first, last, seed=0, number=0, total=203), Examples(*(rolled(a, first) for a in batches))
        state, losses, _ = train_steps(state, losses, rest, part, recipe=recipe)
    jax.tree.map(np.testing.assert_array_equal, (state, losses), (whole.state, whole.losses))


def test_parameters_that_are_not_finite_are_noticed(digits: Dataset) -> None:
    order = jax.device_put(order_of(0, 1, 203, 50))
    recipe = Recipe(Network((20, 6, 3), "relu", "identity"), optax.sgd(1e30))
    trained: Trained = train_epoch(start(NETWORK, SGD), in_order(on_device(digits.train), order), 203, recipe=recipe)
    assert not bool(trained.sound)


@pytest.mark.own_precision
def test_images_stay_bytes_until_the_step_that_uses_them(digits: Dataset) -> None:
    order = jax.device_put(order_of(0, 1, 203, 50))
    batches, part = in_order(on_device(digits.train), order), Part.of(0, 5, seed=0, number=0, total=203)
    state, losses, recipe = start(NETWORK, SGD), jnp.zeros(5, jnp.float32), Recipe(NETWORK, SGD)
    program = train_steps.for_cpu.lower(state, losses, batches, part, recipe=recipe).as_text()
    assert "5x50x20xui8" in program
    assert "5x50x20xf32" not in program
    assert "50x20xf32" in program


OWN_WAY = CPU_OPTIONS | {"xla_cpu_use_fusion_emitters": True}
"""That of the programs that users get, whatever XLA_FLAGS says."""


def lowered_epoch(
    sizes: tuple[int, ...], gradient: str, steps: int = 7, batch: int = 32, gathered_from: int | None = None
) -> Any:
    """The program of an epoch of so many batches, put in order or gathered, from shapes alone, as lowered."""
    network = Network(sizes)
    params = jax.eval_shape(lambda: jaxmlp.init(jax.random.key(0), network, jnp.float32))
    rows = (steps, batch) if gathered_from is None else (gathered_from,)
    examples = Examples(
        jax.ShapeDtypeStruct((*rows, sizes[0]), np.uint8),
        jax.ShapeDtypeStruct(rows, np.int32),
    )
    order = jax.ShapeDtypeStruct((steps, batch), np.int32)
    args = (
        TrainState(params, jax.eval_shape(SGD.init, params)),
        jax.ShapeDtypeStruct((steps,), np.float32),
        examples if gathered_from is None else Ordered(examples, order),
        jax.eval_shape(lambda: Part.of(0, 0, seed=0, number=0, total=0)),
    )
    recipe = Recipe(network, SGD, gradient)
    return train_steps.jitted(*args, recipe=recipe).lower(*args, recipe=recipe)


def loop_of(compiled: Any) -> str:
    """The text of a step: the body of the compiled loop over mini-batches."""
    text = compiled.as_text()
    (body,) = re.findall(r"body=%?([\w.]+)", text)
    (loop,) = re.findall(rf"^%?{re.escape(body)} .*?^\}}", text, re.MULTILINE | re.DOTALL)
    return str(loop)


def kernels_of_a_step(compiled: Any) -> int:
    """The operations that the compiled loop over mini-batches starts, one after the other, in each step."""
    started = re.findall(r"= \S+ ([\w-]+)\(", loop_of(compiled))
    free = {"get-tuple-element", "constant", "parameter", "tuple", "bitcast"}
    return sum(name not in free for name in started)


class Costs(NamedTuple):
    """Of a step."""

    kernels: int
    transposes: int
    operations: float


def costs_of_a_step(sizes: tuple[int, ...], batch: int) -> tuple[Costs, Costs]:
    """By hand and automatic; of each, the products are those that there must be."""
    costs = []
    for gradient in ("manual", "auto"):
        lowered = lowered_epoch(sizes, gradient, batch=batch)
        compiled = lowered.compile(OWN_WAY)
        # forward, A^T D, and D W^T but for the inputs
        assert lowered.as_text().count("stablehlo.dot_general") == 3 * (len(sizes) - 1) - 1
        transposes = in_memory("transpose", lowered.as_text())
        costs.append(Costs(kernels_of_a_step(compiled), transposes, compiled.cost_analysis()["flops"]))
    manual, auto = costs
    return manual, auto


@pytest.mark.own_precision
@pytest.mark.parametrize(("sizes", "batch"), [((784, 10), 16), ((784, 100, 10), 32), ((784, 16, 16, 10), 16)])
def test_a_step_is_few_products_and_kernels_and_by_hand_no_more_but_transposes(
    sizes: tuple[int, ...], batch: int
) -> None:
    assert not turns((batch, sizes[0]), sizes)
    L, (manual, auto) = len(sizes) - 1, costs_of_a_step(sizes, batch)
    # what is transposed in memory takes a kernel each at most, and the products are the faster for it
    assert auto.transposes == 0 < manual.transposes <= 2 * L - 1
    assert manual.kernels - manual.transposes <= min(auto.kernels, 8 * L + 5)
    assert manual.operations <= 1.01 * auto.operations


@pytest.mark.own_precision
@pytest.mark.parametrize(
    ("sizes", "batch"), [((784, 10), 32), ((784, 100, 10), 512), ((784, 16, 16, 10), 32), ((784, 30, 10), 32)]
)
def test_a_turned_step_of_a_whole_batch_has_at_most_a_kernel_more_a_hidden_layer_than_that_of_jax_grad(
    sizes: tuple[int, ...], batch: int
) -> None:
    assert turns((batch, sizes[0]), sizes)
    L, (manual, auto) = len(sizes) - 1, costs_of_a_step(sizes, batch)
    assert manual.kernels <= auto.kernels + L - 1
    assert manual.operations <= 1.01 * auto.operations


@pytest.mark.own_precision
@pytest.mark.parametrize("gradient", ["manual", "auto"])
@pytest.mark.parametrize(
    ("sizes", "batch"), [((784, 64, 64, 10), 32), ((784, 300, 300, 10), 128), ((784, 300, 10), 1024)]
)
def test_a_step_updates_matrices_where_they_are(sizes: tuple[int, ...], batch: int, gradient: str) -> None:
    compiled = lowered_epoch(sizes, gradient, batch=batch).compile(OWN_WAY)
    assert not re.findall(r"= f32\[\d+,\d+\]\S* copy\(", loop_of(compiled))


@pytest.mark.own_precision
@pytest.mark.skipif(jax.__version_info__ < (0, 10), reason="measured where XLA has YNNPACK")
@pytest.mark.parametrize(
    ("sizes", "batch"),
    [
        ((784, 16, 16, 10), 10),
        ((784, 16, 16, 10), 128),
        ((784, 16, 16, 10), 256),
        ((784, 32, 10), 64),
        ((784, 30, 10), 128),
        ((784, 100, 10), 16),
        ((784, 10), 99),
    ],
)
def test_a_small_step_wakes_no_second_core(sizes: tuple[int, ...], batch: int) -> None:
    batches = Examples(np.zeros((7, batch, sizes[0]), np.uint8), np.zeros((7, batch), np.int32))
    recipe = Recipe(Network(sizes), SGD)
    assert train_steps.jitted(None, None, batches, None, recipe=recipe) is train_steps.for_one_core
    loop = loop_of(lowered_epoch(sizes, "manual", batch=batch).compile(OWN_WAY))
    assert 'outer_dimension_partitions":["' not in loop
    assert " dot(" not in loop  # Eigen's, whose threads take over; YNNPACK's are fusions
    assert "ynn" in loop


@pytest.mark.own_precision
def test_a_step_by_hand_stays_on_one_core_in_parts_of_its_batch() -> None:
    by_hand, auto = (Recipe(Network((784, 30, 10)), SGD, gradient) for gradient in ("manual", "auto"))
    assert [recipe.small(64) for recipe in (by_hand, auto)] == [True, True]
    assert [recipe.small(128) for recipe in (by_hand, auto)] == [True, False]
    assert not by_hand.small(128, traced=True)
    assert not by_hand.small(193)
    products = lowered_epoch((784, 30, 10), "manual", batch=128).as_text().count("stablehlo.dot_general")
    assert products == 2 + 1 + 1 + 2 + 1  # forward, back, and the gradient's; the first layer's in two parts


@pytest.mark.own_precision
@pytest.mark.parametrize(("dropout", "distort"), [(0.2, Distort()), (0.0, Distort(shift=1.0))])
def test_inputs_that_a_step_draws_are_not_drawn_for_each_part_of_a_batch(dropout: float, distort: Distort) -> None:
    network = Network((784, 30, 10), input_dropout=dropout)
    recipe = Recipe(network, SGD, distort=distort, shape=(28, 28))
    params = jaxmlp.init(jax.random.key(0), network)
    state = TrainState(params, SGD.init(params))
    batch = Batch(np.zeros((128, 784), np.float32), np.zeros(128, np.int32))
    program = jax.jit(make_step(recipe)).lower(flip(state, recipe.turned(128)), batch, jax.random.key(0)).as_text()
    found = re.findall(r"stablehlo\.dot_general .*-> tensor<(\w+)xf32>", program)
    assert {"128x30", "30x128"} & set(found)
    assert not {"64x30", "30x64"} & set(found)
    assert not recipe.small(128)


@pytest.mark.own_precision
def test_distortions_have_all_cores() -> None:
    recipe = Recipe(Network((784, 16, 10)), SGD)
    assert recipe.small(10)
    assert not dataclasses.replace(recipe, distort=Distort(0.1)).small(10)


@pytest.mark.own_precision
@pytest.mark.parametrize(
    ("sizes", "batch"), [((784, 100, 10), 1024), ((784, 512, 512, 10), 1024), ((784, 30, 20, 10), 32)]
)
def test_all_that_lies_between_the_turned_products_of_a_step_is_turned_too(sizes: tuple[int, ...], batch: int) -> None:
    """But for the outputs' errors, whose squares are summed along the rows."""
    loop = loop_of(lowered_epoch(sizes, "manual", batch=batch).compile(OWN_WAY))
    found = re.findall(r"= f32\[(\d+),(\d+)\]\{(0,1|1,0)\} \w+\(", loop)
    shapes = {(int(m), int(n)) if layout == "1,0" else (int(n), int(m)) for m, n, layout in found}
    assert {(n, batch) for n in sizes[1:]} <= shapes
    assert {shape for shape in shapes if shape[0] == batch} <= {(batch, sizes[0]), (batch, sizes[-1])}


@pytest.mark.own_precision
@pytest.mark.parametrize(
    ("sizes", "batch"), [((784, 300, 10), 1024), ((784, 512, 512, 10), 1024), ((256, 128, 10), 512)]
)
def test_a_turned_step_holds_every_matrix_so_that_none_is_transposed_for_its_forward_product(
    sizes: tuple[int, ...], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = kernels_of_a_step(lowered_epoch(sizes, "manual", batch=batch).compile(OWN_WAY))
    monkeypatch.setattr(Recipe, "turned", lambda *args: False)
    train_steps.for_cpu.clear_cache()
    assert held < kernels_of_a_step(lowered_epoch(sizes, "manual", batch=batch).compile(OWN_WAY))
    train_steps.for_cpu.clear_cache()


@pytest.mark.own_precision
@pytest.mark.parametrize("gradient", ["manual", "auto"])
@pytest.mark.parametrize("batch", [SEVERAL, 1024])
def test_steps_on_all_cores_gather_their_examples_and_a_batch_of_them_is_one_kernel(batch: int, gradient: str) -> None:
    sizes, count = (784, 100, 10), 5 * batch
    assert Recipe(Network(sizes), SGD, gradient).gathers(batch)
    loop = loop_of(lowered_epoch(sizes, gradient, batch=batch, gathered_from=count).compile(OWN_WAY))
    assert f"u8[{count},784]" in loop
    assert f"f32[{count},784]" not in loop  # the epoch's images are not converted again in each step
    assert not re.findall(rf"= u8\[{batch},784\]", loop)  # nor a batch's rows written as bytes first


@pytest.mark.own_precision
@pytest.mark.parametrize(
    ("sizes", "batch", "distort", "gathers"),
    [
        ((784, 16, 16, 10), 128, Distort(), False),
        ((784, 16, 16, 10), 1024, Distort(), True),
        ((784, 100, 10), SEVERAL - 1, Distort(), False),
        ((784, 100, 10), SEVERAL, Distort(), True),
        ((BROAD - 1, 100, 10), 1024, Distort(), False),
        ((784, 100, 10), 1024, Distort(shift=1.0), False),
    ],
)
def test_examples_are_put_in_order_ahead_where_a_core_would_idle(
    sizes: tuple[int, ...], batch: int, distort: Distort, gathers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(Network(sizes), SGD, distort=distort)
    assert recipe.gathers(batch) == gathers
    monkeypatch.setattr(epoch, "on_cpu", lambda: False)
    assert recipe.gathers(batch)


@pytest.mark.own_precision
@pytest.mark.parametrize("units", [1024, WIDE - 1, WIDE])
@pytest.mark.parametrize("batch", [2, SHORT - 1, SHORT])
def test_small_batches_are_transposed_in_memory_where_the_layer_is_wide(units: int, batch: int) -> None:
    program = lowered_epoch((784, units), "manual", batch=batch).as_text()
    assert ("optimization_barrier" in program) == (units == WIDE and batch < SHORT)


@pytest.mark.own_precision
@pytest.mark.parametrize("ends", [(WIDE, WIDE), (WIDE - 1, WIDE), (LONG * WIDE, WIDE)])
@pytest.mark.parametrize("batch", [2, BRIEF, BRIEF + 1])
def test_a_wide_kernel_is_read_along_its_rows_where_the_batch_is_small(ends: tuple[int, int], batch: int) -> None:
    program = lowered_epoch((5, *ends, 3), "manual", batch=batch).as_text()
    products = re.findall(r"stablehlo\.dot_general .*-> tensor<(\w+)xf32>", program)
    assert (f"{ends[0]}x{batch}" in products) == (ends == (WIDE, WIDE) and batch <= BRIEF)


@pytest.mark.own_precision
@pytest.mark.parametrize(
    "sizes", [(784, 512, 300, 10), (784, 1024, 1024, 10), (784, 500, 500, 10), (784, 512, 100, 10)]
)
@pytest.mark.parametrize("batch", [SHORT - 1, SHORT, 900])
def test_columns_that_share_few_places_of_the_cache_are_apart(sizes: tuple[int, ...], batch: int) -> None:
    program = lowered_epoch(sizes, "manual", batch=batch).as_text()
    hidden = sizes[1] % ALIASED == 0 and sizes[1] < LONG * sizes[2] and batch >= SHORT
    assert program.count(f"tensor<{sizes[1] + 16}x{batch}xf32>, tensor<{batch}x{sizes[2]}xf32>) ->") == hidden


@pytest.mark.own_precision
def test_an_epochs_scratch_memory_grows_with_its_indices_alone() -> None:
    programs = (lowered_epoch((784, 16, 16, 10), "manual", steps).compile(OWN_WAY) for steps in (10, 110))
    short, long = (program.memory_analysis() for program in programs)
    of_an_example = (long.temp_size_in_bytes - short.temp_size_in_bytes) / (100 * 32)
    assert of_an_example <= 16  # its index, its weight and its part of a batch's cost, not its image


@pytest.mark.parametrize("count", [1, 7, 999, 1000, 1001, 2500])
def test_evaluation_scores_every_example(count: int) -> None:
    rng = np.random.default_rng(count)
    examples = Examples(rng.integers(0, 256, (count, 20)).astype(np.uint8), rng.integers(0, 3, count).astype(np.int32))
    params = start(NETWORK, SGD).params
    loss, accuracy = evaluate(params, portions(examples), network=NETWORK)
    a = np.asarray(jaxmlp.forward(params, jnp.asarray(examples.inputs, jnp.float32) / 255, NETWORK), np.float64)
    np.testing.assert_allclose(loss, ((a - np.eye(3)[examples.targets]) ** 2).sum(1).mean(), rtol=1e-4)
    assert accuracy == (a.argmax(1) == examples.targets).mean()


def test_sets_of_1000_examples_and_more_are_scored_by_one_program() -> None:
    network = Network((7, 3))
    params, before = start(network, SGD).params, score.for_cpu._cache_size()
    for count in (1000, 1001, 2500):
        examples = Examples(np.zeros((count, 7), np.uint8), np.zeros(count, np.int32))
        evaluate(params, portions(examples), network=network)
    assert score.for_cpu._cache_size() == before + 1


@settings(max_examples=20)
@given(outputs=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=4))
def test_labels_are_the_largest_output_or_a_single_one_from_a_half(outputs: list[float]) -> None:
    expected = int(outputs[0] >= 0.5) if len(outputs) == 1 else outputs.index(max(outputs))
    assert jaxmlp.training.epoch.labels_of(np.array([outputs], np.float32)).tolist() == [expected]
