"""The gradient check: no false alarm for a right gradient, no silence for a wrong one, and its cause."""

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import jaxmlp
from jaxmlp import GradientCheck, GradientError, check_gradients
from jaxmlp.activations import ACTIVATIONS
from jaxmlp.losses import FUSED, LOSSES

DTYPES = ("float32", "float64")
PAIRS = [*((own, loss) for loss, (own, _) in FUSED.items()), *itertools.product(ACTIVATIONS, LOSSES)]


def random_case(
    network: jaxmlp.Network, examples: int, kind: str, dtype: str, seed: int
) -> tuple[jaxmlp.Params, jaxmlp.Batch]:
    """Parameters and a batch whose targets are labels, dense, or dense with weights (of which some are 0)."""
    rng = np.random.default_rng(seed)

    def array(x: np.ndarray) -> jax.Array:
        return jnp.asarray(x.astype(dtype))

    params = tuple(
        jaxmlp.Layer(array(rng.normal(size=(m, n)) / np.sqrt(m)), array(0.3 * rng.normal(size=n)))
        for m, n in itertools.pairwise(network.sizes)
    )
    labels = jnp.asarray(rng.integers(0, max(network.sizes[-1], 2), examples).astype(np.int32))
    dense = array(rng.uniform(size=(examples, network.sizes[-1])))
    weights = array(rng.integers(0, 3, examples) + np.eye(1, examples)[0]) if kind == "weighted" else None
    inputs = array(rng.uniform(size=(examples, network.sizes[0])))
    return params, jaxmlp.Batch(inputs, labels if kind == "labels" else dense, weights)


def check_network(network: jaxmlp.Network, examples: int, kind: str, seed: int) -> None:
    check = GradientCheck(jaxmlp.loss, jaxmlp.backprop)
    for dtype in DTYPES:
        with jax.enable_x64(dtype == "float64"):
            check(*random_case(network, examples, kind, dtype, seed), network).raise_on_failure()


def covering() -> list[tuple[str, str, str, int, str]]:
    """Every pair of output and loss, each with an activation, a depth and a kind of targets, in mixed order."""
    rng = np.random.default_rng(0)
    count = len(PAIRS)
    columns = [
        [(names * count)[i] for i in rng.permutation(count)]
        for names in (list(ACTIVATIONS) * 1, [0, 1, 2, 5], ["labels", "dense", "weighted"])
    ]
    return [(a, *pair, depth, kind) for pair, a, depth, kind in zip(PAIRS, *columns, strict=True)]


@pytest.mark.own_precision
@pytest.mark.parametrize(("activation", "output", "loss", "hidden", "kind"), covering()[::3])
def test_backprop_passes_for_every_activation_output_loss_depth_and_kind_of_targets(
    activation: str, output: str, loss: str, hidden: int, kind: str
) -> None:
    check_network(jaxmlp.Network((4, *[5] * hidden, 3), activation, output, loss), 6, kind, seed=hidden)


@pytest.mark.own_precision
@settings(max_examples=4)
@given(st.data())
def test_no_false_alarm_for_sizes_and_batches_from_1_to_300(data: st.DataObject) -> None:
    size = st.integers(1, 300)
    sizes = data.draw(st.lists(size, min_size=2, max_size=4))
    output, loss = data.draw(st.sampled_from([pair for pair in PAIRS if pair[0] != "softmax" or sizes[-1] > 1]))
    network = jaxmlp.Network(tuple(sizes), data.draw(st.sampled_from(list(ACTIVATIONS))), output, loss)
    kind = data.draw(st.sampled_from(["labels", "dense", "weighted"]))
    check_network(network, data.draw(size), kind, seed=data.draw(st.integers(0, 1000)))


def sines(w: jax.Array) -> jax.Array:
    return jnp.sum(jnp.sin(w))


def with_rule(factor: float) -> Callable[[jax.Array], jax.Array]:
    """sum(sin(w)) with a rule of its own, wrong by a factor."""
    ruled = jax.custom_vjp(sines)
    ruled.defvjp(lambda w: (sines(w), w), lambda w, c: (c * jnp.cos(w) * factor,))
    return ruled


