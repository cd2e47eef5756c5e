import itertools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmlp
from jaxmlp import Batch, GradientError, Layer, Network, NetworkError
from jaxmlp.activations import ActivationName
from jaxmlp.losses import LossName
from jaxmlp.network import INITIALIZERS, masks, rows_drawn, smoothed, wanted

SIZES = st.lists(st.integers(1, 12), min_size=2, max_size=6).map(tuple)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": 784}, "network.sizes is 784: expected whole numbers, such as"),
        ({"sizes": "784"}, "network.sizes is '784': expected whole numbers, such as"),
        ({"sizes": ()}, "network.sizes is empty: expected at least two"),
        ({"sizes": (784,)}, "network.sizes is 784: expected at least two"),
        ({"sizes": (784, 0, 10)}, "network.sizes is 784 0 10: expected whole numbers of 1 and more"),
        ({"sizes": (784, -1)}, "whole numbers"),
        ({"sizes": (784, 1.5)}, "whole numbers"),
        ({"sizes": (4, 2), "activation": "sigmod"}, "network.activation is 'sigmod': expected one of sigmoid, tanh"),
        ({"sizes": (4, 2), "output": "logits"}, "network.output is 'logits': expected one of"),
        ({"sizes": (4, 2), "loss": "mse"}, "network.loss is 'mse': expected one of squared_error"),
        ({"sizes": (4, 2), "loss": "cross_entropy"}, "goes with output 'softmax' only"),
        ({"sizes": (4, 2), "dropout": 1.0}, "network.dropout is 1.0: expected a number of 0 or more, below 1"),
        ({"sizes": (4, 2), "dropout": -0.1}, "network.dropout is -0.1: expected a number of 0 or more, below 1"),
        ({"sizes": (4, 2), "input_dropout": float("nan")}, "network.input_dropout is nan: expected a number of 0"),
        ({"sizes": (4, 2), "input_dropout": "0.5"}, "network.input_dropout is '0.5': expected a number of 0 or more"),
        (
            {"sizes": (4, 2), "label_smoothing": 1},
            "network.label_smoothing is 1: expected a number of 0 or more, below",
        ),
        ({"sizes": (4, 2), "label_smoothing": True}, "network.label_smoothing is True"),
        ({"sizes": (4, 2), "l2": float("inf")}, "network.l2 is inf: expected a finite number of 0 or more"),
        ({"sizes": (4, 2), "l2": -1}, "network.l2 is -1: expected a finite number of 0 or more"),
        ({"sizes": (4, 2), "l2": np.complex64(1j)}, "network.l2 is .*1j.*: expected a finite number of 0 or more"),
        (
            {"sizes": (4, 2), "initializer": "xavier"},
            "is 'xavier': expected scaled, normal:DEVIATION, uniform:BOUND, or",
        ),
        (
            {"sizes": (4, 2), "initializer": "he"},
            "network.initializer is 'he': .*or one of glorot_normal, .*he_uniform, ",
        ),
        ({"sizes": (4, 2), "initializer": "normal:"}, "network.initializer is 'normal:': expected scaled, normal:DEV"),
        ({"sizes": (4, 2), "initializer": "normal:-1"}, "network.initializer is 'normal:-1'"),
        ({"sizes": (4, 2), "initializer": "uniform:inf"}, "network.initializer is 'uniform:inf'"),
        ({"sizes": (4, 2), "initializer": "he_normal:2"}, "network.initializer is 'he_normal:2'"),
        ({"sizes": (4, 2), "initializer": "scaled:2"}, "network.initializer is 'scaled:2'"),
        ({"sizes": (4, 2), "initializer": 3}, "network.initializer is 3: expected scaled"),
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


LECUN, HE = (
    jax.jit(maker, static_argnums=(1, 2))
    for maker in (jax.nn.initializers.lecun_normal(), jax.nn.initializers.he_normal())
)


