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
from jax.flatten_util import ravel_pytree

import jaxmlp
from jaxmlp import Batch, Network, NetworkError, Trace, perexample
from jaxmlp.activations import ACTIVATIONS
from jaxmlp.losses import FUSED, LOSSES

NATURAL = {"squared_error": "sigmoid", "absolute_error": "identity", "huber": "tanh"} | {
    loss: output for loss, (output, _) in FUSED.items()
}
OUTPUTS = [*zip(ACTIVATIONS, itertools.cycle(LOSSES), strict=False), *((FUSED[loss][0], loss) for loss in FUSED)]

OF_THE_BATCH: dict[str, Callable[[Trace], Any]] = {
    "sum_of_squares": perexample.sum_of_squares,
    "mean_of_squares": perexample.mean_of_squares,
    "variance": perexample.variance,
    "total_variance": perexample.total_variance,
    "noise_scale": perexample.noise_scale,
    "clipped_sum": lambda trace: perexample.clipped_sum(trace, 0.7),
    "clipped_sum, layers": lambda trace: perexample.clipped_sum(trace, layer_norms(trace)),
    "clipped_gradient": lambda trace: perexample.clipped_gradient(trace, 0.7),
    "clipped_gradient, layers": lambda trace: perexample.clipped_gradient(trace, layer_norms(trace)),
    "kronecker_factors": perexample.kronecker_factors,
}
OF_AN_EXAMPLE: dict[str, Callable[[Trace], Any]] = {
    "layer_squared_norms": perexample.layer_squared_norms,
    "squared_norms": perexample.squared_norms,
    "gram": perexample.gram,
    "inner_products": lambda trace: perexample.inner_products(trace, jaxmlp.mean_gradient(trace)),
    "cosines": perexample.cosines,
}
QUANTITIES = OF_THE_BATCH | OF_AN_EXAMPLE | {"gradients": perexample.gradients}


def layer_norms(trace: Trace) -> jax.Array:
    return jnp.linspace(0.1, 0.5, len(trace.deltas), dtype=trace.losses.dtype)


@jax.jit  # of the trace alone, so that one program serves all networks of the same sizes
def everything(trace: Trace) -> dict[str, Any]:
    return {name: quantity(trace) for name, quantity in QUANTITIES.items()}


def make_batch(network: Network, count: int, seed: int, weighted: bool, dtype: str = "float64") -> Batch:
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 4, count)
    weights[:2] = 1
    return Batch(
        jnp.asarray(rng.normal(size=(count, network.sizes[0])), dtype),
        jnp.asarray(rng.integers(0, max(2, network.sizes[-1]), count).astype(np.int32)),
        jnp.asarray(weights, dtype) if weighted else None,
    )


def by_autodiff(params: jaxmlp.Params, batch: Batch, network: Network) -> list[np.ndarray]:
    """Every example's gradient through vmap(grad): a layer's kernel and bias in a row of a matrix, (B, parameters)."""

    def alone(x: jax.Array, y: jax.Array) -> jaxmlp.Params:
        return jax.grad(jaxmlp.loss)(params, Batch(x[None], y[None]), network)

    own = jax.jit(jax.vmap(alone))(batch.inputs, batch.targets)
    B = batch.inputs.shape[0]
    return [np.concatenate([np.asarray(leaf).reshape(B, -1) for leaf in layer], axis=1) for layer in own]


def unclipped(g: np.ndarray, norms: np.ndarray, C: float) -> np.ndarray:
    """g / max(1, |g| / C), as in algorithm 1 of Abadi 2016."""
    return g / np.maximum(1, norms / C)[:, None]


