import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlp import Optimizer
from jaxmlp.training.optimizers import make


def test_sgd_steps_against_the_gradient_by_the_learning_rate() -> None:
    optimizer, params = make(Optimizer("sgd", 0.5)), jnp.array([1.0, 2.0])
    updates, _ = optimizer.update(jnp.array([4.0, -2.0]), optimizer.init(params), params)
    np.testing.assert_allclose(updates, [-2, 1])


@pytest.mark.usefixtures("optax_promotes")
def test_adams_first_step_is_the_learning_rate_in_every_direction() -> None:
    optimizer, params = make(Optimizer("adam", 0.5)), jnp.array([1.0, 2.0])
    updates, _ = optimizer.update(jnp.array([4.0, -0.01]), optimizer.init(params), params)
    np.testing.assert_allclose(updates, [-0.5, 0.5], rtol=1e-5)