@pytest.mark.own_precision
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize("sizes", [(784, 16, 16, 10), (130, 130, 7, 129, 130, 130)])
def test_init_is_jaxs_to_the_last_bit_however_many_layers_share_a_draw(
    sizes: tuple[int, ...], activation: ActivationName, dtype: str, impl: str
) -> None:
    key, network = jax.random.key(3, impl=impl), Network(sizes, activation)
    params = jax.jit(jaxmlp.init, static_argnums=(1, 2))(key, network, jnp.dtype(dtype))
    for l, (own, layer) in enumerate(zip(jax.random.split(key, len(params)), params, strict=True)):
        maker = HE if l and activation == "relu" else LECUN
        alone = maker(own, layer.kernel.shape, jnp.dtype(dtype))
        np.testing.assert_array_equal(layer.kernel, alone)


def test_init_draws_once_for_all_small_kernels_and_once_for_all_of_a_size() -> None:
    network = Network((784, 10, *[200] * 20, 10))
    program = str(jax.make_jaxpr(lambda key: jaxmlp.init(key, network))(jax.random.key(0)))
    assert program.count("random_bits") == 2


@pytest.mark.parametrize("name", INITIALIZERS)
def test_an_initializer_is_jaxs_of_that_name(name: str) -> None:
    network = Network((30, 20, 10), initializer=name)
    params = jaxmlp.init(jax.random.key(0), network, jnp.float32)
    makers = jax.nn.initializers
    maker = getattr(makers, name) if name in ("zeros", "ones") else getattr(makers, name)()
    for key, layer in zip(jax.random.split(jax.random.key(0), 2), params, strict=True):
        np.testing.assert_array_equal(layer.kernel, maker(key, layer.kernel.shape, jnp.float32))
        np.testing.assert_array_equal(layer.bias, np.zeros(layer.bias.shape))


@pytest.mark.parametrize(
    ("name", "deviation", "most"),
    [
        ("normal:0.1", 0.1, np.inf),
        ("normal:0", 0, 0),
        ("uniform:0.05", 0.05 / np.sqrt(3), 0.05),
        ("uniform:2", 2 / np.sqrt(3), 2),
        ("glorot_uniform", np.sqrt(2 / 500), np.sqrt(6 / 500)),
        ("he_normal", np.sqrt(2 / 300), 2 / 0.87962566 * np.sqrt(2 / 300)),  # truncated at two deviations
        ("lecun_normal", np.sqrt(1 / 300), 2 / 0.87962566 * np.sqrt(1 / 300)),
    ],
)
def test_an_initializer_draws_about_0_with_its_deviation(name: str, deviation: float, most: float) -> None:
    (layer,) = jaxmlp.init(jax.random.key(0), Network((300, 200), initializer=name), jnp.float32)
    np.testing.assert_allclose(layer.kernel.std(), deviation, rtol=0.02)
    assert abs(float(layer.kernel.mean())) <= 5 * deviation / np.sqrt(60_000)
    assert float(jnp.abs(layer.kernel).max()) <= most * (1 + 1e-6)


def test_an_orthogonal_kernel_keeps_lengths() -> None:
    (layer,) = jaxmlp.init(jax.random.key(0), Network((30, 20), initializer="orthogonal"), jnp.float32)
    np.testing.assert_allclose(layer.kernel.T @ layer.kernel, np.eye(20), atol=1e-5)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_dropped_is_the_rate_and_a_masks_mean_is_1(rate: float) -> None:
    network = Network((300, 200, 200, 2), dropout=rate, input_dropout=rate)
    M = masks(jax.random.key(0), jnp.zeros((101, 300), jnp.float32), network)
    assert [m.shape for m in M] == [(101, 300), (101, 200), (101, 200)]
    for m in map(np.asarray, M):
        share, sigma = (m == 0).mean(), np.sqrt(rate * (1 - rate) / m.size)
        assert abs(share - rate) < 5 * sigma
        assert abs(m.mean(dtype=np.float64) - 1) < 5 * sigma / (1 - rate) + 2**-16 / (1 - rate)
        np.testing.assert_allclose(m[m > 0], 1 / (1 - rate), rtol=1e-3)
        rows = (m == 0).mean(axis=1), (m == 0).mean(axis=0)  # nobody is left out more often than others
        for means, n in zip(rows, (m.shape[1], m.shape[0]), strict=True):
            assert np.abs(means - rate).max() < 6 * np.sqrt(rate * (1 - rate) / n)
    assert not np.array_equal(M[1], M[2])  # every layer drops its own


