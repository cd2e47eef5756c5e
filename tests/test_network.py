import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmlp
from jaxmlp import Batch, Network, NetworkError
from jaxmlp.losses import LossName

SIZES = st.lists(st.integers(1, 12), min_size=2, max_size=6).map(tuple)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": ()}, "network.sizes is empty: expected at least two"),
        ({"sizes": (784,)}, "network.sizes is 784: expected at least two"),
        ({"sizes": (784, 0, 10)}, "network.sizes is 784 0 10: expected whole numbers of 1 and more"),
        ({"sizes": (784, -1)}, "whole numbers"),
        ({"sizes": (784, 1.5)}, "whole numbers"),
        ({"sizes": (4, 2), "activation": "sigmod"}, "network.activation is 'sigmod': expected one of sigmoid, tanh"),
        ({"sizes": (4, 2), "output": "logits"}, "network.output is 'logits': expected one of"),
        ({"sizes": (4, 2), "loss": "mse"}, "network.loss is 'mse': expected one of squared_error"),
        ({"sizes": (4, 2), "loss": "cross_entropy"}, "goes with output 'softmax' only"),
        ({"sizes": (4, 1), "output": "softmax"}, "'softmax' of 1 output, always 1: expected 'sigmoid', or 2 outputs"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_network_that_cannot_be_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        Network(**settings)


@pytest.mark.usefixtures("unchecked")
def test_networks_are_static_arguments() -> None:
    listed = Network([784, 16, 10])
    assert hash(listed) == hash(Network((784, 16, 10)))
    assert listed == Network((784, 16, 10))


def test_the_lessons_network_has_13002_parameters() -> None:
    network = Network((784, 16, 16, 10))
    params = jaxmlp.init(jax.random.key(0), network)
    assert network.parameters == sum(leaf.size for leaf in jax.tree.leaves(params)) == 13_002


@settings(max_examples=5)  # each compiles its own programs
@given(sizes=SIZES, dtype=st.sampled_from(["float16", "bfloat16", "float32"]))
def test_init_has_the_sizes_and_the_type_asked_for(sizes: tuple[int, ...], dtype: str) -> None:
    params = jaxmlp.init(jax.random.key(0), Network(sizes), jnp.dtype(dtype))
    assert [layer.kernel.shape for layer in params] == list(itertools.pairwise(sizes))
    assert [layer.bias.shape for layer in params] == [(n,) for n in sizes[1:]]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(("activation", "gain"), [("sigmoid", 1), ("tanh", 1), ("relu", 2), ("gelu", 2)])
def test_init_has_variance_gain_over_inputs_behind_a_hidden_layer(activation: str, gain: int) -> None:
    first, second = jaxmlp.init(jax.random.key(0), Network((400, 300, 200), activation))
    np.testing.assert_allclose(first.kernel.var() * 400, 1, rtol=0.02)
    np.testing.assert_allclose(second.kernel.var() * 300, gain, rtol=0.02)


def test_forward_is_the_lessons_formula() -> None:
    network = Network((3, 4, 2))
    params = jaxmlp.init(jax.random.key(0), network)
    x = np.random.default_rng(0).random((5, 3)).astype(np.float32)
    a = x
    for kernel, bias in jax.device_get(params):
        a = 1 / (1 + np.exp(-(a @ kernel + bias)))
    np.testing.assert_allclose(jaxmlp.forward(params, jnp.asarray(x), network), a, rtol=1e-5)


def test_squared_error_is_summed_over_outputs_and_averaged_over_examples_without_a_half() -> None:
    network = Network((1, 2), output="identity")
    params = (jaxmlp.Layer(jnp.array([[1.0, 2.0]]), jnp.zeros(2)),)
    batch = Batch(jnp.array([[1.0], [2.0]]), jnp.array([[0.0, 0.0], [0.0, 0.0]]))
    assert float(jaxmlp.loss(params, batch, network)) == ((1 + 4) + (4 + 16)) / 2


LOSS = jax.jit(jaxmlp.loss, static_argnums=2)
PARAMS_342 = jaxmlp.init(jax.random.key(0), Network((3, 4, 2)))
OUTPUT = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}


@pytest.mark.parametrize("loss", LossName.__args__)
@given(weights=st.lists(st.integers(0, 3), min_size=6, max_size=6).filter(any))
def test_a_weight_counts_an_example_that_many_times(loss: str, weights: list[int]) -> None:
    network = Network((3, 4, 2), output=OUTPUT.get(loss, "identity"), loss=loss)
    params = PARAMS_342
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)).astype(np.float32), rng.random((6, 2)).astype(np.float32)
    weighted = LOSS(params, Batch(x, y, np.asarray(weights, np.float32)), network)
    each = [LOSS(params, Batch(x[i : i + 1], y[i : i + 1], np.ones(1, np.float32)), network) for i in range(6)]
    np.testing.assert_allclose(weighted, np.average(each, weights=weights), rtol=1e-5)


def test_labels_are_rows_with_a_single_one_and_themselves_for_a_single_output() -> None:
    x = jnp.array([[0.2], [0.7]], jnp.float32)
    for n_out, dense in ((3, [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]), (1, [[2.0], [1.0]])):
        network = Network((1, n_out), output="identity")
        params = jaxmlp.init(jax.random.key(0), network)
        labelled = jaxmlp.loss(params, Batch(x, jnp.array([2, 1])), network)
        assert labelled == jaxmlp.loss(params, Batch(x, jnp.asarray(dense, jnp.float32)), network)


X, LABELS = np.ones((4, 3), np.float32), np.array([0, 1, 1, 0], np.int32)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("function", [jaxmlp.loss, jaxmlp.backprop, jax.jit(jaxmlp.backprop, static_argnums=2)])
@pytest.mark.parametrize(
    ("batch", "sizes", "message"),
    [
        (Batch(X, LABELS), (3, 5, 2), r"kernels have shapes \(\(3, 4\), \(4, 2\)\): expected those of 3-5-2"),
        (Batch(X, LABELS), (3, 4, 4, 2), "expected those of 3-4-4-2"),
        (Batch(X[:, :2], LABELS), (3, 4, 2), r"inputs have shape \(4, 2\): expected \(B, 3\), an example a row"),
        (Batch(X[0], LABELS[0]), (3, 4, 2), r"inputs have shape \(3,\)"),
        (
            Batch(X.astype(np.uint8), LABELS),
            (3, 4, 2),
            "inputs are uint8: expected a floating type; divide grey levels",
        ),
        (Batch(X, LABELS[:, None]), (3, 4, 2), r"targets have shape \(4, 1\): expected labels, \(4,\), or outputs"),
        (Batch(X, LABELS[:1]), (3, 4, 2), r"targets have shape \(1,\)"),
        (Batch(X, np.ones((4, 3), np.float32)), (3, 4, 2), r"outputs, \(4, 2\)"),
        (Batch(X, LABELS, np.ones(1, np.float32)), (3, 4, 2), r"weights have shape \(1,\): expected \(4,\), one an"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(function: Callable, batch: Batch, sizes: tuple, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        function(PARAMS_342, batch, Network(sizes))
