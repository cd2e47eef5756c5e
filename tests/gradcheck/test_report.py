"""What a check found, as data and as a table."""

import json

import jax
import jax.numpy as jnp
import pytest

from jaxmlp import check_gradients
from jaxmlp.gradcheck.report import LEGEND


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
    assert str(raised.value).endswith(f"\n{LEGEND}")


def test_the_table_shows_both_norms_where_they_differ_and_who_is_nearer_to_the_truth() -> None:
    w = jnp.linspace(0.1, 3.0, 5, dtype=jnp.float32)
    doubled = str(check_gradients(sines, lambda w: 2 * jnp.cos(w), w))
    norm = float(jnp.linalg.norm(jnp.cos(w)))
    assert f"{2 * norm:.3g}, {norm:.3g}" in doubled
    report = check_gradients(sines, lambda w: 1 - 2 * jnp.sin(w / 2) ** 2, w)
    leaf = report.leaves[0].rounding
    assert leaf is not None
    sign = {"gradient": "<", "jax.grad": ">", "equal": "="}[leaf.nearer]
    assert f"{leaf.manual:.1e} {sign} {leaf.automatic:.1e}" in str(report)