def test_a_mask_is_a_function_of_the_key_whatever_the_type() -> None:
    network = Network((7, 5, 2), dropout=0.5)
    inputs = jnp.zeros((9, 7), jnp.float32)
    none, m = masks(jax.random.key(1), inputs, network)
    assert none is None
    np.testing.assert_array_equal(m, masks(jax.random.key(1), inputs, network)[1])
    np.testing.assert_array_equal(m, masks(jax.random.key(1), inputs.astype(jnp.bfloat16), network)[1])
    assert not np.array_equal(m, masks(jax.random.key(2), inputs, network)[1])
    assert masks(None, inputs, network) == (None, None)


@pytest.mark.own_precision
@pytest.mark.parametrize(("n_out", "output", "loss"), [(3, "softmax", "cross_entropy"), (3, "tanh", "squared_error")])
def test_label_smoothing_spreads_what_a_label_wants_evenly(n_out: int, output: str, loss: str) -> None:
    network = Network((4, n_out), "tanh", output, loss, label_smoothing=0.3)
    params = jaxmlp.init(jax.random.key(0), network, jnp.float32)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    a = np.asarray(jaxmlp.forward(params, jnp.asarray(x), network), np.float64)
    y = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]])
    costs = -(y * np.log(a)).sum(axis=1) if loss == "cross_entropy" else ((a - y) ** 2).sum(axis=1)
    found = jaxmlp.loss(params, Batch(jnp.asarray(x), jnp.array([0, 2, 1])), network)
    np.testing.assert_allclose(found, costs.mean(), rtol=1e-5)


def test_label_smoothing_of_a_single_output_leaves_half_of_it_to_either_label() -> None:
    network = Network((1, 1), output="sigmoid", loss="binary_cross_entropy", label_smoothing=0.2)
    a = jnp.full((2, 1), 0.5)
    np.testing.assert_allclose(smoothed(jnp.array([0, 1]), a, network), [[0.1], [0.9]], rtol=1e-6)


def test_l2_adds_half_of_the_squared_weights_and_no_biases() -> None:
    network = Network((2, 1), output="identity", l2=0.5)
    params = (jaxmlp.Layer(jnp.array([[1.0], [3.0]]), jnp.array([100.0])),)
    batch = Batch(jnp.array([[0.0, 0.0]]), jnp.array([[100.0]]))
    assert float(jaxmlp.loss(params, batch, network)) == 0.25 * 10
    (layer,) = jaxmlp.backprop(params, batch, network)
    assert layer.kernel.tolist() == [[0.5], [1.5]]
    assert layer.bias.tolist() == [0.0]


