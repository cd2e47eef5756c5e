import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmlp.activations import ACTIVATIONS

FINITE = st.lists(st.floats(-1e3, 1e3, width=32), min_size=20, max_size=20)  # one shape, so that JAX compiles once
EDGES = [-1e30, -1e4, -100.0, -20.0, -1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0, 20.0, 100.0, 1e4]


@pytest.mark.parametrize("name", ACTIVATIONS)
@given(z=FINITE, seed=st.integers(0, 99))
def test_pullback_is_jax_vjp(name: str, z: list[float], seed: int) -> None:
    with jax.enable_x64(True):
        rows = jnp.asarray(z, jnp.float64)[None, :]
        g = jnp.asarray(np.random.default_rng(seed).normal(size=rows.shape))
        forward, pullback = ACTIVATIONS[name]
        a, vjp = jax.vjp(forward, rows)
        np.testing.assert_allclose(pullback(g, rows, a), vjp(g)[0], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_pullback_is_finite_and_keeps_the_type_at_the_edges(name: str, dtype: str) -> None:
    edges = [edge for edge in EDGES if abs(edge) <= float(jnp.finfo(dtype).max) / 2]
    z = jnp.asarray(edges, dtype)[None, :]
    forward, pullback = ACTIVATIONS[name]
    dz = pullback(jnp.ones_like(z), z, forward(z))
    assert dz.dtype == z.dtype
    assert bool(jnp.isfinite(dz).all()), dict(zip(edges, dz[0].tolist(), strict=True))


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu"])
def test_derivative_at_a_kink_follows_jax(name: str) -> None:
    forward, pullback = ACTIVATIONS[name]
    z = jnp.zeros((1, 1))
    a, vjp = jax.vjp(forward, z)
    assert pullback(jnp.ones_like(z), z, a) == vjp(jnp.ones_like(z))[0]


def test_scaled_tanh_maps_one_to_one() -> None:
    # Efficient BackProp, section 4.4: the constants are chosen so that f(1) = 1 and f(-1) = -1
    a = ACTIVATIONS["scaled_tanh"].forward(jnp.array([[1.0, -1.0]]))
    np.testing.assert_allclose(a, [[1, -1]], atol=1e-4)
