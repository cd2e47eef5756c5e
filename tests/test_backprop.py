import itertools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmlp
from jaxmlp import Batch, Network
from jaxmlp.activations import ACTIVATIONS
from jaxmlp.backprop import decayed, passed_back, summed
from jaxmlp.losses import FUSED, LOSSES
from jaxmlp.network import Layer, Masks, dropped, masks, propagate, smoothed
from jaxmlp.products import CROWD, MANY, SOME, WIDE, turns

OUTPUTS = [(output, loss) for loss in LOSSES for output in ACTIVATIONS] + [(FUSED[loss][0], loss) for loss in FUSED]
NATURAL = {"squared_error": "sigmoid", "absolute_error": "identity", "huber": "tanh"} | {
    k: v[0] for k, v in FUSED.items()
}
KEY = jax.random.key(7)
TARGETS = ("labels", "dense", "weighted")


def compiled(function: Any) -> Any:
    """One program where there would be dozens, of an operation each."""
    return jax.jit(function, static_argnums=2)


def make_batch(network: Network, count: int, targets: str, seed: int, dtype: str = "float64") -> Batch:
    rng = np.random.default_rng(seed)
    n_0, n_L = network.sizes[0], network.sizes[-1]
    labels = rng.integers(0, max(2, n_L), count).astype(np.int32)
    weights = rng.integers(0, 3, count)
    weights[rng.integers(count)] = 1
    return Batch(
        jnp.asarray(rng.normal(size=(count, n_0)), dtype),
        jnp.asarray(rng.random((count, n_L)), dtype) if targets == "dense" else jnp.asarray(labels),
        jnp.asarray(weights, dtype) if targets == "weighted" else None,
    )


def drawn(network: Network, seed: int) -> jaxmlp.Params:
    """Parameters in float64, by NumPy, which compiles nothing; no bias is 0."""
    rng = np.random.default_rng((seed, 1))
    return tuple(
        Layer(jnp.asarray(rng.normal(size=(m, n)) / m**0.5, np.float64), jnp.asarray(rng.normal(size=n), np.float64))
        for m, n in itertools.pairwise(network.sizes)
    )


def assert_backprop_is_jax_grad(network: Network, count: int, targets: str, seed: int, dropping: bool = False) -> None:
    """Leaf by leaf, in float64, to 1e-10 of the leaf's norm; and the cost with it."""
    key = jax.random.key(seed + 1) if dropping else None
    with jax.enable_x64(True):
        params, batch = drawn(network, seed), make_batch(network, count, targets, seed)
        manual = compiled(jaxmlp.value_and_backprop)(params, batch, network, key)
        auto = compiled(jax.value_and_grad(jaxmlp.loss))(params, batch, network, key)
        assert jax.tree.structure(manual) == jax.tree.structure(auto)
        for ours, theirs in zip(jax.tree.leaves(manual), jax.tree.leaves(auto), strict=True):
            assert ours.shape == theirs.shape
            assert ours.dtype == theirs.dtype
            exact = np.asarray(theirs)
            assert np.linalg.norm(np.asarray(ours) - exact) <= 1e-10 * np.linalg.norm(exact) + 1e-300


@pytest.mark.own_precision
def test_a_large_batch_with_long_kernels_agrees_with_jax_grad() -> None:
    assert_backprop_is_jax_grad(Network((600, 50, 3)), CROWD + 1, "weighted", seed=1)


@pytest.mark.own_precision
@pytest.mark.parametrize("dropping", [False, True])
@pytest.mark.parametrize(
    ("sizes", "count"), [((70, 16, 9, 3), SOME + 1), ((600, 50, 3), MANY), ((784, 12, 3), 129), ((7, 3), SOME)]
)
@pytest.mark.parametrize(
    ("activation", "output", "loss"), [("gelu", "softmax", "cross_entropy"), ("softmax", "tanh", "huber")]
)
def test_turned_batches_agree_with_jax_grad(
    activation: str, output: str, loss: str, sizes: tuple[int, ...], count: int, dropping: bool
) -> None:
    assert turns((count, sizes[0]), sizes)
    network = Network(sizes, activation, output, loss, dropout=0.25 * dropping, input_dropout=0.25 * dropping)
    assert_backprop_is_jax_grad(network, count, "weighted", seed=1, dropping=dropping)


