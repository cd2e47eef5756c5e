import itertools
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmlp
from jaxmlp import Batch, Layer, Network, Params, Trace
from jaxmlp.activations import ACTIVATIONS
from jaxmlp.losses import FUSED, LOSSES
from jaxmlp.training.config import QuantityName
from jaxmlp.training.epoch import flip
from jaxmlp.training.instruments import EDGES, INSTRUMENTS, Step, measure, slopes

pytestmark = pytest.mark.own_precision
NETWORK = Network((5, 4, 4, 3), "tanh")
RATE = 0.3
QUANTITIES: tuple[QuantityName, ...] = get_args(QuantityName)
OUTPUTS = [*zip(ACTIVATIONS, itertools.cycle(LOSSES), strict=False), *((FUSED[loss][0], loss) for loss in FUSED)]


@pytest.fixture(autouse=True)
def float64() -> Any:
    with jax.enable_x64(True):
        yield


def make_params(seed: int, network: Network = NETWORK, scale: float = 1.0) -> Params:
    params = jaxmlp.init(jax.random.key(seed), network, jnp.float64)
    return jax.tree.map(lambda leaf: scale * leaf + 0.1, params)


def make_batch(seed: int, weights: Any = None, count: int = 7, inputs: int = 5, outputs: int = 3) -> Batch:
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(count, inputs)), rng.integers(0, max(2, outputs), count).astype(np.int32)
    return Batch(jnp.asarray(x), jnp.asarray(labels), None if weights is None else jnp.asarray(weights, jnp.float64))


def by_hand(params: Params, start: Params, batch: Batch, network: Network) -> dict[str, Any]:
    """What a step of gradient descent records."""
    trace, units = pass_of(params, batch, network)
    gradient = jaxmlp.mean_gradient(trace)
    after = jax.tree.map(lambda p, g: p - RATE * g, params, gradient)
    return everything(Step(trace, *map(flip, (gradient, params, after, start)), units))


@partial(jax.jit, static_argnums=2)
def pass_of(params: Params, batch: Batch, network: Network) -> tuple[Trace, tuple[jax.Array, ...]]:
    return jaxmlp.backpropagate(params, batch, network), slopes(params, batch, network)


@jax.jit  # of the step alone, so that one program serves all networks of the same sizes
def everything(step: Step) -> dict[str, Any]:
    return measure(step, QUANTITIES)


def twin_slopes(params: Params, batch: Batch, network: Network) -> list[np.ndarray]:
    """df(z)_j / dz_j of every hidden unit j, by forward-mode autodiff of the activation."""
    f, a, found = ACTIVATIONS[network.activation].forward, batch.inputs, []
    for layer in params[:-1]:
        z = a @ layer.kernel + layer.bias[None]
        found.append(np.asarray(jnp.diagonal(jax.vmap(jax.jacfwd(lambda row: f(row[None])[0]))(z), axis1=1, axis2=2)))
        a = f(z)
    return found


def layers_of(tree: Any, axes: int = 0) -> list[np.ndarray]:
    """Each layer's kernel and bias in a row, behind so many leading axes."""
    return [
        np.concatenate([np.asarray(leaf).reshape(*leaf.shape[:axes], -1) for leaf in layer], axis=-1) for layer in tree
    ]