def twins(layers: list[np.ndarray], weights: np.ndarray | None) -> dict[str, np.ndarray]:
    """Every quantity from the materialised gradients; an example of weight w is there w times."""
    g = np.concatenate(layers, axis=1)
    w = np.ones(len(g), int) if weights is None else weights.astype(int)
    again, gbar = np.repeat(g, w, axis=0), np.repeat(g, w, axis=0).mean(axis=0)
    norms = np.linalg.norm(g, axis=1)
    clipped = unclipped(g, norms, 0.7)
    Cs = np.linspace(0.1, 0.5, len(layers))
    in_layers = [unclipped(part, np.linalg.norm(part, axis=1), C) for part, C in zip(layers, Cs, strict=True)]
    parts = np.concatenate(in_layers, axis=1)
    total = np.trace(np.atleast_2d(np.cov(again.T)))
    with np.errstate(invalid="ignore"):
        cosines = np.where(norms > 0, g @ gbar / (norms * np.linalg.norm(gbar)), 0)
    return {
        "gradients": g,
        "layer_squared_norms": np.stack([(part**2).sum(axis=1) for part in layers]),
        "squared_norms": norms**2,
        "gram": g @ g.T,
        "inner_products": g @ gbar,
        "cosines": cosines,
        "sum_of_squares": (again**2).sum(axis=0),
        "mean_of_squares": (again**2).mean(axis=0),
        "variance": again.var(axis=0, ddof=1),
        "total_variance": total,
        "noise_scale": np.array([total, gbar @ gbar - total / len(again)]),
        "clipped_sum": np.repeat(clipped, w, axis=0).sum(axis=0),
        "clipped_sum, layers": np.repeat(parts, w, axis=0).sum(axis=0),
        "clipped_gradient": np.repeat(clipped, w, axis=0).mean(axis=0),
        "clipped_gradient, layers": np.repeat(parts, w, axis=0).mean(axis=0),
    }


def flat(found: Any, name: str) -> np.ndarray:
    """Parameters in a row, an example's in a row of their own; what is an array stays one."""
    if isinstance(found, jax.Array):
        return np.asarray(found)
    axes = int(name == "gradients")
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(found)]
    return np.concatenate([leaf.reshape(*leaf.shape[:axes], -1) for leaf in leaves], axis=-1)


def assert_all_are_their_twins(network: Network, count: int, seed: int, weighted: bool) -> None:
    """To 1e-9 of the quantity's norm, in float64, and each example's norm and gradient to 1e-9 of its own."""
    with jax.enable_x64(True):
        params = jaxmlp.init(jax.random.key(seed), network, jnp.float64)
        batch = make_batch(network, count, seed, weighted)
        trace = jax.jit(jaxmlp.backpropagate, static_argnums=2)(params, batch, network)
        found = everything(trace)
        weights = None if batch.weights is None else np.asarray(batch.weights)
        expected = twins(by_autodiff(params, batch, network), weights)
        assert found.keys() - expected.keys() == {"kronecker_factors"}
        for name, twin in expected.items():
            ours = flat(found[name], name)
            assert ours.shape == twin.shape, name
            assert np.linalg.norm(ours - twin) <= 1e-9 * np.linalg.norm(twin) + 1e-300, name
        np.testing.assert_allclose(found["squared_norms"], expected["squared_norms"], rtol=1e-9)
        np.testing.assert_allclose(found["cosines"], expected["cosines"], rtol=0, atol=1e-9)


@pytest.mark.own_precision
@pytest.mark.parametrize(("activation", "loss"), list(zip(ACTIVATIONS, itertools.cycle(NATURAL), strict=False)))
def test_every_quantity_is_its_twin_by_autodiff_for_every_activation(activation: str, loss: str) -> None:
    assert_all_are_their_twins(Network((5, 4, 4, 3), activation, NATURAL[loss], loss), 7, seed=1, weighted=False)


@pytest.mark.own_precision
@pytest.mark.parametrize(("output", "loss"), OUTPUTS)
def test_every_quantity_is_its_twin_by_autodiff_for_every_output_and_loss(output: str, loss: str) -> None:
    assert_all_are_their_twins(Network((5, 4, 4, 3), "tanh", output, loss), 7, seed=2, weighted=True)


@pytest.mark.own_precision
@settings(max_examples=4)  # each compiles its own programs
@given(
    sizes=st.tuples(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(2, 12)),
    activation=st.sampled_from(list(ACTIVATIONS)),
    output=st.sampled_from(OUTPUTS),
    count=st.integers(2, 20),
    seed=st.integers(0, 10_000),
    weighted=st.booleans(),
)
def test_every_quantity_is_its_twin_by_autodiff_in_random_networks(
    sizes: tuple[list[int], int], activation: str, output: tuple[str, str], count: int, seed: int, weighted: bool
) -> None:
    assert_all_are_their_twins(Network((*sizes[0], sizes[1]), activation, *output), count, seed, weighted)