@pytest.mark.own_precision
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", NATURAL)
def test_every_activation_and_loss_agrees_with_jax_grad(activation: str, loss: str) -> None:
    network = Network((5, 4, 4, 3), activation, NATURAL[loss], loss)
    assert_backprop_is_jax_grad(network, 7, "labels", seed=1)


@pytest.mark.own_precision
@pytest.mark.parametrize(("output", "loss"), OUTPUTS)
def test_every_output_and_loss_agrees_with_jax_grad(output: str, loss: str) -> None:
    assert_backprop_is_jax_grad(Network((5, 4, 3), "tanh", output, loss), 7, "weighted", seed=2)


@pytest.mark.own_precision
@pytest.mark.parametrize(("depth", "targets", "loss"), list(itertools.product((0, 1, 2, 5), TARGETS, NATURAL)))
def test_every_depth_and_kind_of_target_agrees_with_jax_grad(depth: int, targets: str, loss: str) -> None:
    network = Network((3, *[4] * depth, 2), "softplus", NATURAL[loss], loss)
    assert_backprop_is_jax_grad(network, 6, targets, seed=3)


@pytest.mark.own_precision
@settings(max_examples=8)  # each compiles its own programs
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5).map(tuple),
    activation=st.sampled_from(list(ACTIVATIONS)),
    output=st.sampled_from(OUTPUTS),
    count=st.integers(1, 40),
    targets=st.sampled_from(TARGETS),
    seed=st.integers(0, 10_000),
)
def test_random_networks_agree_with_jax_grad(
    sizes: tuple[int, ...], activation: str, output: tuple[str, str], count: int, targets: str, seed: int
) -> None:
    assert_backprop_is_jax_grad(Network(sizes, activation, *output), count, targets, seed)


RATES = st.sampled_from([0.0, 0.2, 0.5, 0.9])


@pytest.mark.own_precision
@settings(max_examples=5)  # each compiles its own programs
@given(
    sizes=st.lists(st.integers(1, 20), min_size=2, max_size=4).map(tuple),
    activation=st.sampled_from(list(ACTIVATIONS)),
    output=st.sampled_from(OUTPUTS),
    count=st.integers(1, 20),
    rates=st.tuples(RATES, RATES, RATES, st.sampled_from([0.0, 0.01, 3.0])),
    targets=st.sampled_from(TARGETS),
    seed=st.integers(0, 10_000),
)
def test_random_regularised_networks_agree_with_jax_grad(
    sizes: tuple[int, ...],
    activation: str,
    output: tuple[str, str],
    count: int,
    rates: tuple[float, ...],
    targets: str,
    seed: int,
) -> None:
    if output[0] == "softmax" and sizes[-1] == 1:
        sizes = (*sizes, 2)
    dropout, input_dropout, smoothing, l2 = rates
    smoothing = 0.0 if targets == "dense" else smoothing
    network = Network(sizes, activation, *output, dropout, input_dropout, l2, smoothing)
    assert_backprop_is_jax_grad(network, count, targets, seed, dropping=True)


REGULARISED = Network((6, 8, 3), "tanh", "softmax", "cross_entropy", 0.5, 0.2, 0.1, 0.1)


def test_a_network_with_every_regulariser_passes_the_check_of_its_gradient() -> None:
    params = jaxmlp.init(jax.random.key(0), REGULARISED, jnp.float32)
    batch = make_batch(REGULARISED, 9, "labels", seed=0, dtype="float32")
    check = jaxmlp.check_gradients
    check(jaxmlp.loss, jaxmlp.value_and_backprop, params, batch, REGULARISED, KEY).raise_on_failure()

    def masks_forgotten_on_the_way_back(
        params: jaxmlp.Params, batch: Batch, network: Network, key: jax.Array
    ) -> jaxmlp.Params:
        M = masks(key, batch.inputs, network)
        z, a = propagate(params, batch.inputs, network, M)
        y = smoothed(batch.targets, a[-1], network)
        D = passed_back((a[-1] - y) / 9, z, a, params, network, (None,) * 2)
        return decayed(summed(dropped(a[:-1], M), D), params, network)

    assert not check(jaxmlp.loss, masks_forgotten_on_the_way_back, params, batch, REGULARISED, KEY).passed


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_parameters_have_a_gradient_as_narrow_whatever_the_inputs(dtype: Any, l2: float) -> None:
    network = Network((5, 4, 3), l2=l2)
    params = jaxmlp.init(jax.random.key(0), network, dtype)
    batch = Batch(jnp.ones((2, 5), jnp.float32), jnp.asarray([0, 2]))
    with jax.numpy_dtype_promotion("standard"):
        ours, theirs = (
            compiled(gradient)(params, batch, network) for gradient in (jaxmlp.backprop, jax.grad(jaxmlp.loss))
        )
    assert jax.tree.map(lambda leaf: leaf.dtype, ours) == jax.tree.map(lambda leaf: leaf.dtype, theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(*map(np.float32, (a, b)), rtol=0.03, atol=1e-3), ours, theirs)