def test_of_a_gradient_that_is_0_it_is_said_that_little_can_be_told() -> None:
    def loss(params: dict[str, jax.Array]) -> jax.Array:
        return jnp.sum(jnp.sin(params["a"]) ** 2) + jnp.sum(jnp.sin(params["b"]))

    report = check_gradients(
        loss, lambda params: {"a": 2 * params["a"], "b": jnp.cos(params["b"])}, {"a": jnp.zeros(3), "b": jnp.ones(3)}
    )
    assert report.passed  # whatever factor stands before sin cos
    assert report.notes == ("['a']: every element is 0, as of many a wrong gradient here: check at other parameters",)


@pytest.mark.parametrize(("factor", "name"), [(-1, "the sign -1"), (2, "2")])
@pytest.mark.parametrize("w", [[0.0, 3.0, -2.0, 4.0], [0.0, 1.0, -2.0, 3.0, -4.0, 5.0]])
def test_the_cause_is_that_of_the_elements_that_are_at_no_kink(factor: int, name: str, w: list[float]) -> None:
    report = check_gradients(lambda w: jnp.sum(jnp.abs(w)), lambda w: factor * jnp.sign(w), jnp.asarray(w))
    assert not report
    assert report.causes == (f"params: the gradient times {name}",)


@pytest.mark.parametrize("size", [5, 500])
def test_a_custom_vjp_is_checked_by_finite_differences(size: int) -> None:
    w = jnp.linspace(0.0, 3.0, size)
    right, wrong = with_rule(1.0), with_rule(1.001)
    report = check_gradients(right, jax.grad(right), w)
    assert report.passed
    assert "only independent witness" in report.notes[0]
    report = check_gradients(wrong, jax.grad(wrong), w)
    assert not report.passed
    assert "finite differences contradict" in report.leaves[0].reason


def test_a_right_gradient_passes_where_the_losss_own_rule_is_wrong() -> None:
    report = check_gradients(with_rule(1.001), jnp.cos, jnp.linspace(0.0, 3.0, 5))
    assert report.passed
    assert any("contradict jax.grad" in note for note in report.notes)


@pytest.mark.parametrize("convention", [0.0, 0.5, 1.0])
def test_any_convention_at_a_kink_passes_and_is_reported(convention: float) -> None:
    def gradient(w: jax.Array) -> jax.Array:
        return jnp.where(w == 0, jnp.full_like(w, convention), (w > 0).astype(w.dtype))

    report = check_gradients(lambda w: jnp.sum(jax.nn.relu(w)), gradient, jnp.array([1.0, -2.0, 0.0, 3.0]))
    assert report.passed
    assert report.leaves[0].status == "kink"
    assert report.leaves[0].kinks == 1


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_a_network_at_its_kinks_passes_and_says_so(activation: str) -> None:
    network = jaxmlp.Network((6, 5, 4, 3), activation)
    params = jaxmlp.init(jax.random.key(0), network)
    # with no bias yet, an empty image gives z = 0
    inputs = jax.random.uniform(jax.random.key(1), (8, 6), jnp.float32).at[2].set(0)
    report = check_gradients(jaxmlp.loss, jaxmlp.backprop, params, jaxmlp.Batch(inputs, jnp.arange(8) % 3), network)
    report.raise_on_failure()
    assert report.leaves[1].status == "kink"


def test_an_error_beside_or_beyond_a_kink_is_caught() -> None:
    w = jnp.array([1.0, -2.0, 0.0, 3.0])
    for bad in ([1, 0, 0, 1.001], [1, 0, -3, 1], [1, 0, 3, 1]):
        assert not check_gradients(
            lambda w: jnp.sum(jax.nn.relu(w)), lambda w, bad=bad: jnp.asarray(bad, w.dtype), w
        ).passed


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precisions_give_true_answers(dtype: str) -> None:
    network = jaxmlp.Network((20, 8, 5))
    params, batch = random_case(network, 16, "labels", dtype, seed=0)
    report = check_gradients(jaxmlp.loss, jaxmlp.backprop, params, batch, network)
    report.raise_on_failure()
    assert all(
        leaf.norm_manual > 0 and leaf.rounding is not None and leaf.rounding.manual > 0 for leaf in report.leaves
    )

    def slightly_wrong(*args: object) -> jaxmlp.Params:
        return jax.tree.map(lambda g: (g.astype(jnp.float32) * 1.001).astype(g.dtype), jaxmlp.backprop(*args))

    assert not check_gradients(jaxmlp.loss, slightly_wrong, params, batch, network).passed or dtype == "bfloat16"