@pytest.mark.own_precision
@pytest.mark.parametrize("weighted", [False, True])
def test_kronecker_factors_are_those_of_the_layers_inputs_and_deltas(weighted: bool) -> None:
    network = Network((5, 4, 4, 3), "tanh")
    with jax.enable_x64(True):
        params = jaxmlp.init(jax.random.key(0), network, jnp.float64)
        batch = make_batch(network, 7, 0, weighted)
        factors = everything(jaxmlp.backpropagate(params, batch, network))["kronecker_factors"]
        w = np.ones(7, int) if batch.weights is None else np.asarray(batch.weights, int)
        for layer, own, (n_in, n_out) in zip(
            factors, by_autodiff(params, batch, network), itertools.pairwise(network.sizes), strict=True
        ):
            kernel, D = own[:, : n_in * n_out].reshape(7, n_in, n_out), own[:, n_in * n_out :]
            A = np.einsum("ijk,ik->ij", kernel, D) / (D**2).sum(axis=1)[:, None]  # since the kernel's is outer(A, D)
            for ours, rows in ((layer.inputs, A), (layer.deltas, D)):
                again = np.repeat(rows, w, axis=0)
                np.testing.assert_allclose(ours, again.T @ again / len(again), rtol=1e-9, atol=1e-12)


def make_trace(seed: int, count: int = 6, weights: Any = None) -> Trace:
    """Random lists of matrices, in float64: the laws hold of any."""
    rng = np.random.default_rng(seed)
    sizes = (3, 4, 2)
    scales = 10 ** rng.uniform(-3, 2, (count, 1))
    return Trace(
        inputs=tuple(jnp.asarray(rng.normal(size=(count, n))) for n in sizes[:-1]),
        deltas=tuple(jnp.asarray(scales * rng.normal(size=(count, n)) + 0.1) for n in sizes[1:]),
        losses=jnp.asarray(rng.random(count)),
        weights=None if weights is None else jnp.asarray(weights, jnp.float64),
    )


def rows(trace: Trace, which: Any) -> Trace:
    kept: Trace = jax.tree.map(lambda leaf: leaf[np.asarray(which)], trace)
    return kept


def norm(tree: Any) -> float:
    return float(jnp.linalg.norm(ravel_pytree(tree)[0]))


def assert_close(ours: Any, theirs: Any, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), ours, theirs)


SEEDS = st.integers(0, 10_000)
WEIGHTS = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), min_size=6, max_size=6)


@pytest.mark.own_precision
@settings(max_examples=30)
@given(seed=SEEDS, weights=WEIGHTS)
def test_the_gram_matrix_holds_the_norms_and_the_products_with_the_mean(seed: int, weights: list[float]) -> None:
    weights[0] = 1.0
    with jax.enable_x64(True):
        trace = make_trace(seed, weights=weights)
        found = everything(trace)
        gram = np.asarray(found["gram"])
        np.testing.assert_array_equal(gram, gram.T)
        assert_close(gram.diagonal(), found["squared_norms"])
        assert_close(gram @ weights, sum(weights) * found["inner_products"], atol=1e-9 * norm(gram))
        assert np.abs(found["cosines"]).max() <= 1


@pytest.mark.own_precision
@settings(max_examples=30)
@given(seed=SEEDS, weights=WEIGHTS, C=st.sampled_from([1e-3, 0.3, 7.0, 1e3]))
def test_no_example_moves_the_clipped_sum_by_more_than_its_weight_times_the_norm(
    seed: int, weights: list[float], C: float
) -> None:
    clipped = jax.jit(perexample.clipped_sum)
    with jax.enable_x64(True):
        trace = make_trace(seed, weights=weights)
        Cs = C * np.array([1.0, 2.0])
        sums = {1: clipped(trace, C), 2: clipped(trace, jnp.asarray(Cs))}
        for i, w in enumerate(weights):
            without = trace._replace(weights=trace.weights.at[i].set(0))
            for kind, (max_norm, most) in {1: (C, C), 2: (jnp.asarray(Cs), np.linalg.norm(Cs))}.items():
                moved = jax.tree.map(jnp.subtract, sums[kind], clipped(without, max_norm))
                assert norm(moved) <= w * most * (1 + 1e-9) + 1e-9 * norm(sums[kind])