def test_without_a_key_nothing_is_dropped() -> None:
    plain = replace(REGULARISED, dropout=0.0, input_dropout=0.0)
    params = jaxmlp.init(jax.random.key(0), REGULARISED, jnp.float32)
    batch = make_batch(REGULARISED, 9, "labels", seed=0, dtype="float32")
    for function in (jaxmlp.value_and_backprop, jaxmlp.backpropagate, jaxmlp.loss):
        found = [compiled(function)(params, batch, network) for network in (REGULARISED, REGULARISED, plain)]
        jax.tree.map(np.testing.assert_array_equal, found[0], found[1])
        jax.tree.map(np.testing.assert_array_equal, found[0], found[2])
    keyed = [compiled(jaxmlp.backprop)(params, batch, REGULARISED, key) for key in (KEY, KEY, jax.random.key(8))]
    jax.tree.map(np.testing.assert_array_equal, keyed[0], keyed[1])
    assert not np.array_equal(keyed[0][0].kernel, keyed[2][0].kernel)


@pytest.mark.own_precision
def test_a_trace_with_a_key_holds_every_examples_own_gradient_under_the_same_masks() -> None:
    with jax.enable_x64(True):
        params = jaxmlp.init(jax.random.key(0), REGULARISED, jnp.float64)
        batch = make_batch(REGULARISED, 5, "weighted", seed=0)
        M = masks(KEY, batch.inputs, REGULARISED)

        def alone(params: jaxmlp.Params, x: jax.Array, label: jax.Array, own: Masks) -> jax.Array:
            z, _ = propagate(params, x[None], REGULARISED, tuple(m[None] for m in own))
            y = 0.9 * jax.nn.one_hot(label, 3, dtype=x.dtype) + 0.1 / 3
            return -jnp.sum(y * jax.nn.log_softmax(z[-1][0]))

        own = jax.jit(jax.vmap(jax.grad(alone), (None, 0, 0, 0)))(params, batch.inputs, batch.targets, M)
        trace = compiled(jaxmlp.backpropagate)(params, batch, REGULARISED, KEY)
        found = jaxmlp.perexample.gradients(trace)
        jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-10, atol=1e-13), found, own)
        squares = sum(jnp.sum(leaf**2, axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(own))
        np.testing.assert_allclose(jaxmlp.perexample.squared_norms(trace), squares, rtol=1e-10)
        mean = decayed(jaxmlp.mean_gradient(trace), params, REGULARISED)
        manual = compiled(jaxmlp.backprop)(params, batch, REGULARISED, KEY)
        jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-10, atol=1e-13), mean, manual)


def test_a_masked_example_leaves_no_mark() -> None:
    network = Network((3, 4, 2))
    params = jaxmlp.init(jax.random.key(0), network)
    batch = make_batch(network, 5, "labels", seed=0, dtype="float32")
    mask = jnp.array([1.0, 1.0, 1.0, 0.0, 0.0])
    masked = compiled(jaxmlp.backprop)(params, batch._replace(weights=mask), network)
    dropped = compiled(jaxmlp.backprop)(params, Batch(batch.inputs[:3], batch.targets[:3]), network)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), masked, dropped)


