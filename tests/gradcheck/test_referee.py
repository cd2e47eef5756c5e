"""The referee leaves the setting of x64 alone, and takes any tree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlp import check_gradients


def sines(w: jax.Array) -> jax.Array:
    return jnp.sum(jnp.sin(w))


def test_the_setting_of_x64_is_left_as_it_was() -> None:
    before = jax.config.jax_enable_x64
    check_gradients(sines, jnp.cos, jnp.ones(3, jnp.float32))
    assert jax.config.jax_enable_x64 == before


@pytest.mark.parametrize("params", [(), (jnp.zeros((0, 3)), jnp.ones(2)), 2.0, {"w": np.float32(3)}])
def test_any_tree_of_parameters_is_accepted(params: object) -> None:
    def loss(p: object) -> jax.Array:
        return sum((jnp.sum(x**3) for x in jax.tree.leaves(p)), 0.0)

    check_gradients(loss, lambda p: jax.tree.map(lambda x: 3 * x**2, p), params).raise_on_failure()