@pytest.mark.parametrize(
    ("a", "d", "C"),
    [
        (1e20, 1e-20, 1.0),
        (1e19, 1e-20, 1e-3),
        (1e25, 0.0, 1.0),
        (1e-30, 1e-20, 1e-22),
        (1e25, 1e25, 1.0),
        (3e38, 3e38, 1.0),
    ],
)
@pytest.mark.parametrize("max_norm", [1, (1,)])
def test_a_clip_holds_where_squares_overflow_and_underflow(a: float, d: float, C: float, max_norm: Any) -> None:
    A, D = (jnp.asarray([[x], [1e-30]], jnp.float32) for x in (a, d))
    trace = Trace((A,), (D,), jnp.ones(2, jnp.float32), jnp.asarray([1.0, 0.0], jnp.float32))
    clipped = perexample.clipped_sum(trace, C * jnp.asarray(max_norm, jnp.float32))
    found = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(clipped)]).astype(float)
    own = np.array([a, 1.0]) * d
    expected = own * min(1, C / max(np.hypot(*own), 1e-300))
    if np.hypot(*own) < 3e38:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-30)
    assert np.hypot(*found) <= C * (1 + 1e-6)
    masked = perexample.clipped_sum(trace._replace(weights=jnp.asarray([0.0, 1.0], jnp.float32)), 1.0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(masked))


def test_an_example_without_a_gradient_leaves_a_clipped_sum_as_it_is_however_large_its_inputs() -> None:
    A, D = jnp.asarray([[3e38, 3e38], [1.0, 2.0]], jnp.float32), jnp.asarray([[0.0], [3.0]], jnp.float32)
    trace = Trace((A,), (D,), jnp.ones(2, jnp.float32), None)
    alone = jax.tree.map(lambda rows: rows[1:], trace)
    for max_norm in (1.0, jnp.ones(1)):
        both, one = (perexample.clipped_sum(some, max_norm) for some in (trace, alone))
        jax.tree.map(np.testing.assert_array_equal, both, one)


@pytest.mark.usefixtures("unchecked")
def test_a_norm_to_clip_to_may_be_a_list_or_traced() -> None:
    trace = make_trace(0)
    L = len(trace.deltas)
    expected = perexample.clipped_sum(trace, jnp.full(L, 0.5))
    for found in (
        perexample.clipped_sum(trace, [0.5] * L),
        jax.jit(lambda c: perexample.clipped_sum(trace, [c] * L))(jnp.float32(0.5)),
        jax.jit(perexample.clipped_sum)(trace, jnp.full(L, 0.5)),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)


@pytest.mark.usefixtures("unchecked")
def test_a_batch_of_no_examples_has_a_clipped_sum_of_0_and_no_mean() -> None:
    params = (jaxmlp.Layer(jnp.ones((3, 2), jnp.float32), jnp.ones(2, jnp.float32)),)
    batch = Batch(np.zeros((0, 3), np.float32), np.zeros(0, np.int32))
    trace = jaxmlp.backpropagate(params, batch, Network((3, 2)))
    assert not any(leaf.any() for leaf in jax.tree.leaves(perexample.clipped_sum(trace, 1.0)))
    with pytest.raises(NetworkError, match="the batch has no examples: expected one or more"):
        jaxmlp.mean_gradient(trace)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("max_norm", [0, -1.0, float("nan"), np.array([1.0, -1.0]), jnp.float32(-1)])
def test_a_norm_to_clip_to_is_above_0(max_norm: Any) -> None:
    with pytest.raises(NetworkError, match="max_norm is .*: expected a number above 0, or such a number for each"):
        perexample.clipped_sum(make_trace(0), max_norm)