@pytest.mark.parametrize("function", [jaxmlp.loss, jaxmlp.backprop, jaxmlp.backpropagate])
def test_smoothing_of_targets_that_are_no_labels_is_refused(function: Callable) -> None:
    network = Network((3, 4, 2), label_smoothing=0.1)
    batch = Batch(jnp.ones((4, 3), jnp.float32), jnp.ones((4, 2), jnp.float32))
    with pytest.raises(
        NetworkError, match=r"label_smoothing is 0.1, but targets have shape \(4, 2\): expected labels, or 0"
    ):
        function(PARAMS_342, batch, network)


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
        (
            Batch(X, LABELS.astype(np.float32)),
            (3, 4, 2),
            r"targets are float32 of shape \(4,\), but there are 2 outputs: expected labels of a whole type",
        ),
        (Batch(X, LABELS, np.ones(1, np.float32)), (3, 4, 2), r"weights have shape \(1,\): expected \(4,\), one an"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(function: Callable, batch: Batch, sizes: tuple, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        function(PARAMS_342, batch, Network(sizes))


KERNELS = [layer.kernel for layer in PARAMS_342]
N342 = Network((3, 4, 2))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("function", [jaxmlp.loss, jaxmlp.backprop, jaxmlp.value_and_backprop, jaxmlp.backpropagate])
@pytest.mark.parametrize(
    ("params", "batch", "network", "message"),
    [
        (PARAMS_342, (X, LABELS), N342, r"the batch has type tuple: expected a jaxmlp.Batch\(inputs, targets\)"),
        (Batch(X, LABELS), PARAMS_342, N342, "the batch has type tuple"),
        (PARAMS_342, Batch(X.tolist(), LABELS), N342, "inputs have type list: expected arrays, as of jax.numpy.asarr"),
        (PARAMS_342, Batch(X, LABELS.tolist()), N342, "targets have type list"),
        (PARAMS_342, Batch(X, LABELS, [1.0] * 4), N342, "weights have type list"),
        (PARAMS_342, Batch(X, LABELS, np.ones(3)), N342, r"weights have shape \(3,\): expected \(4,\), one an example"),
        (PARAMS_342, Batch(X, LABELS), (3, 4, 2), "the network has type tuple: expected a jaxmlp.Network"),
        (
            [(W, W[0]) for W in KERNELS],
            Batch(X, LABELS),
            N342,
            r"one has type tuple: expected jaxmlp.Layer\(",
        ),
        ([Layer(W.tolist(), W[0]) for W in KERNELS], Batch(X, LABELS), N342, "kernels have type list"),
        (
            [Layer(W.astype(int), W[0]) for W in KERNELS],
            Batch(X, LABELS),
            N342,
            "kernels are int.., int..: expected",
        ),
    ],
)
def test_what_is_no_batch_network_or_parameters_is_refused(
    function: Callable, params: Any, batch: Any, network: Any, message: str
) -> None:
    with pytest.raises(NetworkError, match=message):
        function(params, batch, network)


@pytest.mark.usefixtures("unchecked")
def test_of_no_examples_there_is_no_mean() -> None:
    for function in (jaxmlp.loss, jaxmlp.backprop, jaxmlp.value_and_backprop):
        with pytest.raises(NetworkError, match="the batch has no examples: expected one or more, of which there is a"):
            function(PARAMS_342, Batch(X[:0], LABELS[:0]), N342)
    assert jaxmlp.forward(PARAMS_342, X[:0], N342).shape == (0, 2)


@pytest.mark.usefixtures("unchecked")
def test_parameters_may_be_a_list_of_layers_as_the_gradient_then_is() -> None:
    batch, listed = Batch(X, LABELS), [*PARAMS_342]
    gradient = jaxmlp.backprop(listed, batch, N342)
    assert jax.tree.structure(gradient) == jax.tree.structure(jax.grad(jaxmlp.loss)(listed, batch, N342))
    assert jaxmlp.loss(listed, batch, N342) == jaxmlp.loss(PARAMS_342, batch, N342)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_biases_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    params = (Layer(jnp.ones((3, 2), jnp.float32), jnp.ones(shape, jnp.float32)),)
    with pytest.raises(NetworkError, match=re.escape(f"biases have shapes ({shape},): expected those of 3-2")):
        jaxmlp.forward(params, jnp.asarray(X), Network((3, 2)))


@pytest.mark.parametrize("label", [-1, 3, 10])
@pytest.mark.parametrize(
    ("output", "loss"),
    [
        ("sigmoid", "squared_error"),
        ("relu", "squared_error"),
        ("identity", "absolute_error"),
        ("tanh", "huber"),
        ("softmax", "cross_entropy"),
        ("sigmoid", "binary_cross_entropy"),
    ],
)
def test_a_label_that_there_is_no_output_for_is_never_passed_over(label: int, output: str, loss: str) -> None:
    network = Network((2, 3), output=output, loss=loss)
    params = jaxmlp.init(jax.random.key(0), network)
    batch = Batch(jnp.ones((2, 2), jnp.float32), jnp.asarray([1, label]))
    assert jnp.isnan(jaxmlp.loss(params, batch, network))
    assert jnp.isnan(jaxmlp.backprop(params, batch, network)[0].bias).all()
    with pytest.raises(GradientError, match="the loss is not finite"):
        jaxmlp.check_gradients(jaxmlp.loss, jaxmlp.backprop, params, batch, network).raise_on_failure()


def test_a_label_in_8_bits_is_one_of_more_than_256_outputs() -> None:
    y = wanted(jnp.asarray([5], jnp.uint8), jnp.zeros((1, 300), jnp.float32))
    assert (int(y.sum()), int(y[0, 5])) == (1, 1)


def test_drawing_parameters_once_more_compiles_nothing() -> None:
    rows_drawn.clear_cache()
    for seed in range(3):
        jaxmlp.init(jax.random.key(seed), Network((7, 5, 3)))
    assert rows_drawn._cache_size() == 1