def test_an_underflow_is_reported_and_the_gradient_judged_by_its_algebra() -> None:
    def loss(w: jax.Array) -> jax.Array:
        return jnp.mean((w * jnp.asarray(1e-3, w.dtype)) ** 2)

    def gradient(w: jax.Array) -> jax.Array:
        return 2 * w * jnp.asarray(1e-6, w.dtype) / w.size

    report = check_gradients(loss, gradient, jnp.ones(100, jnp.float16))
    assert report.passed
    assert "underflows to 0 in float16" in report.notes[0]
    assert not check_gradients(loss, lambda w: 0 * w, jnp.ones(100, jnp.float16)).passed


def test_a_formula_that_loses_its_digits_in_float32_fails_there() -> None:
    def unstable(w: jax.Array) -> jax.Array:  # (1 - cos w) / sin w, which is tan(w / 2)
        return (1 - jnp.cos(w)) / jnp.sin(w)

    report = check_gradients(
        lambda w: -2 * jnp.sum(jnp.log(jnp.cos(w / 2))), unstable, jnp.array([1e-3, 1.0], jnp.float32)
    )
    assert "right in float64, but in float32" in report.leaves[0].reason
    assert report.leaves[0].rounding is not None
    assert report.leaves[0].rounding.nearer == "jax.grad"


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (lambda p: {"a": p["b"]}, "the gradient's tree is PyTreeDef({'a': *})"),
        (lambda p: None, "the gradient's tree is PyTreeDef(None)"),
        (lambda p: {"a": p["b"].T, "b": p["a"]}, "shape is (3, 2), expected (2, 3): transposed"),
        (lambda p: {"a": p["b"].astype(jnp.float16), "b": p["a"]}, "dtype is float16, expected float32"),
        (lambda p: {"a": p["b"].at[1, 2].set(jnp.nan), "b": p["a"]}, "the gradient is nan at [1, 2]"),
        (lambda p: (jnp.sum(p["a"]), {"a": p["b"], "b": p["a"]}), "the value beside the gradient is 6"),
    ],
)
def test_a_result_that_does_not_fit_is_one_clear_line(gradient: Callable[..., object], message: str) -> None:
    params = {"a": jnp.ones((2, 3), jnp.float32), "b": jnp.full((2, 3), 2, jnp.float32)}
    report = check_gradients(lambda p: jnp.sum(p["a"] * p["b"]), gradient, params)
    assert not report.passed
    with pytest.raises(GradientError) as raised:
        report.raise_on_failure()
    assert [line for line in str(raised.value).splitlines() if message in line]


def test_a_loss_that_is_not_finite_is_reported() -> None:
    assert check_gradients(lambda w: jnp.sum(jnp.log(w)), lambda w: 1 / w, -jnp.ones(2)).problems == (
        "the loss is not finite in float64: there is nothing to check",
    )


def test_parameters_that_cannot_be_differentiated_are_refused() -> None:
    with pytest.raises(GradientError, match=r"params is of type int.., expected a floating array"):
        check_gradients(sines, jnp.cos, jnp.arange(3))


def test_a_pair_of_value_and_gradient_is_accepted() -> None:
    check_gradients(sines, lambda w: (sines(w), jnp.cos(w)), jnp.linspace(0.0, 3.0, 5)).raise_on_failure()


def test_a_gradient_in_numpy_is_accepted_and_judged() -> None:
    w = jnp.linspace(0.0, 3.0, 5)
    check_gradients(sines, lambda w: np.cos(np.asarray(w)), w).raise_on_failure()
    assert not check_gradients(sines, lambda w: (1.001 * np.cos(np.asarray(w))).astype(w.dtype), w).passed