@pytest.mark.own_precision
def test_a_trace_holds_every_examples_own_gradient() -> None:
    with jax.enable_x64(True):
        network = Network((3, 4, 2), "tanh")
        params = jaxmlp.init(jax.random.key(0), network, jnp.float64)
        batch = make_batch(network, 5, "dense", seed=0)
        trace = compiled(jaxmlp.backpropagate)(params, batch, network)

        def alone(x: jax.Array, y: jax.Array) -> jaxmlp.Params:
            return jax.grad(jaxmlp.loss)(params, Batch(x[None], y[None]), network)

        own = jax.jit(jax.vmap(alone))(batch.inputs, batch.targets)
        for layer, A, D in zip(own, trace.inputs, trace.deltas, strict=True):
            np.testing.assert_allclose(A[:, :, None] * D[:, None, :], layer.kernel, rtol=1e-12, atol=1e-15)
            np.testing.assert_allclose(D, layer.bias, rtol=1e-12, atol=1e-15)


@pytest.mark.own_precision
@pytest.mark.parametrize("count", [5, SOME])
@pytest.mark.parametrize("targets", TARGETS)
def test_the_mean_gradient_of_a_trace_is_backprop(targets: str, count: int) -> None:
    with jax.enable_x64(True):
        network = Network((3, 4, 4, 2), "tanh")
        params = jaxmlp.init(jax.random.key(0), network, jnp.float64)
        batch = make_batch(network, count, targets, seed=0)
        mean = jax.jit(jaxmlp.mean_gradient)(compiled(jaxmlp.backpropagate)(params, batch, network))
        jax.tree.map(
            lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-12, atol=1e-15),
            mean,
            compiled(jaxmlp.backprop)(params, batch, network),
        )


@pytest.mark.parametrize("count", [5, SOME])
def test_backprop_works_under_jit_vmap_and_scan(count: int) -> None:
    network = Network((3, 4, 2))
    keys = jax.random.split(jax.random.key(0), 3)
    stacked = jax.vmap(lambda key: jaxmlp.init(key, network))(keys)
    batch = make_batch(network, count, "labels", seed=0, dtype="float32")
    mapped = jax.jit(jax.vmap(lambda params: jaxmlp.backprop(params, batch, network)))(stacked)
    _, scanned = jax.lax.scan(lambda _, params: (None, jaxmlp.backprop(params, batch, network)), None, stacked)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), mapped, scanned)


@pytest.mark.parametrize("count", [5, SOME])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_gradients_have_the_type_of_the_parameters(dtype: str, count: int) -> None:
    network = Network((3, 4, 2))
    params = jaxmlp.init(jax.random.key(0), network, jnp.dtype(dtype))
    for targets in TARGETS:
        cost, gradients = compiled(jaxmlp.value_and_backprop)(
            params, make_batch(network, count, targets, 0, dtype), network
        )
        assert {leaf.dtype for leaf in jax.tree.leaves((cost, gradients))} == {jnp.dtype(dtype)}


def test_weights_of_another_type_leave_the_gradients_type_alone() -> None:
    network = Network((3, 4, 2))
    params = jaxmlp.init(jax.random.key(0), network, jnp.bfloat16)
    batch = make_batch(network, 5, "labels", 0, "bfloat16")._replace(weights=jnp.ones(5, jnp.float32))
    for gradient in (jaxmlp.backprop, jax.grad(jaxmlp.loss)):
        gradients = compiled(gradient)(params, batch, network)
        assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("sizes", [(6, 5, 3), (700, WIDE), (6, WIDE, WIDE, 3)])
def test_backprop_exports_for_any_number_of_examples(sizes: tuple[int, ...]) -> None:
    network = Network(sizes)
    params = jaxmlp.init(jax.random.key(0), network)
    (B,) = jax.export.symbolic_shape("B")
    shapes = Batch(jax.ShapeDtypeStruct((B, sizes[0]), params[0].kernel.dtype), jax.ShapeDtypeStruct((B,), np.int32))
    exported = jax.export.export(jax.jit(lambda params, batch: jaxmlp.backprop(params, batch, network)))(params, shapes)
    for count in (1, 7, SOME):
        inputs = jax.random.uniform(jax.random.key(count), (count, sizes[0]), params[0].kernel.dtype)
        batch = Batch(inputs, jnp.arange(count, dtype=jnp.int32) % 3)
        found, wanted = exported.call(params, batch), compiled(jaxmlp.backprop)(params, batch, network)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, wanted)
