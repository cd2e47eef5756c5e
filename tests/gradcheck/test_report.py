"""What a check found, as data and as a table."""

import json

import jax
import jax.numpy as jnp
import pytest

from jaxmlp import check_gradients


def sines(w: jax.Array) -> jax.Array:
    return jnp.sum(jnp.sin(w))


def test_the_report_is_data_for_json() -> None:
    report = check_gradients(sines, lambda w: jnp.full_like(w, jnp.inf), jnp.ones(3))
    data = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert data["passed"] is False
    assert data["leaves"][0]["shape"] == [3]
    good = json.loads(json.dumps(check_gradients(sines, jnp.cos, jnp.ones(3, jnp.float32)).as_dict(), allow_nan=False))
    assert good["passed"] is True
    assert good["leaves"][0]["finite"]["probes"] == 3
    assert good["leaves"][0]["rounding"]["nearer"] in ("gradient", "jax.grad", "equal")


def test_a_failure_is_an_assertion_error_with_the_table() -> None:
    with pytest.raises(AssertionError, match="gradient check FAILED") as raised:
        check_gradients(sines, lambda w: -jnp.cos(w), jnp.linspace(0.0, 3.0, 5)).raise_on_failure()
    assert "likely cause: params: the gradient times the sign -1" in str(raised.value)