@pytest.mark.parametrize(("factor", "passes"), [(1, True), (1.001, False)])
def test_a_gradient_bound_to_float32_is_judged_by_its_rounding(factor: float, passes: bool) -> None:
    w = jnp.linspace(0.0, 3.0, 5, dtype=jnp.float32)
    inside = check_gradients(sines, lambda w: factor * jnp.cos(w.astype(jnp.float32)).astype(w.dtype), w)
    assert inside.passed is passes
    assert "narrower type" in inside.notes[0]
    ones = jnp.ones(5, jnp.float32)
    refused = check_gradients(sines, lambda w: factor * ones * jnp.cos(w), w)
    assert refused.passed is passes
    assert "does not run in float64" in refused.notes[0]


def test_a_check_raises_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_gradients(sines, jnp.cos, jnp.array([0.0, 1e-30, 1e30], jnp.float32))


def attention(w: jax.Array, x: jax.Array) -> jax.Array:
    """Of each row to those before it; the others are masked by -inf."""
    scores = jnp.where(jnp.tril(jnp.ones((5, 5), bool)), (x @ w) @ x.T, -jnp.inf)
    return jnp.sum(jax.nn.softmax(scores) @ jnp.sin(x))


def test_infinities_that_mask_are_exact() -> None:
    w, x = (jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32) for shape in ((6, 6), (5, 6)))

    def by_hand(w: jax.Array, x: jax.Array) -> jax.Array:
        masked = jnp.tril(jnp.ones((5, 5), bool))
        a = jax.nn.softmax(jnp.where(masked, (x @ w) @ x.T, -jnp.inf))
        g = jnp.ones((5, 6), x.dtype) @ jnp.sin(x).T
        return x.T @ (a * (g - jnp.sum(a * g, axis=1, keepdims=True))) @ x

    report = check_gradients(attention, by_hand, w, x)
    report.raise_on_failure()
    assert not report.notes
    assert not check_gradients(attention, lambda *args: 1.001 * by_hand(*args), w, x).passed


def test_another_formula_for_the_same_passes_in_a_large_leaf() -> None:
    w = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (784, 100)), jnp.float32)
    check_gradients(sines, lambda w: 1 - 2 * jnp.sin(w / 2) ** 2, w).raise_on_failure()


def test_a_probe_that_leaves_the_domain_contradicts_nothing() -> None:
    w = jnp.array([0.0, 1.0])
    report = check_gradients(lambda w: jnp.sum(w**1.5), lambda w: 1.5 * w**0.5, w)
    report.raise_on_failure()
    assert "1 of 2 probes found nothing" in report.notes[0]
    assert not check_gradients(lambda w: jnp.sum(w**1.5), lambda w: 1.501 * w**0.5, w).passed


@pytest.mark.own_precision
@pytest.mark.parametrize(
    ("loss", "w"),
    [
        (lambda w: jnp.sum(1 / w), [1e8, 1.0, 1e-8]),
        (lambda w: jnp.sum(jnp.log(w)), [1e-10, 1.0]),
        (lambda w: jnp.sum(jnp.sin(w)), 1e8 + np.linspace(0, 7, 40)),
        (lambda w: jnp.sum(jnp.sin(w)), 1e8 + np.linspace(0, 7, 400)),
        (lambda w: jnp.sum(1 / w), np.exp(np.linspace(-18, 18, 100))),
        (lambda w: jnp.sin(w / 1e-8), 0.0),
        (lambda w: jnp.sum(w**3), np.zeros(3)),
    ],
    ids=["own sizes", "near a pole", "many waves", "many waves, large", "own sizes, large", "fast", "flat"],
)
def test_a_step_over_which_the_slope_itself_turns_is_not_taken(loss: Callable[..., Any], w: Any) -> None:
    with jax.enable_x64(True):
        w = jnp.asarray(w)
        check_gradients(loss, jax.grad(loss), w).raise_on_failure()
        assert not check_gradients(loss, lambda w: jax.grad(loss)(w) * 1.001 + 1e-6, w).passed


@jax.custom_vjp
def doubled(w: jax.Array) -> jax.Array:
    return jnp.sum(w) + 1


doubled.defvjp(lambda w: (doubled(w), w), lambda w, t: (2 * t * jnp.ones_like(w),))


@pytest.mark.own_precision
def test_a_wrong_rule_for_tiny_parameters_is_caught_by_wider_steps() -> None:
    with jax.enable_x64(True):
        assert not check_gradients(doubled, jax.grad(doubled), jnp.array([1e-12, 2e-12])).passed


