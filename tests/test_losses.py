import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmlp import NetworkError
from jaxmlp.activations import ACTIVATIONS
from jaxmlp.losses import FUSED, LOSSES, output_loss

TWINS = {
    "squared_error": lambda z, a, y: (2 * optax.l2_loss(a, y)).sum(-1),
    "absolute_error": lambda z, a, y: jnp.abs(a - y).sum(-1),
    "huber": lambda z, a, y: optax.huber_loss(a, y).sum(-1),
    "cross_entropy": lambda z, a, y: optax.softmax_cross_entropy(z, y),
    "binary_cross_entropy": lambda z, a, y: optax.sigmoid_binary_cross_entropy(z, y).sum(-1),
}
PAIRS = [(output, loss) for loss in LOSSES for output in ACTIVATIONS] + [(FUSED[loss][0], loss) for loss in FUSED]


def example(seed: int = 0, shape: tuple[int, int] = (9, 5)) -> tuple[jax.Array, jax.Array]:
    z, y = np.random.default_rng(seed).normal(0, 3, (2, *shape))
    return jnp.asarray(z), jnp.asarray(y)


@pytest.mark.parametrize(("output", "loss"), PAIRS)
def test_value_is_its_twins_and_delta_its_derivative(output: str, loss: str) -> None:
    with jax.enable_x64(True):
        z, y = example()  # any y, not only rows that sum to 1
        forward, pair = ACTIVATIONS[output].forward, output_loss(output, loss)
        np.testing.assert_allclose(pair.value(z, forward(z), y), TWINS[loss](z, forward(z), y), rtol=1e-12)
        D = jax.grad(lambda z: TWINS[loss](z, forward(z), y).sum())(z)
        # atol: JAX's gelu_tanh loses what is below the rounding of its 1 + tanh(u) to cancellation
        np.testing.assert_allclose(pair.delta(z, forward(z), y), D, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loss", FUSED)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 50.0, 1e4, 1e30, 1.5e38])
def test_cross_entropy_is_finite_and_right_for_logits_of_any_size(loss: str, scale: float) -> None:
    output, pair = FUSED[loss]
    z = jnp.asarray([[1.0, -1.0, 0.0]], jnp.float32) * scale
    y = jnp.asarray([[0.0, 1.0, 0.0]], jnp.float32)
    a = ACTIVATIONS[output].forward(z)
    z64 = np.asarray(z, np.float64)
    if loss == "cross_entropy":
        truth = np.logaddexp.reduce(z64, axis=1) - z64[:, 1]
    else:
        truth = np.logaddexp(0, z64 * [1, -1, 1]).sum(1)
    np.testing.assert_allclose(pair.value(z, a, y), truth, rtol=1e-6)
    assert bool(jnp.isfinite(pair.delta(z, a, y)).all())


def test_cross_entropy_is_right_where_logits_differ_by_more_than_the_type_can_hold() -> None:
    z = jnp.asarray([[6e4, -6e4]], jnp.float16)
    a, y = ACTIVATIONS["softmax"].forward(z), jnp.asarray([[1.0, 0.0]], jnp.float16)
    pair = output_loss("softmax", "cross_entropy")
    assert pair.value(z, a, y) == 0
    assert jax.grad(lambda z: pair.value(z, a, y).sum())(z).tolist() == pair.delta(z, a, y).tolist() == [[0, 0]]


@pytest.mark.parametrize("loss", FUSED)
def test_a_pair_that_makes_no_sense_is_refused_with_those_that_do(loss: str) -> None:
    own = FUSED[loss][0]
    for output in set(ACTIVATIONS) - {own}:
        with pytest.raises(NetworkError, match=rf"{loss}.*{output}.*{own}.*softmax \+ cross_entropy, any output"):
            output_loss(output, loss)
