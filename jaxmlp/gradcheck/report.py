"""What a gradient check found, as data and as a plain table."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxmlp.errors import GradientError


@dataclass(frozen=True)
class Difference:
    """Two arrays' difference: the largest, where it stands, and the angle.

    Attributes:
        absolute: Largest |m_e - a_e|, with m the gradient and a jax.grad, both in float64 where they run there.
        absolute_index: The place of that element in its leaf.
        relative: Largest |m_e - a_e| / max(|a_e|, tolerance_e): relative to what can be told from 0.
        relative_index: The place of that element in its leaf.
        cosine: Of the angle between m and a as vectors.
    """

    absolute: float
    absolute_index: tuple[int, ...]
    relative: float
    relative_index: tuple[int, ...]
    cosine: float


@dataclass(frozen=True)
class FiniteDifferences:
    """A leaf's central finite differences: of all its probes, the one that contradicts the gradient most.

    Attributes:
        probes: How many there were: single elements, and directions through all of the leaf.
        at: Where the one was: an element's place, or `a random direction` or `the direction of the difference`.
        step: How far it went to either side.
        value: Its central difference.
        left: Its backward difference.
        right: Its forward difference.
        error_manual: How far the gradient lies from `value`.
        error_automatic: How far jax.grad lies from it.
        bound: What rounding and curvature explain of that.
        blind: Probes at which no step gave a finite loss; they contradict nothing.
        tells: Whether a probe is fine enough to miss half of an element of typical size, or all are 0.
        contradicted: Probes that contradict the gradient.
        confirms_manual: Whether none does.
        confirms_automatic: Whether none contradicts jax.grad.
    """

    probes: int
    at: str
    step: float
    value: float
    left: float
    right: float
    error_manual: float
    error_automatic: float
    bound: float
    blind: int
    tells: bool
    contradicted: int
    confirms_manual: bool
    confirms_automatic: bool


@dataclass(frozen=True)
class Rounding:
    """A leaf in the given precision, against the float64 truth: norms of both errors, and the worst element.

    Attributes:
        dtype: The given precision.
        manual: The norm of the gradient's error.
        automatic: The norm of jax.grad's.
        nearer: Whose is less: `gradient`, `jax.grad` or `equal`.
        worst: The gradient's error at the element where it stands out most from its bound.
        worst_index: The place of that element in its leaf.
        bound: What rounding explains at that element.
        explained: Whether that is so of every element.
    """

    dtype: str
    manual: float
    automatic: float
    nearer: str
    worst: float
    worst_index: tuple[int, ...]
    bound: float
    explained: bool


@dataclass(frozen=True)
class LeafReport:
    """One leaf of the parameters.

    Attributes:
        path: Its place among the parameters, such as [0].kernel.
        shape: Its shape.
        dtype: Its type.
        status: `pass`, `fail`, or `kink`: passes, but some elements stand at a kink, where the derivative is a
            convention.
        reason: Why it isn't `pass`.
        kinks: How many elements stand at a kink.
        norm_manual: The norm of the gradient.
        norm_automatic: The norm of jax.grad.
        difference: Between the two; None where they could not be compared.
        finite: Finite differences; None where none were taken.
        rounding: The gradient in the given precision; None where that is float64.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    status: str
    reason: str
    kinks: int
    norm_manual: float
    norm_automatic: float
    difference: Difference | None
    finite: FiniteDifferences | None
    rounding: Rounding | None


@dataclass(frozen=True)
class GradientReport:
    """What `check_gradients` found: `print` it, take it `as_dict`, or let it `raise_on_failure`.

    `LEGEND` says what the columns of the printed table are.

    Attributes:
        dtype: The precision that was given, such as float32.
        loss: Its value at the parameters.
        leaves: What was found of each leaf of the parameters.
        problems: What is wrong with the gradient as a whole: its tree, the value beside it.
        causes: What the pattern of the failures suggests.
        notes: What else there is to know, such as a gradient that is 0 everywhere.
    """

    dtype: str
    loss: float
    leaves: tuple[LeafReport, ...]
    problems: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the gradient is right."""
        return not self.problems and all(leaf.status != "fail" for leaf in self.leaves)

    def __bool__(self) -> bool:
        return self.passed

    def raise_on_failure(self) -> None:
        """Raise a `GradientError` with the whole report, unless the check passed."""
        if not self.passed:
            raise GradientError(str(self))

    def as_dict(self) -> dict[str, Any]:
        """The report as data for JSON; a number that is not finite becomes None."""
        return {"passed": self.passed, **_plain(dataclasses.asdict(self))}

    @property
    def precision(self) -> str:
        """What the table's figures are computed in."""
        narrower = "" if self.dtype == "float64" else ": in it the column rounding, all others in float64"
        return f"{self.dtype}{narrower}"

    @property
    def remarks(self) -> Iterator[tuple[str, str]]:
        """What is to be said below the table: (`fail`, `kink`, `cause` or `note`, the line)."""
        yield from (("fail", f"wrong: {problem}") for problem in self.problems)
        yield from ((leaf.status, f"{leaf.path}: {leaf.reason}") for leaf in self.leaves if leaf.reason)
        yield from (("cause", f"likely cause: {cause}") for cause in self.causes)
        yield from (("note", f"note: {note}") for note in self.notes)

    def __str__(self) -> str:
        return f"{self.text}\n{LEGEND}" if self.leaves else self.text

    @property
    def text(self) -> str:
        """The plain table and what is to be said below it, without the legend."""
        head = f"gradient check {'passed' if self.passed else 'FAILED'}: loss {self.loss:.6g}, {self.precision}"
        rows = [HEADINGS, *map(row, self.leaves)] if self.leaves else []
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)).rstrip() for cells in rows]
        return "\n".join([head, *lines, *(text for _, text in self.remarks)])


HEADINGS = (
    "leaf",
    "shape",
    "norm",
    "cosine",
    "largest error",
    "relative",
    "finite diff.",
    "rounding: own, jax.grad",
    "",
)

LEGEND = """\
largest error, relative: from jax.grad in float64. finite diff.: from finite differences, and what those can tell.
rounding: the norms of both errors against float64; < the gradient's own is less, > jax.grad's is, = alike."""

NEARER = {"gradient": "<", "jax.grad": ">", "equal": "="}
"""How the gradient's error compares with jax.grad's: the smaller one is nearer to the truth."""


def row(leaf: LeafReport) -> tuple[str, ...]:
    """A leaf's row of the table, under HEADINGS."""
    d, f, r = leaf.difference, leaf.finite, leaf.rounding
    at = "" if d is None else f"{d.absolute:.1e} at {list(d.absolute_index)}"
    own, automatic = f"{leaf.norm_manual:.3g}", f"{leaf.norm_automatic:.3g}"
    errors = ("", "") if r is None else (f"{r.manual:.1e}", f"{r.automatic:.1e}")
    sign = "=" if r is None or errors[0] == errors[1] else NEARER[r.nearer]
    return (
        leaf.path,
        "x".join(map(str, leaf.shape)) or "scalar",
        own if own == automatic else f"{own}, {automatic}",
        "" if d is None else f"{d.cosine:.6f}",
        at,
        "" if d is None else f"{d.relative:.1e}",
        "" if f is None else f"{f.error_manual:.1e} of {f.bound:.1e}",
        "" if r is None else f"{errors[0]} {sign} {errors[1]}",
        leaf.status,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