def test_finite_differences_that_can_tell_nothing_of_a_rule_say_so() -> None:
    with jax.enable_x64(True):
        report = check_gradients(doubled, jax.grad(doubled), jnp.array([1e-40, 2e-40]))
    assert any("too coarse to judge" in note for note in report.notes)


@jax.custom_vjp
def sine(w: jax.Array) -> jax.Array:
    return jnp.sin(w)


sine.defvjp(lambda w: (sine(w), w), lambda w, t: (t * jnp.cos(w),))


@pytest.mark.parametrize(
    "loss",
    [
        lambda w: jnp.sum(jax.lax.stop_gradient(w) * w),
        lambda w: jnp.mean((sine(w) - jax.lax.stop_gradient(jnp.tanh(2 * w))) ** 2),
        lambda w: jnp.sum((w + jax.lax.stop_gradient(jnp.round(w) - w)) ** 2),
        lambda w: -jnp.sum(jax.nn.log_softmax(sine(w))[:1]),
    ],
    ids=["product", "target", "straight through", "softmax"],
)
def test_what_passes_a_stop_gradient_is_held_for_finite_differences_too(loss: Callable[..., Any]) -> None:
    w = jnp.array([0.3, 1.2, -2.1])
    report = check_gradients(loss, jax.grad(loss), w)
    report.raise_on_failure()
    assert not any("stop_gradient" in note for note in report.notes)
    assert not check_gradients(loss, lambda w: 1.01 * jax.grad(loss)(w), w).passed


def test_a_stop_gradient_in_a_loop_is_excused_with_a_note() -> None:
    def loss(w: jax.Array) -> jax.Array:
        return jnp.sum(jax.lax.map(lambda x: jax.lax.stop_gradient(x) * x, w))

    w = jnp.array([1.0, 2.0])
    report = check_gradients(loss, lambda w: w, w)
    assert report.passed
    assert any("stop_gradient" in note for note in report.notes)
    assert not check_gradients(loss, lambda w: 2 * w, w).passed


def test_a_wrong_rule_under_a_softmax_is_caught_and_a_right_gradient_passes() -> None:
    @jax.custom_jvp
    def wrong(x: jax.Array) -> jax.Array:
        return jnp.sin(x)

    wrong.defjvp(lambda p, t: (wrong(p[0]), 1.5 * jnp.cos(p[0]) * t[0]))

    def loss(w: jax.Array, x: jax.Array, sin: Callable[..., Any] = wrong) -> jax.Array:
        return -jnp.mean(jax.nn.log_softmax(sin(x @ w))[:, 0])

    rng = np.random.default_rng(0)
    w, x = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((6, 4), (5, 6)))
    assert not check_gradients(loss, jax.grad(loss), w, x).passed
    check_gradients(loss, lambda w, x: jax.grad(loss)(w, x, jnp.sin), w, x).raise_on_failure()


@pytest.mark.parametrize("given", ["float32", "float16"])
def test_a_cast_to_float32_inside_the_loss_is_a_rounding(given: str) -> None:
    rng = np.random.default_rng(0)
    w, x = jnp.asarray(rng.normal(size=50), given), jnp.asarray(rng.normal(size=50), jnp.float32)

    def cast(w: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(w.astype(jnp.float32).astype(x.dtype) * x)

    for loss in (cast, lambda w, x: cast(w, x) ** 2):
        check_gradients(loss, jax.grad(loss), w, x).raise_on_failure()
        assert not check_gradients(loss, lambda *args, loss=loss: 1.01 * jax.grad(loss)(*args), w, x).passed


def test_linear_algebra_errs_by_the_condition_of_its_input() -> None:
    i = np.arange(40)
    K = jnp.asarray(np.exp(-((i[:, None] - i[None, :]) ** 2) / 50) + 1e-4 * np.eye(40), jnp.float32)
    b = jnp.asarray(np.random.default_rng(0).normal(size=40), jnp.float32)

    def solved(b: jax.Array, K: jax.Array) -> jax.Array:
        return b @ jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(K), b)

    check_gradients(solved, lambda b, K: 2 * jnp.linalg.inv(K) @ b, b, K).raise_on_failure()
    assert not check_gradients(solved, lambda b, K: 2.002 * jnp.linalg.inv(K) @ b, b, K).passed


