"""The bound of rounding holds and is not vacuous."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp.gradcheck.rounding import CHANCE, bound_factor, longest_sum, perturbed, random_draws, unit_roundoff


def test_the_rounding_bound_holds_for_a_long_sum_and_is_not_vacuous() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3000)).astype(np.float32)
    exact = np.sum(x.astype(np.float64), axis=1)
    with jax.enable_x64(True):
        run = perturbed(lambda x: jnp.sum(x * x * x, axis=1), x.astype(np.float64))
        unit = np.float64(unit_roundoff(np.float32))
        drawn = [run(signs, unit, np.float64(0), x.astype(np.float64)) for signs in random_draws(16, 1)]
        n = longest_sum(jax.make_jaxpr(lambda x: jnp.sum(x, axis=1))(x).jaxpr)
        cubes = np.sum(x.astype(np.float64) ** 3, axis=1)
        bound = bound_factor(n, 4) * np.sqrt(np.mean((np.stack(drawn) - cubes) ** 2, axis=0))
    assert n == 3000
    assert exact.shape == bound.shape
    error = np.abs(np.cumsum(x**3, axis=1, dtype=np.float32)[:, -1] - cubes)
    assert np.all(error <= bound)
    assert np.all(bound < 3000 * unit * np.sum(np.abs(x) ** 3, axis=1))  # the worst case


def test_exact_operations_are_not_perturbed() -> None:
    run = perturbed(lambda x: jnp.max(-x.T), np.ones((2, 3), np.float32))
    assert float(run(random_draws(1, 0)[0], np.float32(0.5), np.float32(0), np.ones((2, 3), np.float32))) == -1
    assert CHANCE < 1e-6