@pytest.mark.own_precision
def test_a_clipped_gradient_has_the_norm_and_a_smaller_one_is_as_it_was() -> None:
    with jax.enable_x64(True):
        trace = make_trace(0)
        norms = np.sqrt(everything(trace)["squared_norms"])
        C = float(np.median(norms))
        for i in range(6):
            one = rows(trace, [i])
            clipped = perexample.clipped_sum(one, C)
            np.testing.assert_allclose(norm(clipped), min(C, norms[i]), rtol=1e-12)
            direction = jaxmlp.mean_gradient(one)
            assert_close(clipped, jax.tree.map(lambda leaf: leaf * min(1, C / norms[i]), direction))  # noqa: B023
        assert_close(perexample.clipped_gradient(trace, 2 * norms.max()), jaxmlp.mean_gradient(trace))


@pytest.mark.own_precision
@settings(max_examples=30)
@given(seed=SEEDS, weights=WEIGHTS)
def test_a_variance_is_never_negative_and_the_total_is_the_sum(seed: int, weights: list[float]) -> None:
    weights[:2] = [1.0, 2.0]
    with jax.enable_x64(True):
        found = everything(make_trace(seed, weights=weights))
        assert min(float(leaf.min()) for leaf in jax.tree.leaves(found["variance"])) >= 0
        np.testing.assert_allclose(found["total_variance"], flat(found["variance"], "variance").sum(), rtol=1e-9)


def test_a_variance_of_equal_gradients_is_not_negative_in_float32() -> None:
    for seed in range(20):
        one = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), make_trace(seed, 1))
        same = jax.tree.map(lambda leaf: jnp.repeat(leaf, 6, axis=0), one)
        found = everything(same)
        scale = float(found["squared_norms"][0])
        assert 0 <= float(found["total_variance"]) <= 1e-5 * scale
        assert flat(found["variance"], "variance").min() >= 0


def test_a_variance_in_float32_is_as_accurate_as_its_docstring_says() -> None:
    with jax.enable_x64(True):
        trace = make_trace(3, 6)
        true = flat(everything(trace)["variance"], "variance")
        gbar = flat(jaxmlp.mean_gradient(trace), "")
    short = everything(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), trace))
    relative = np.abs(flat(short["variance"], "variance") - true) / true
    assert (relative <= 16 * np.finfo(np.float32).eps * (1 + gbar**2 / true)).all()


@pytest.mark.own_precision
@settings(max_examples=20)
@given(seed=SEEDS, mask=st.lists(st.booleans(), min_size=4, max_size=4))
def test_a_mask_is_leaving_the_example_out(seed: int, mask: list[bool]) -> None:
    mask = [True, *mask, True]
    with jax.enable_x64(True):
        trace = make_trace(seed, weights=mask)
        masked, dropped = everything(trace), everything(rows(trace, mask)._replace(weights=None))
        for name in OF_THE_BATCH:
            assert_close(masked[name], dropped[name], atol=1e-9 * norm(dropped[name]))
        for name in ("cosines", "inner_products"):
            assert_close(masked[name][np.array(mask)], dropped[name], atol=1e-9 * norm(dropped[name]))


@pytest.mark.own_precision
@settings(max_examples=20)
@given(seed=SEEDS, weights=st.permutations([1, 2, 3, 0, 1, 1]))
def test_a_weight_is_how_many_times_the_example_is_there(seed: int, weights: list[int]) -> None:
    with jax.enable_x64(True):
        trace = make_trace(seed, weights=weights)
        again = rows(trace._replace(weights=None), np.repeat(np.arange(6), weights))
        weighted, repeated = everything(trace), everything(again)
        for name in OF_THE_BATCH:
            assert_close(weighted[name], repeated[name], atol=1e-9 * norm(repeated[name]))


def test_a_ragged_batchs_fill_leaves_no_mark() -> None:
    network = Network((3, 4, 2))
    params = jaxmlp.init(jax.random.key(0), network, jnp.float32)
    batch = make_batch(network, 4, 0, weighted=False, dtype="float32")
    filled = Batch(
        jnp.concatenate([batch.inputs, 1e3 * jnp.ones((3, 3), jnp.float32)]),
        jnp.concatenate([batch.targets, batch.targets[:3]]),
        jnp.asarray([1, 1, 1, 1, 0, 0, 0], jnp.float32),
    )
    ragged, true = (everything(jaxmlp.backpropagate(params, b, network)) for b in (filled, batch))
    for name in OF_THE_BATCH:
        assert_close(ragged[name], true[name], rtol=1e-4, atol=1e-6)
    assert_close(ragged["cosines"][:4], true["cosines"], rtol=1e-4, atol=1e-6)


