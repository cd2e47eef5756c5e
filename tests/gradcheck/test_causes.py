"""Deliberate faults in a copy of the backward pass: each is caught, and its cause named."""

from collections.abc import Callable
from typing import Any

import faults
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faults import FAULTS, Fault, faulty_backprop

import jaxmlp
from jaxmlp import GradientCheck, GradientReport, check_gradients

DTYPES = ("float32", "float64")

CHECKS = {dtype: GradientCheck(jaxmlp.loss, jaxmlp.backprop) for dtype in DTYPES}
"""One for each precision, so that the loss's programs are compiled once."""


def check_fault(fault: Fault, dtype: str) -> GradientReport:
    with jax.enable_x64(dtype == "float64"):
        check = CHECKS[dtype].of(lambda *args: faulty_backprop(*args, fault))
        return check(*faults.example(jnp.dtype(dtype), fault.ragged), faults.NETWORK)


@pytest.mark.own_precision
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ragged", [False, True])
def test_the_copy_of_the_backward_pass_is_right_without_a_fault(dtype: str, ragged: bool) -> None:
    check_fault(Fault(None, ragged=ragged), dtype).raise_on_failure()


@pytest.mark.own_precision
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught_and_its_cause_named(name: str, dtype: str) -> None:
    report = check_fault(FAULTS[name], dtype)
    assert not report.passed
    cause = FAULTS[name].cause
    assert cause is None or any(cause in given for given in report.causes), report


def test_there_are_enough_faults_and_named_causes() -> None:
    assert len(FAULTS) >= 25
    assert sum(fault.cause is not None for fault in FAULTS.values()) >= 15


def test_a_fault_that_shows_only_for_a_ragged_batch_passes_without_weights() -> None:
    params, batch = faults.example(jnp.dtype("float32"), ragged=False)
    for name in ("weights ignored", "mean over B for the sum of the weights"):
        fault = FAULTS[name]
        assert fault.ragged
        check = CHECKS["float32"].of(lambda *args, fault=fault: faulty_backprop(*args, fault))
        assert check(params, batch, faults.NETWORK).passed


def test_an_error_in_a_small_element_is_not_hidden_by_a_large_one() -> None:
    scale = np.logspace(-12, 3, 16)

    def loss(w: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(w) * jnp.asarray(scale, w.dtype))

    def gradient(w: jax.Array) -> jax.Array:
        return (jnp.cos(w) * jnp.asarray(scale, w.dtype)).at[0].multiply(1.001)

    report = check_gradients(loss, gradient, jnp.ones(16))
    assert report.causes == ("params: only the element [0] is wrong",)
    assert report.leaves[0].difference is not None
    assert report.leaves[0].difference.relative_index == (0,)


def test_a_forgotten_l2_term_is_named() -> None:
    params, batch = faults.example(jnp.dtype("float32"), ragged=False)

    def loss(params: jaxmlp.Params, batch: jaxmlp.Batch) -> jax.Array:
        return jaxmlp.loss(params, batch, faults.NETWORK) + 0.05 * sum(jnp.sum(layer.kernel**2) for layer in params)

    report = check_gradients(loss, lambda *args: jaxmlp.backprop(*args, faults.NETWORK), params, batch)
    kernels = ", ".join(f"[{l}].kernel" for l in range(len(params)))
    assert f"{kernels}: lacks 0.1 times the leaf itself: an L2 term of the loss" in report.causes


def test_no_constant_factor_is_denied_beside_one() -> None:
    params, batch = faults.example(jnp.dtype("float32"), ragged=False)

    def gradient(*args: object) -> jaxmlp.Params:
        first, *others, last = jaxmlp.backprop(*args, faults.NETWORK)
        others = [layer._replace(kernel=jnp.sin(layer.kernel), bias=jnp.sin(layer.bias)) for layer in others]
        kernel, bias = jnp.cos(first.kernel), jnp.cos(first.bias)
        return (jaxmlp.Layer(kernel, bias), *others, last._replace(kernel=3 * last.kernel, bias=2 * last.bias))

    report = check_gradients(lambda *args: jaxmlp.loss(*args, faults.NETWORK), gradient, params, batch)
    assert any("the gradient times 2" in cause for cause in report.causes)
    assert not any("by no constant factor" in cause for cause in report.causes)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda g: g * jnp.array([1, 1.3, 1, 1]), "params: only the element [1] is wrong"),
        (lambda g: g + jnp.array([1, 0, 0.5, 0]), "params: only the elements [0], [2] are wrong"),
        (lambda g: g * (1 + 1e-5), "params: the gradient times a constant, 1 + 1e-05"),
    ],
)
def test_a_single_leafs_fault_is_named_by_its_narrowest_pattern(change: Callable[..., Any], cause: str) -> None:
    def loss(w: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(w))

    report = check_gradients(loss, lambda w: change(jnp.cos(w)), jnp.array([0.0, 2.0, 0.0, 0.0]))
    assert report.causes == (cause,)
