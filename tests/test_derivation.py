"""What docs/backpropagation.md quotes is what the package says; its `>>>` blocks run by themselves, as doctests."""

import ast
import inspect
import re
from pathlib import Path
from types import FunctionType

import pytest

from jaxmlp import activations, losses
from jaxmlp.backprop import backpropagate, mean_gradient, passed_back, summed

pytestmark = pytest.mark.own_precision  # it computes nothing

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "backpropagation.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
QUOTES = [tuple(text.split("\n", 1)) for kind, text in BLOCKS if kind == "python"]


def lines(text: str) -> list[str]:
    """Split into the lines that say something, without their indentation."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def occurs(passage: list[str], source: list[str]) -> bool:
    """Say whether `passage` stands in `source`, line after line."""
    return any(source[i : i + len(passage)] == passage for i in range(len(source)))


def passages(quote: str) -> list[list[str]]:
    """Split a quote at its lines of three dots."""
    return [lines(part) for part in re.split(r"^\.\.\.$", quote, flags=re.MULTILINE)]


@pytest.mark.parametrize(("header", "quote"), QUOTES)
def test_every_quoted_line_stands_in_its_file(header: str, quote: str) -> None:
    file = ROOT / header.removeprefix("# ")
    assert file.is_file(), f"a quote's first line must be '# ' and a file of the package, not {header!r}"
    source = lines(file.read_text(encoding="utf-8"))
    for passage in passages(quote):
        assert passage, f"an empty quote of {file.name}"
        assert occurs(passage, source), f"{file.name} has changed: quote it anew in docs/backpropagation.md: {passage}"


def derivatives() -> list[FunctionType]:
    """List the backward pass, and every named function of the two tables that computes a derivative."""
    named = [
        value
        for module in (activations, losses)
        for name, value in vars(module).items()
        if name.endswith(("_derivative", "_pullback", "_delta"))
    ]
    return [backpropagate, passed_back, summed, mean_gradient, *named]


@pytest.mark.parametrize("function", derivatives(), ids=lambda function: function.__name__)
def test_every_derivative_is_quoted_in_full(function: FunctionType) -> None:
    source = inspect.getsource(function)
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef)
    first = definition.body[1 if ast.get_docstring(definition) else 0]
    body = lines("\n".join(source.splitlines()[first.lineno - 1 :]))
    assert any(occurs(body, passage) for _, quote in QUOTES for passage in passages(quote))


@pytest.mark.parametrize("name", [*activations.ACTIVATIONS, *losses.LOSSES, *losses.FUSED])
def test_every_activation_and_loss_is_derived(name: str) -> None:
    assert re.search(rf"\*\*(\w+ \+ )?{name}\*\*", PAGE)


def test_blocks_are_equations_quotes_or_examples() -> None:
    assert {kind for kind, _ in BLOCKS} == {"text", "python", "pycon"}
    assert PAGE.count("```") == 2 * len(BLOCKS)
    for kind, text in BLOCKS:
        assert text.startswith(">>> ") == (kind == "pycon"), text


def test_a_changed_line_would_be_noticed() -> None:
    header, quote = QUOTES[0]
    source = lines((ROOT / header.removeprefix("# ")).read_text(encoding="utf-8"))
    first, *_ = passages(quote)
    assert occurs(first, source)
    assert not occurs([line.replace("+", "-") for line in first], source)
    assert not occurs(first[::-1], source)