@pytest.mark.own_precision
def test_an_examples_gradient_is_of_its_own_cost_and_not_of_its_share_in_the_mean() -> None:
    with jax.enable_x64(True):
        trace = make_trace(0)
        once, twice = everything(trace), everything(rows(trace, [*range(6), *range(6)]))
        for name in ("gradients", "squared_norms", "cosines", "inner_products"):
            assert_close(jax.tree.map(lambda leaf: leaf[:6], twice[name]), once[name])
        for name in ("mean_of_squares", "clipped_gradient", "kronecker_factors"):
            assert_close(twice[name], once[name])
        for name in ("sum_of_squares", "clipped_sum"):
            assert_close(twice[name], jax.tree.map(lambda leaf: 2 * leaf, once[name]))


def by_deltas(*deltas: float, weights: Any = None) -> Trace:
    """One weight and one bias: input 0, so that the gradients are (0, D_i)."""
    D = jnp.asarray(deltas, jnp.float32)
    w = None if weights is None else jnp.asarray(weights, jnp.float32)
    return Trace((jnp.zeros((len(deltas), 1), jnp.float32),), (D[:, None],), jnp.ones_like(D), w)


def test_the_variance_is_the_unbiased_one() -> None:
    found = everything(by_deltas(1.0, 3.0, 5.0))
    np.testing.assert_allclose(found["variance"][0].bias, [4.0], rtol=1e-6)  # 8 / 3 would be the biased one
    np.testing.assert_allclose(found["total_variance"], 4.0, rtol=1e-6)


def test_the_bias_has_its_share_of_the_norm() -> None:
    assert everything(by_deltas(3.0, -2.0))["squared_norms"].tolist() == [9.0, 4.0]


@pytest.mark.own_precision
def test_gradients_of_zero_are_no_nan() -> None:
    with jax.enable_x64(True):
        for deltas in ((0.0, 0.0), (0.0, 2.0), (1.0, -1.0)):
            found = everything(by_deltas(*deltas))
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
        assert everything(by_deltas(0.0, 2.0))["cosines"].tolist() == [0.0, 1.0]
        assert everything(by_deltas(1.0, -1.0))["cosines"].tolist() == [0.0, 0.0]  # the mean is 0


@pytest.mark.parametrize("weights", [[1, 0, 0], [0.25, 0.5, 0.25], [0, 0, 0]])
def test_a_variance_of_one_example_or_of_shares_is_nan(weights: list[float]) -> None:
    found = everything(by_deltas(1.0, 2.0, 4.0, weights=weights))
    assert np.isnan(found["total_variance"])
    assert np.isnan(flat(found["variance"], "variance")).all()


def test_the_clipped_sum_of_no_example_is_zero() -> None:
    found = everything(by_deltas(1.0, 2.0, weights=[0, 0]))
    assert norm(found["clipped_sum"]) == norm(found["clipped_sum, layers"]) == 0