def twins(params: Params, start: Params, batch: Batch, network: Network) -> dict[str, Any]:
    """The same through vmap(grad), the masked ones left out and the others there as often as they count."""

    def cost(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return jaxmlp.loss(params, Batch(x[None], y[None]), network)

    values, own = jax.vmap(jax.value_and_grad(cost), (None, 0, 0))(params, batch.inputs, batch.targets)
    B = len(values)
    w = np.ones(B, int) if batch.weights is None else np.asarray(batch.weights, int)
    each = np.repeat(np.arange(B), w)
    layers = layers_of(own, axes=1)
    alone, g = np.concatenate(layers, axis=1), np.concatenate(layers, axis=1)[each]
    W, gbar = len(g), g.mean(axis=0)
    means = [layer[each].mean(axis=0) for layer in layers]
    Sigma, norm = g.var(axis=0, ddof=1).sum(), np.linalg.norm(gbar)
    p = g @ gbar / norm
    across = g - np.outer(p, gbar / norm)
    variance = g.var(axis=0, ddof=1)
    varying = variance > B * np.finfo(float).eps * gbar**2
    gsnr = (gbar[varying] ** 2 / variance[varying]).mean()
    before, origin = layers_of(params), layers_of(start)
    after = [theta - RATE * mean for theta, mean in zip(before, means, strict=True)]

    flat = [np.abs(slope) < 0.01 for slope in twin_slopes(params, batch, network)]
    norms = np.linalg.norm(alone, axis=1)
    edges = np.array([0, *EDGES, np.inf])
    return {
        "lost": {
            "orthogonality_test": (g**2).sum() / (across**2).sum(),
            "inner_product_test": (p**2).sum() / ((p - norm) ** 2).sum(),
            "norm_test": (g**2).sum() / (W * Sigma),
            "noise_scale": max((g**2).sum() / (W * Sigma), Sigma / W / abs(norm**2 - Sigma / W)),
            "gsnr": (gbar[varying] ** 2 / variance[varying]).max(),
            "early_stopping": W * gsnr / abs(1 - W * gsnr) * (gbar[varying] ** 2 / variance[varying]).max(),
        },
        "loss": np.asarray(values)[each].mean(),
        "noise_scale": np.array([Sigma, (norm**2 * W - (g**2).sum(axis=1).mean()) / (W - 1)]),  # appendix A.1
        "norm_test": np.sqrt(Sigma / W) / norm,
        "inner_product_test": np.sqrt(p.var(ddof=1) / W) / norm,
        "orthogonality_test": np.sqrt((across**2).sum() / (W - 1) / W) / norm,
        "gsnr": gsnr,
        "early_stopping": 1 - W * gsnr,
        "gradient_norm": np.array([np.linalg.norm(mean) for mean in means]),
        "gradient_histogram": np.array([np.histogram(np.abs(mean), edges)[0] for mean in means]),
        "update_size": np.array([np.linalg.norm(b - a) for a, b in zip(before, after, strict=True)]),
        "update_ratio": np.array(
            [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in zip(before, after, strict=True)]
        ),
        "distance": np.array([np.linalg.norm(b - a) for a, b in zip(origin, after, strict=True)]),
        "saturation": np.array([one[each].mean() for one in flat]),
        "dead_units": np.array([one[each].all(axis=0).mean() for one in flat]),
        "example_losses": np.where(w > 0, values, np.nan),
        "example_norms": np.where(w > 0, norms, np.nan),
        "example_cosines": np.where(w > 0, alone @ gbar / np.where(norms > 0, norms, 1) / norm, np.nan),
    }


def assert_all_are_their_twins(params: Params, start: Params, batch: Batch, network: Network) -> dict[str, Any]:
    """To 1e-9, but that what is a difference of squares loses the digits that its docstring says."""
    found, expected = by_hand(params, start, batch, network), twins(params, start, batch, network)
    assert found.keys() == expected.keys() - {"lost"} == {*INSTRUMENTS}
    rounding = 100 * np.finfo(float).eps
    for name, twin in expected.items():
        if name != "lost":
            rtol = max(1e-9, rounding * expected["lost"].get(name, 0))
            np.testing.assert_allclose(found[name], twin, rtol=rtol, atol=1e-13, err_msg=name)
    return found


@pytest.mark.parametrize("weights", [None, [1, 1, 1, 1, 1, 0, 0], [0, 2, 1, 3, 0, 1, 1]])
@pytest.mark.parametrize("scale", [1.0, 3.0])  # the larger one saturates
def test_every_instrument_is_its_twin_by_autodiff_whatever_is_masked(weights: Any, scale: float) -> None:
    found = assert_all_are_their_twins(make_params(1, scale=scale), make_params(2), make_batch(3, weights), NETWORK)
    if scale > 1:
        assert np.asarray(found["saturation"]).max() > 0.1


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_instrument_is_its_twin_by_autodiff_for_every_activation(activation: str) -> None:
    network = Network((5, 4, 4, 3), activation)
    params = make_params(1, network, scale=2.0)
    assert_all_are_their_twins(params, make_params(2, network), make_batch(3, [1, 1, 1, 1, 1, 1, 0]), network)


@pytest.mark.parametrize(("output", "loss"), OUTPUTS)
def test_every_instrument_is_its_twin_by_autodiff_for_every_output_and_loss(output: str, loss: str) -> None:
    network = Network((5, 4, 4, 3), "tanh", output, loss)
    assert_all_are_their_twins(make_params(1, network), make_params(2, network), make_batch(3), network)


@settings(max_examples=4)  # each compiles its own programs
@given(
    sizes=st.tuples(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(2, 12)),
    activation=st.sampled_from(list(ACTIVATIONS)),
    output=st.sampled_from(OUTPUTS),
    count=st.integers(2, 12),
    seed=st.integers(0, 10_000),
)
def test_every_instrument_is_its_twin_by_autodiff_in_random_networks(
    sizes: tuple[list[int], int], activation: str, output: tuple[str, str], count: int, seed: int
) -> None:
    with jax.enable_x64(True):
        network = Network((*sizes[0], sizes[1]), activation, *output)
        weights = np.random.default_rng(seed).integers(0, 4, count)
        weights[:2] = 1
        batch = make_batch(seed, weights, count, sizes[0][0], sizes[1])
        assert_all_are_their_twins(make_params(seed, network), make_params(seed + 1, network), batch, network)


def test_a_weight_whose_gradient_is_the_same_for_every_example_has_no_part_in_the_signal_to_noise_ratio() -> None:
    network = Network((1, 1), output="identity", loss="absolute_error")
    params = (Layer(jnp.ones((1, 1)), jnp.zeros(1)),)
    inputs = jnp.asarray([[0.3], [0.7], [0.1]])
    for weights in (None, jnp.asarray([0.1, 1.7, 3.3])):  # whose mean of equal squares is not the square of their mean
        batch = Batch(inputs, inputs - 1.0, weights)  # too high by 1: the bias's gradient is 1 for every example
        w = np.ones(3) if weights is None else np.asarray(weights)
        x, W = np.asarray(inputs)[:, 0], w.sum()
        mean = (w * x).sum() / W
        variance = (w * (x - mean) ** 2).sum() / (W - 1)
        np.testing.assert_allclose(by_hand(params, params, batch, network)["gsnr"], mean**2 / variance, rtol=1e-9)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), fill=st.integers(1, 4), scale=st.sampled_from([0.3, 2.0]))