def test_the_spectrum_errs_by_its_largest_part() -> None:
    w = jnp.asarray(np.sin(2 * np.pi * 5 * np.arange(64) / 64), jnp.float32)
    frequencies = np.exp(-2j * np.pi * np.outer(np.arange(33), np.arange(64)) / 64)

    def loss(w: jax.Array) -> jax.Array:
        return jnp.sum(jnp.log1p(jnp.abs(jnp.fft.rfft(w)) ** 2))

    def gradient(w: jax.Array) -> jax.Array:
        f = jnp.asarray(frequencies.astype("complex128" if w.dtype == jnp.float64 else "complex64"))
        s = f @ w.astype(f.dtype)
        return jnp.real((2 * jnp.conj(s) / (1 + s * jnp.conj(s))) @ f)

    check_gradients(loss, gradient, w).raise_on_failure()


def test_a_rule_whose_single_elements_are_too_small_to_judge_is_said_to_be_unchecked() -> None:
    @jax.custom_vjp
    def loss(w: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(w) + w**2) + 1e12

    loss.defvjp(lambda w: (loss(w), w), lambda w, t: (t * (jnp.cos(w) + 2 * w).at[17].multiply(2.0),))
    with jax.enable_x64(True):
        report = check_gradients(loss, jax.grad(loss), jnp.asarray(np.random.default_rng(0).normal(size=1000)))
    assert report.passed
    assert any("too coarse to judge its single elements" in note for note in report.notes)


@pytest.mark.own_precision
def test_sizes_whose_squares_overflow_are_judged_without_a_warning() -> None:
    with jax.enable_x64(True):
        check_gradients(lambda w: jnp.sum(w), jnp.ones_like, jnp.array([1e170, 2e170])).raise_on_failure()
        loss = lambda w: 1e300 * jnp.sum(w**2)  # noqa: E731
        check_gradients(loss, jax.grad(loss), jnp.array([1.0, 2.0])).raise_on_failure()


def test_a_value_with_auxiliary_data_is_accepted() -> None:
    def loss(w: jax.Array) -> jax.Array:
        return jnp.sum(w**2)

    gradient = jax.value_and_grad(lambda w: (loss(w), {"norm": loss(w)}), has_aux=True)
    check_gradients(loss, gradient, jnp.ones(3)).raise_on_failure()
    assert not check_gradients(loss, lambda w: ((loss(w) + 1, "no array"), 2 * w), jnp.ones(3)).passed


def test_a_gradient_that_assigns_elements_in_numpy_is_accepted() -> None:
    def gradient(w: jax.Array) -> np.ndarray:
        out = np.zeros(3, w.dtype)
        for k in range(3):
            out[k] = 2 * w[k]
        return out

    check_gradients(lambda w: jnp.sum(w**2), gradient, jnp.ones(3)).raise_on_failure()


def test_an_argument_whose_equality_is_no_truth_is_passed_on() -> None:
    class Odd:
        __hash__ = None

        def __eq__(self, other: object) -> np.ndarray:  # type: ignore[override]
            return np.array([True, False])

    check = GradientCheck(lambda w, odd: jnp.sum(w**2), lambda w, odd: 2 * w)
    assert check(jnp.ones(2), Odd()).passed
    assert check(jnp.ones(2), Odd()).passed


@pytest.mark.own_precision
def test_numbers_that_xla_flushes_to_0_are_no_error() -> None:
    with jax.enable_x64(True):
        check_gradients(lambda w: 1e-310 * jnp.sum(w), lambda w: np.full(2, 1e-310), jnp.ones(2)).raise_on_failure()


def test_a_gradient_that_indexes_by_a_mask_is_accepted() -> None:
    w = jnp.array([1.0, -2.0])
    check_gradients(
        lambda w: jnp.sum(jax.nn.relu(w)), lambda w: jnp.zeros_like(w).at[w > 0].set(1), w
    ).raise_on_failure()