@pytest.mark.own_precision
def test_gradients_can_be_made_a_few_at_a_time() -> None:
    with jax.enable_x64(True):
        trace = make_trace(0, 7, weights=[1] * 7)
        assert_close(jax.lax.map(perexample.gradients, trace, batch_size=3), perexample.gradients(trace), rtol=0)


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused_with_the_shape_that_would() -> None:
    trace = by_deltas(1.0, 2.0)
    with pytest.raises(NetworkError, match=r"max_norm has shape \(2,\): expected a number, or one a layer, \(1,\)"):
        perexample.clipped_sum(trace, jnp.ones(2))
    with pytest.raises(
        NetworkError, match=r"coefficients have shape \(3,\): expected \(2,\), or \(1, 2\), a row a layer"
    ):
        perexample.combined(trace, jnp.ones(3))
    wide, many = (jaxmlp.Layer(jnp.ones((3, 1)), jnp.ones(1)),), (jaxmlp.Layer(jnp.ones((1, 1)), jnp.ones(3)),)
    for other, shapes in ((wide, "[((3, 1), (1,))]"), (many, "[((1, 1), (3,))]"), ((), "[]")):
        with pytest.raises(NetworkError, match=re.escape(f"have shapes {shapes}: expected [((1, 1), (1,))]")):
            perexample.inner_products(trace, other)
    for quantity in (perexample.clipped_sum, perexample.clipped_gradient):
        with pytest.raises(NetworkError, match=r"weights have shape \(1,\): expected \(2,\)"):
            quantity(trace._replace(weights=jnp.ones(1)), 1.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_quantity_has_the_type_of_the_trace(dtype: str) -> None:
    trace = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), make_trace(0))
    for weights in (None, jnp.ones(6, jnp.float32)):
        shapes = jax.eval_shape(everything, trace._replace(weights=weights))
        assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(dtype)}


@pytest.mark.own_precision
def test_every_quantity_works_under_vmap_over_networks_and_in_a_scan_over_batches() -> None:
    network = Network((5, 4, 4, 3), "tanh")
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 3)
        stacked = jax.vmap(lambda key: jaxmlp.init(key, network, jnp.float64))(keys)
        batches = [make_batch(network, 7, seed, weighted=True) for seed in range(3)]
        batch: Batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)

        def of_one(params: jaxmlp.Params, batch: Batch) -> dict[str, Any]:
            return everything(jaxmlp.backpropagate(params, batch, network))

        mapped = jax.jit(jax.vmap(of_one))(stacked, batch)
        _, scanned = jax.lax.scan(lambda _, at: (None, of_one(*at)), None, (stacked, batch))
        for i, one in enumerate(batches):
            alone = of_one(jax.tree.map(lambda leaf: leaf[i], stacked), one)  # noqa: B023
            for many in (mapped, scanned):
                assert_close(jax.tree.map(lambda leaf: leaf[i], many), alone)  # noqa: B023


def scratch(quantity: Callable[[Trace], Any], count: int) -> int:
    """Bytes of scratch memory of the program from parameters and batch to the quantity."""
    network = Network((784, 64, 10), "relu")
    params = jax.eval_shape(lambda: jaxmlp.init(jax.random.key(0), network, jnp.float32))
    batch = Batch(
        jax.ShapeDtypeStruct((count, 784), np.float32),
        jax.ShapeDtypeStruct((count,), np.int32),
        jax.ShapeDtypeStruct((count,), np.float32),
    )
    own_way = {"xla_cpu_use_fusion_emitters": True, "xla_backend_optimization_level": 3}  # XLA's, not the tests'
    lowered = jax.jit(lambda p, b: quantity(jaxmlp.backpropagate(p, b, network))).lower(params, batch)
    bytes_: int = lowered.compile(own_way).memory_analysis().temp_size_in_bytes
    return bytes_


def test_scratch_memory_grows_with_the_activations_and_not_with_the_gradients_of_every_example() -> None:
    together = {name: quantity for name, quantity in QUANTITIES.items() if name not in ("gradients", "gram")}

    def growth(quantity: Callable[[Trace], Any]) -> float:
        return (scratch(quantity, 192) - scratch(quantity, 64)) / 128

    units, parameters = 784 + 64 + 10, 785 * 64 + 65 * 10
    assert growth(lambda trace: {name: quantity(trace) for name, quantity in together.items()}) <= 4 * 4 * units
    # the count would notice: B gradients that are made on the way
    assert (
        growth(lambda trace: [jnp.sort(leaf, axis=0)[0] for leaf in jax.tree.leaves(perexample.gradients(trace))])
        >= 4 * parameters
    )


@pytest.mark.own_precision
def test_inner_products_take_any_direction() -> None:
    with jax.enable_x64(True):
        trace = make_trace(0)
        v = perexample.variance(make_trace(1))
        g = flat(perexample.gradients(trace), "gradients")
        assert_close(perexample.inner_products(trace, v), g @ flat(v, ""))