def test_the_fill_of_a_ragged_batch_changes_nothing(seed: int, fill: int, scale: float) -> None:
    with jax.enable_x64(True):
        params, start = make_params(seed, scale=scale), make_params(seed + 1)
        batch = make_batch(seed)
        mask = np.arange(7) < 7 - fill
        masked = batch._replace(weights=jnp.asarray(mask, jnp.float64))
        short = Batch(*(rows[: 7 - fill] for rows in batch[:2]))
        found, alone = by_hand(params, start, masked, NETWORK), by_hand(params, start, short, NETWORK)
        for name, value in found.items():
            values = np.asarray(value)[mask] if name.startswith("example_") else value
            np.testing.assert_allclose(values, alone[name], rtol=1e-9, atol=1e-13, err_msg=name)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_the_tests_of_a_batch_size_are_pythagoras(seed: int) -> None:
    with jax.enable_x64(True):
        found = by_hand(make_params(seed), make_params(seed), make_batch(seed), NETWORK)
        legs = found["inner_product_test"] ** 2 + found["orthogonality_test"] ** 2
        np.testing.assert_allclose(legs, found["norm_test"] ** 2, rtol=1e-9)


def test_the_noise_scales_two_parts_are_unbiased() -> None:
    """Over all pairs of a population's gradients, of which the means are known."""
    network = Network((1, 1), output="identity")
    params, x, y = (Layer(jnp.ones((1, 1)), jnp.zeros(1)),), np.array([1.0, 2, -1, 3]), np.array([0.0, 5, 1, -2])
    parts = []
    for i in range(4):
        for j in range(4):  # with replacement: independent draws
            pair = Batch(jnp.asarray(x[[i, j], None]), jnp.asarray(y[[i, j], None]))
            parts.append(np.asarray(by_hand(params, params, pair, network)["noise_scale"]))
    g = 2 * (x - y)[:, None] * np.stack([x, np.ones(4)], axis=1)
    np.testing.assert_allclose(np.mean(parts, axis=0), [g.var(axis=0).sum(), (g.mean(axis=0) ** 2).sum()], rtol=1e-9)


def test_a_single_example_has_no_variance_and_everything_else() -> None:
    found = by_hand(make_params(0), make_params(1), make_batch(0, count=1), NETWORK)
    unknown = {name for name, value in found.items() if not np.isfinite(value).all()}
    variances = {"noise_scale", "norm_test", "inner_product_test", "orthogonality_test", "gsnr", "early_stopping"}
    assert unknown == variances


@pytest.mark.parametrize("activation", ["relu", "softmax"])
def test_a_units_slope_says_whether_it_is_dead(activation: str) -> None:
    network = Network((5, 4, 3), activation)
    params = make_params(0, network)
    off = params[0].bias.at[0].set(-1e3)
    params = (params[0]._replace(bias=off), params[1])
    dead = by_hand(params, params, make_batch(0), network)["dead_units"]
    assert dead.shape == (1,)
    assert dead[0] >= 0.25


def test_a_network_without_hidden_layers_has_no_units_to_watch() -> None:
    network = Network((5, 3), output="softmax", loss="cross_entropy")
    found = by_hand(make_params(0, network), make_params(1, network), make_batch(0), network)
    assert found["saturation"].shape == found["dead_units"].shape == (0,)
    assert found["gradient_norm"].shape == (1,)


def test_a_unit_is_dead_whatever_it_does_on_the_fill() -> None:
    network = Network((1, 1, 3), "tanh")
    params = (Layer(jnp.ones((1, 1)), jnp.zeros(1)), Layer(jnp.ones((1, 3)), jnp.zeros(3)))
    batch = Batch(jnp.array([[9.0], [-9.0], [0.0]]), jnp.array([0, 1, 2], jnp.int32), jnp.array([1.0, 1, 0]))
    found = by_hand(params, params, batch, network)
    assert (found["dead_units"], found["saturation"]) == (1, 1)
    alive = by_hand(params, params, batch._replace(weights=None), network)
    assert alive["dead_units"] == 0