@pytest.mark.parametrize(
    "loss",
    [
        lambda w: jnp.sum(w * np.random.default_rng().random()),
        lambda w: jnp.sum(w * np.random.default_rng().random(3)),
        lambda w: jnp.sum(w * jax.random.normal(jax.random.key(np.random.default_rng().integers(2**31)), (3,))),
        lambda w: jax.lax.fori_loop(0, 2, lambda _, s: s + jnp.sum(w * np.random.default_rng().random()), 0.0),
        lambda w: jax.checkpoint(lambda w: jnp.sum(w * float(np.random.default_rng().random())))(w),
    ],
)
def test_a_loss_that_is_left_to_chance_is_refused(loss: Callable) -> None:
    with pytest.raises(GradientError, match="the loss has another value or gradient each time that JAX traces it"):
        check_gradients(loss, jax.grad(loss), jnp.ones(3, jnp.float32))


def test_a_loss_that_fails_when_it_is_traced_again_is_said_in_a_line() -> None:
    for error in (ValueError("boom"), StopIteration()):
        calls = itertools.count()

        def loss(w: jax.Array, error: Exception = error, calls: Any = calls) -> jax.Array:
            if next(calls) > 1:
                raise error
            return jnp.sum(w)

        with pytest.raises(GradientError, match=f"the loss can't be differentiated by JAX: {type(error).__name__}"):
            check_gradients(loss, jnp.ones_like, jnp.ones(3, jnp.float32))


KEY, ROWS = jax.random.key(0), np.array([1.0, np.nan, 2.0], np.float32)


@pytest.mark.parametrize(
    "loss",
    [
        lambda w: jnp.sum(w * jax.random.normal(KEY, (3,), w.dtype)),
        lambda w: jnp.sum(w * jax.random.normal(jax.random.key(1), (3,), w.dtype)),
        lambda w: jnp.sum(jnp.where(jnp.isnan(jnp.asarray(ROWS, w.dtype)), 0, w)),
        lambda w: jnp.sum(w * jnp.asarray(np.random.default_rng(0).random(3), w.dtype)),
        lambda w: jnp.sum(jnp.sin(jnp.asarray(np.random.default_rng().random(3), w.dtype).at[:].set(w))),
        lambda w: jnp.sum(jnp.sin(w + 0 * jnp.asarray(np.random.default_rng().random(3), w.dtype))),
        lambda w: jax.lax.cond(False, lambda w: jnp.sum(w * np.random.default_rng().random()), jnp.sum, w),
        lambda w: sum(x * jnp.sum(w) for x in np.random.default_rng().permutation([0.1, 0.2, 0.7]).tolist()),
    ],
)
def test_a_loss_that_holds_the_same_numbers_each_time_is_not(loss: Callable) -> None:
    check_gradients(loss, jax.grad(loss), jnp.ones(3, jnp.float32)).raise_on_failure()


def test_a_swapped_pair_and_a_loss_of_another_shape_are_said_in_a_line() -> None:
    w = jnp.ones(3)
    assert "the gradient's tree" in check_gradients(sines, lambda w: (jnp.cos(w), sines(w)), w).problems[0]
    for loss in (jnp.sin, lambda w: (sines(w), "aux")[:1], lambda w: jnp.sum(w > 0)):
        with pytest.raises(GradientError, match="the loss returns .*expected one number of a floating type"):
            check_gradients(loss, jnp.cos, w)


