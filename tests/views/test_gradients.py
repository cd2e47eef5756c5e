import io
import re
from dataclasses import replace

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
    assert re.search("at the start: passed, loss .*, float32: in it the column rounding, all others in float64", text)
    assert "params" in text


def test_a_wrong_gradient_is_red_and_its_cause_named() -> None:
    text = shown(check_gradients(sines, lambda w: -jnp.cos(w), W), terminal=True)
    assert "\x1b[1;31mFAILED" in text
    assert "likely cause: params: the gradient times the sign -1" in text


def test_a_gradient_of_another_tree_is_a_line_without_a_table() -> None:
    text = shown(check_gradients(sines, lambda w: None, W))
    assert "wrong: the gradient's tree is" in text
    assert "finite" not in text


def test_errors_that_print_alike_are_not_said_to_differ() -> None:
    report = check_gradients(sines, jnp.cos, W)
    (leaf,) = report.leaves
    alike = replace(leaf.rounding, manual=5.12e-8, automatic=5.09e-8, nearer="jax.grad")
    assert "5.1e-08 = 5.1e-08" in shown(replace(report, leaves=(replace(leaf, rounding=alike),)))
    apart = replace(alike, automatic=4.9e-8)
    assert "5.1e-08 > 4.9e-08" in shown(replace(report, leaves=(replace(leaf, rounding=apart),)))


def test_no_figure_is_cut_off_where_the_terminal_is_narrow() -> None:
    report = check_gradients(sines, jnp.cos, W)
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    show_report(console, report, "at the start")
    assert report.text in console.file.getvalue()
