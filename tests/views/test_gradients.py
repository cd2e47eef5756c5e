import io

import jax
import jax.numpy as jnp
from rich.console import Console

from jaxmlp import GradientReport, check_gradients
from jaxmlp.views.gradients import report_view, show_report


def shown(report: GradientReport, *, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=160, force_terminal=terminal)
    console.print(report_view(report, "at the start"))
    return console.file.getvalue()


def sines(w: jax.Array) -> jax.Array:
    return jnp.sum(jnp.sin(w))


W = jnp.linspace(0.0, 3.0, 5, dtype=jnp.float32)


def test_a_right_gradient_is_a_table_that_says_passed() -> None:
    text = shown(check_gradients(sines, jnp.cos, W))
    assert "float32, at the start: passed, loss" in text
    assert "params" in text


def test_a_wrong_gradient_is_red_and_its_cause_named() -> None:
    text = shown(check_gradients(sines, lambda w: -jnp.cos(w), W), terminal=True)
    assert "\x1b[1;31mFAILED" in text
    assert "likely cause: params: the gradient times the sign -1" in text


def test_a_gradient_of_another_tree_is_a_line_without_a_table() -> None:
    text = shown(check_gradients(sines, lambda w: None, W))
    assert "wrong: the gradient's tree is" in text
    assert "finite" not in text


def test_no_figure_is_cut_off_where_the_terminal_is_narrow() -> None:
    report = check_gradients(sines, jnp.cos, W)
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    show_report(console, report, "at the start")
    assert str(report) in console.file.getvalue()