def binned(w: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(w[jnp.floor(x * 4).astype(int)] ** 2)


@pytest.mark.own_precision
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_place_computed_from_constants_is_no_kink(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("standard"):
        w = jnp.asarray(np.random.default_rng(0).normal(size=9), dtype)
        x = jnp.asarray(np.arange(9) / 4, dtype)
        for loss, args in ((jnp.median, (w,)), (binned, (w, x))):
            check_gradients(loss, jax.grad(loss), *args).raise_on_failure()
            report = check_gradients(loss, lambda *a, loss=loss: 1.001 * jax.grad(loss)(*a), *args)
            assert not report.passed
            assert report.leaves[0].kinks == 0


@pytest.mark.parametrize("i", [2, 6, 8, 14])
def test_two_elements_of_a_large_leaf_that_err_by_opposite_amounts_are_noticed(i: int) -> None:
    w = jnp.asarray(np.random.default_rng(0).normal(size=100), jnp.float32)

    @jax.custom_vjp
    def f(w: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(w))

    def backward(w: jax.Array, g: jax.Array) -> tuple[jax.Array]:
        d = jnp.cos(w) * g
        return (d.at[i].set(d[i + 1]).at[i + 1].set(d[i]),)

    f.defvjp(lambda w: (jnp.sum(jnp.sin(w)), w), backward)
    assert not check_gradients(f, jax.grad(f), w).passed


@pytest.mark.own_precision
@pytest.mark.parametrize("p", [[1e-8, 1e8], [1e-6, 1e3]])
def test_a_small_element_is_not_judged_by_a_large_ones_size(p: list[float]) -> None:
    with jax.enable_x64(True):
        loss, params = lambda p: jnp.sum(jnp.log(p)), jnp.array(p)
        check_gradients(loss, lambda p: 1 / p, params).raise_on_failure()
        assert not check_gradients(loss, lambda p: jnp.array([1.001, 1.0]) / p, params).passed


@pytest.mark.own_precision
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_complex_intermediates_round_too(dtype: str) -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("standard"):
        c = jnp.asarray(rng.normal(size=64) + 1j * rng.normal(size=64))
        w = jnp.asarray(rng.normal(size=64), dtype)
        check_gradients(
            lambda w, c: jnp.sum(jnp.real(w * jnp.exp(c) * jnp.exp(-2 * c))), lambda w, c: jnp.real(jnp.exp(-c)), w, c
        ).raise_on_failure()


@pytest.mark.own_precision
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradients_own_last_rounding_is_no_error(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        check_gradients(jnp.sum, lambda w: 49 * (jnp.ones_like(w) / 49), jnp.ones(49)).raise_on_failure()


def test_numpys_float64_is_checked_as_float64() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=20)

    def gradient(w: Any, x: Any, y: Any) -> np.ndarray:
        w, x, y = map(np.asarray, (w, x, y))
        return sum(2 * (x[i] @ w - y[i]) * x[i] / len(x) for i in range(len(x)))

    report = check_gradients(lambda w, x, y: jnp.mean((x @ w - y) ** 2), gradient, rng.normal(size=3), x, y)
    report.raise_on_failure()
    assert report.dtype == "float64"
    check_gradients(lambda w: w * w, lambda w: 2 * float(w), 3.0).raise_on_failure()


def test_a_mask_of_a_narrow_type_does_not_blur_the_check() -> None:
    def loss(w: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.sum((w * mask.astype(jnp.bfloat16).astype(w.dtype)) ** 3)

    with jax.enable_x64(True):
        w = jnp.asarray(np.random.default_rng(0).normal(size=9))
        assert not check_gradients(loss, lambda w, m: 1.001 * jax.grad(loss)(w, m), w, w > 0).passed


@pytest.mark.own_precision
def test_a_period_of_a_power_of_2_does_not_mislead_finite_differences() -> None:
    with jax.enable_x64(True):
        loss = lambda w: jnp.sin(2.0**12 * jnp.pi * w)  # noqa: E731
        check_gradients(loss, jax.grad(loss), 1.0).raise_on_failure()


def test_a_gradient_that_counts_by_its_arguments_runs_untraced() -> None:
    def gradient(w: jax.Array, indices: Any) -> jax.Array:
        g = [0.0] * 3
        for i in indices:
            g[i] += 1.0
        return jnp.asarray(g, w.dtype)

    check_gradients(lambda w, i: jnp.sum(w[i]), gradient, jnp.ones(3), np.array([0, 0, 2])).raise_on_failure()


@pytest.mark.parametrize(
    "loss",
    [
        lambda w: jnp.sum(w**2) if w[0] > 0 else w[0],
        lambda w: jax.lax.while_loop(lambda x: jnp.sum(x) < 100, lambda x: 2 * x, w).sum(),
        lambda w: jax.pure_callback(np.sum, jax.ShapeDtypeStruct((), w.dtype), w),
        lambda w: "a loss",
        lambda w: w @ jnp.ones(4),
    ],
    ids=["branch", "while_loop", "callback", "text", "shapes"],
)
def test_a_loss_that_jax_cannot_differentiate_is_refused_in_a_line(loss: Callable[..., Any]) -> None:
    with pytest.raises(GradientError, match="^the loss can't be differentiated by JAX: .*$"):
        check_gradients(loss, jax.grad(jnp.sum), jnp.ones(3))
