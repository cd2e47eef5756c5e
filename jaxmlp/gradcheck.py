"""Is a hand-written gradient right? Three witnesses, leaf by leaf and element by element, and a likely cause.

    m = gradient(params, *args)        a = jax.grad(loss)(params, *args)        d = finite differences along v

Two questions are kept apart, because float32's rounding hides errors of the algebra and is often taken for one.

**Is the algebra right?** Asked in float64, of every element e: is |m_e - a_e| <= tolerance_e? A difference of rounding
shrinks with the precision, a difference of algebra does not. Between the unit roundoffs of float32, 2^-24, and float64,
2^-53, lies u* = 2^-38.5, equally far from both in logarithms. `jaxmlp.rounding` runs `jax.grad` as if u* were the
precision, at parameters moved by u* of their leaf's scale, and

    tolerance_e = 2 max over the runs of |a_e(run) - a_e|

is 2^14.5 = 23,000 times more than float64's rounding explains, and as much less than float32 would show. It is in
proportion to that element's own sensitivity, so a small leaf or element is not judged by a large one's scale. At a kink,
such as relu's at 0, about half of the runs fall on either side and the deviation is half of the jump: any convention for
the derivative there stays within the tolerance. A kink is recognised by the deviation not shrinking with u*.

**Do finite differences confirm it?** jax.grad is not above doubt: through a `jax.custom_vjp` it calls a hand-written rule
itself. Along v (each element of a small leaf; random signs, the direction of m - a and the elements in doubt of a large
one) float64 values of the loss at steps h give the slopes left and right, and between them the derivative, where the
slope is monotone:

    D_h = (f(h) - f(-h)) / 2h        |D_h - d| <= |f(h) - 2 f(0) + f(-h)| / 2h + |D_h - D_(64 h)| + (error of f) / h

The first term is half the distance of the two slopes, the second estimates 4,095 times what is left of the truncation,
h^2 f''' / 6, and the error of f comes from the same runs. The step with the least sum is taken.

**What does the given precision do to it?** In float32, bfloat16 or float16 the errors |m_e - truth_e| and |a_e - truth_e|
are compared, and `rounding_bound = bound_factor(n, N) s_e` says what rounding explains: s_e is the standard deviation of
the runs at that precision's u, n the longest sum, N the number of elements; `jaxmlp.rounding` derives it.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp.errors import GradientError
from jaxmlp.rounding import (
    bound_factor,
    coarsest,
    longest_sum,
    perturbed,
    random_signs,
    take_signs,
    underflow,
    unit_roundoff,
)

SMALL = 64
"""Finite differences visit every element of a leaf of up to so many."""

RUNS = 16
"""Runs with random roundings."""

MIDWAY = 2.0**-38.5
"""u*, midway between the unit roundoffs of float32 and float64."""

STEPS = tuple(2.0**-k for k in (6, 12, 18, 24, 30))
"""The sweep of finite-difference steps, in units of the leaf's root mean square."""

TINY = float(np.finfo(np.float64).tiny)

_NOT_TRACEABLE = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)

# jax.enable_x64 since 0.8
_enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64


@dataclass(frozen=True)
class Difference:
    """Two arrays' difference: the largest, where it stands, and the angle."""

    absolute: float
    absolute_index: tuple[int, ...]
    relative: float
    """Largest |m_e - a_e| / max(|a_e|, tolerance_e): relative to what can be told from 0."""
    relative_index: tuple[int, ...]
    cosine: float


@dataclass(frozen=True)
class FiniteDifferences:
    """A leaf's central finite differences: of all its probes, the one that contradicts the gradient most."""

    probes: int
    at: str
    step: float
    value: float
    left: float
    right: float
    error_manual: float
    error_automatic: float
    bound: float
    confirms_manual: bool
    confirms_automatic: bool


@dataclass(frozen=True)
class Rounding:
    """A leaf in the given precision, against the float64 truth: norms of both errors, and the worst element."""

    dtype: str
    manual: float
    automatic: float
    nearer: str
    """`gradient`, `jax.grad` or `equal`."""
    worst: float
    worst_index: tuple[int, ...]
    bound: float
    """What rounding explains at that element."""
    explained: bool


@dataclass(frozen=True)
class LeafReport:
    """One leaf of the parameters."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    status: str
    """`pass`, `fail`, or `kink`: passes, but some elements stand at a kink, where the derivative is a convention."""
    reason: str
    kinks: int
    norm_manual: float
    norm_automatic: float
    difference: Difference | None
    finite: FiniteDifferences | None
    rounding: Rounding | None


@dataclass(frozen=True)
class GradientReport:
    """What `check_gradients` found: `print` it, take it `as_dict`, or let it `raise_on_failure`."""

    dtype: str
    loss: float
    leaves: tuple[LeafReport, ...]
    problems: tuple[str, ...] = ()
    """What is wrong with the gradient as a whole: its tree, the value beside it."""
    causes: tuple[str, ...] = ()
    """What the pattern of the failures suggests."""
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the gradient is right."""
        return not self.problems and all(leaf.status != "fail" for leaf in self.leaves)

    def raise_on_failure(self) -> None:
        """Raise a `GradientError` with the whole report, unless the check passed."""
        if not self.passed:
            raise GradientError(str(self))

    def as_dict(self) -> dict[str, Any]:
        """The report as data for JSON; a number that is not finite becomes None."""
        return {"passed": self.passed, **_plain(dataclasses.asdict(self))}

    def __str__(self) -> str:
        head = f"gradient check {'passed' if self.passed else 'FAILED'}: loss {self.loss:.6g}, {self.dtype}"
        rows = [_row(leaf) for leaf in self.leaves]
        table = [HEADINGS, *rows] if rows else []
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
        reasons = [f"{leaf.path}: {leaf.reason}" for leaf in self.leaves if leaf.reason]
        named = (("wrong: ", self.problems), ("", reasons), ("likely cause: ", self.causes), ("note: ", self.notes))
        return "\n".join([head, *lines, *(mark + text for mark, texts in named for text in texts)])


HEADINGS = ("leaf", "shape", "norm", "cosine", "largest error", "relative", "finite diff.", "rounding: own, jax.grad", "")


def _row(leaf: LeafReport) -> tuple[str, ...]:
    d, f, r = leaf.difference, leaf.finite, leaf.rounding
    at = "" if d is None else f"{d.absolute:.1e} at {list(d.absolute_index)}"
    return (
        leaf.path,
        "x".join(map(str, leaf.shape)) or "scalar",
        f"{leaf.norm_automatic:.3g}",
        "" if d is None else f"{d.cosine:.6f}",
        at,
        "" if d is None else f"{d.relative:.1e}",
        "" if f is None else f"{f.error_manual:.1e} of {f.bound:.1e}",
        "" if r is None else f"{r.manual:.1e}, {r.automatic:.1e}",
        leaf.status,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_gradients(
    loss: Callable[..., Any], gradient: Callable[..., Any], params: Any, *args: Any
) -> GradientReport:
    """Compare a hand-written gradient with `jax.grad` and with finite differences.

    The module's docstring derives every bound; there is no tolerance to set.

    Args:
        loss: `loss(params, *args)`, a scalar that JAX can differentiate.
        gradient: `gradient(params, *args)`: the gradient, in the shape of `params`, or a pair of value and gradient. To
            check the rule of a loss that is a `jax.custom_vjp`, pass `jax.grad(loss)`: jax.grad then calls the
            hand-written rule, both witnesses are the same, and finite differences are the only independent one.
        params: any pytree of floating arrays; its precision is the one that is reported on.
        args: anything else; arrays may be of any type, other leaves are passed on as they are.

    Returns:
        A `GradientReport`. It never raises for a wrong gradient: `report.raise_on_failure()` does.

    Raises:
        GradientError: for parameters that aren't floating arrays.

    >>> def loss(w, x):
    ...     return jnp.sum((x @ w) ** 2)
    >>> def gradient(w, x):
    ...     return x.T @ (x @ w)
    >>> report = check_gradients(loss, gradient, jnp.ones(3), jnp.eye(3) + 1)
    >>> report.passed, report.causes
    (False, ('params: the gradient times 1/2',))

    In a test, one line:

    >>> check_gradients(loss, jax.grad(loss), jnp.ones(3), jnp.eye(3)).raise_on_failure()
    """
    given, notes = _Inputs.of(params, args), []
    dtype, automatic = given.precision, None
    with jax.default_matmul_precision("highest"):
        with _enable_x64(True):
            referee = _Referee(loss, given.as_float64())
            try:
                wide = _Result.of(gradient, referee.inputs)
            except Exception as error:
                if dtype == np.float64:
                    raise
                wide, first_line = None, str(error).strip().partition("\n")[0]
                notes.append(
                    f"the gradient does not run in float64 ({type(error).__name__}: {first_line}); "
                    f"it is judged by {dtype.name}'s rounding"
                )
        own = wide or _Result.of(gradient, given)
        if dtype != np.float64:
            own = _Result.of(gradient, given)
            automatic = _Result.of(jax.grad(loss), given).flat()
        with _enable_x64(True):
            return _judge(referee, given, wide or own, own, automatic, notes)


class _Inputs(NamedTuple):
    """(params, args) as a list of arrays, which may be traced, and the rest, which may not."""

    tree: Any
    leaves: list[Any]
    paths: list[str]
    n_params: int

    @classmethod
    def of(cls, params: Any, args: tuple[Any, ...]) -> "_Inputs":
        flat, tree = jax.tree.flatten((params, args))
        n = len(jax.tree.leaves(params))
        names = [jax.tree_util.keystr(path[1:]) for path, _ in jax.tree.leaves_with_path((params, args))]
        paths = [name or "params" for name in names[:n]] + [f"args{name}" for name in names[n:]]
        for i in range(n):
            if isinstance(flat[i], float | np.ndarray | np.generic):
                flat[i] = jnp.asarray(flat[i])
            if not _is_float(flat[i]):
                kind = getattr(flat[i], "dtype", type(flat[i]).__name__)
                raise GradientError(f"params {paths[i]} is {kind}: expected a floating array; pass the rest in args")
        return cls(tree, flat, paths, n)

    @property
    def precision(self) -> np.dtype[Any]:
        return max((x.dtype for x in self.leaves[: self.n_params]), key=unit_roundoff, default=np.dtype(np.float64))

    def as_float64(self) -> "_Inputs":
        return self._replace(leaves=[np.asarray(x, np.float64) if _is_float(x) else x for x in self.leaves])

    @property
    def arrays(self) -> list[Any]:
        return [x for x in self.leaves if _is_array(x)]

    def call(self, function: Callable[..., Any], arrays: list[Any]) -> Any:
        """function(params, *args) with the arrays replaced."""
        replaced = iter(arrays)
        leaves = [next(replaced) if _is_array(x) else x for x in self.leaves]
        params, args = jax.tree.unflatten(self.tree, leaves)
        return function(params, *args)


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray | np.generic)


def _is_float(x: Any) -> bool:
    return _is_array(x) and bool(jnp.issubdtype(x.dtype, jnp.floating))


def _evaluate(function: Callable[..., Any], inputs: _Inputs) -> Any:
    try:
        return jax.jit(lambda arrays: inputs.call(function, arrays))(inputs.arrays)
    except _NOT_TRACEABLE:  # a gradient in NumPy, or one that branches on values
        return inputs.call(function, [jnp.asarray(x) for x in inputs.arrays])


class _Result(NamedTuple):
    """What a gradient function returned."""

    value: float | None
    leaves: list[np.ndarray]
    unit: float
    """Unit roundoff of the narrowest type that it computes in."""
    wrong: str
    """What is wrong with the result as a whole."""

    @classmethod
    def of(cls, gradient: Callable[..., Any], inputs: _Inputs) -> "_Result":
        result = _evaluate(gradient, inputs)
        wanted = jax.tree.structure(inputs.call(lambda params, *_: params, inputs.arrays))
        value, tree = None, jax.tree.structure(result)
        if tree != wanted and isinstance(result, tuple) and len(result) == 2 and np.ndim(result[0]) == 0:
            value, result = float(result[0]), result[1]
            tree = jax.tree.structure(result)
        if tree != wanted:
            return cls(value, [], 0.0, f"the gradient's tree is {tree}; expected that of the parameters, {wanted}")
        leaves = [np.asarray(x) for x in jax.tree.leaves(result)]
        unit = max((unit_roundoff(x.dtype) for x in leaves if _is_float(x)), default=0.0)
        try:
            program = jax.make_jaxpr(lambda arrays: inputs.call(gradient, arrays))(inputs.arrays)
            unit = max(unit, coarsest(program.jaxpr))
        except _NOT_TRACEABLE:
            pass
        return cls(value, leaves, unit, "")

    def flat(self) -> np.ndarray:
        return np.concatenate([np.ravel(x).astype(np.float64) for x in self.leaves] or [np.zeros(0)])


def _flat(leaves: list[Any]) -> jax.Array:
    return jnp.concatenate([jnp.ravel(x).astype(jnp.float64) for x in leaves] or [jnp.zeros(0)])


class _Deviation(NamedTuple):
    """Largest deviation and its root mean square, of every element of the gradient; and the latter of the loss."""

    largest: np.ndarray
    rms: np.ndarray
    loss: float


class _Referee:
    """The loss in float64: its value, its gradient by jax.grad, its slopes, and what rounding does to them."""

    def __init__(self, loss: Callable[..., Any], inputs: _Inputs) -> None:
        self.inputs = inputs
        self.n = inputs.n_params
        self.shapes = [np.shape(x) for x in inputs.leaves[: self.n]]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.ends = np.cumsum([0, *self.sizes])
        squares = [np.mean(np.square(x)) if x.size else 0 for x in inputs.arrays[: self.n]]
        self.scales = np.array([math.sqrt(s) if s > 0 and math.isfinite(s) else 1.0 for s in squares])
        self.scale = np.repeat(self.scales, self.sizes)
        self.differentiate = jax.jit(lambda arrays: inputs.call(jax.value_and_grad(loss), arrays))
        self.value: Callable[[list[Any]], Any] = lambda arrays: inputs.call(loss, arrays)
        value, gradient = self.differentiate(inputs.arrays)
        self.loss = float(value)
        self.gradient = np.asarray(_flat(jax.tree.leaves(gradient)))
        self._sample = jax.jit(self._samples)
        self.longest = longest_sum(jax.make_jaxpr(self.differentiate)(inputs.arrays).jaxpr)

    def parts(self, flat: Any) -> list[Any]:
        return [
            flat[i:j].reshape(s) for i, j, s in zip(self.ends[:-1], self.ends[1:], self.shapes, strict=True)
        ]

    def at(self, flat: Any, arrays: list[Any]) -> list[Any]:
        return [*self.parts(flat), *arrays[self.n :]]

    def _samples(self, arrays: list[Any], here: Any, move: Any, unit: Any, least: Any, signs: Any) -> Any:
        start = _flat(arrays[: self.n])
        run = perturbed(lambda *arrays: self.differentiate(list(arrays)), *arrays)

        def one(total: Any, signs: Any) -> Any:
            moved = start + move * take_signs(signs, 0, start.shape).astype(jnp.float64)
            value, gradient = run(signs, unit, least, *self.at(moved, arrays))
            away = jnp.abs(jnp.append(_flat(jax.tree.leaves(gradient)), value.astype(jnp.float64)) - here)
            away = jnp.where(jnp.isfinite(away), away, 0)
            return (jnp.maximum(total[0], away), total[1] + away * away), None

        (largest, squares), _ = jax.lax.scan(one, (0 * here, 0 * here), signs)
        return largest, jnp.sqrt(squares / RUNS)

    def deviation(self, unit: float, least: float = 0.0, moved: float = 0.0) -> _Deviation:
        """Of `jax.grad`, with roundings of size `unit`, at parameters moved by `moved` of their leaf's scale."""
        here, move = np.append(self.gradient, self.loss), moved * self.scale
        settings = np.float64(unit), np.float64(least), random_signs(RUNS, seed=0)
        largest, rms = map(np.asarray, self._sample(self.inputs.arrays, here, move, *settings))
        return _Deviation(largest[:-1], rms[:-1], float(rms[-1]))

    def rounding_bound(self, dtype: Any = None, unit: float = 0.0) -> np.ndarray:
        """What the rounding of a precision explains, for every element."""
        unit, least = (unit_roundoff(dtype), underflow(dtype)) if dtype is not None else (unit, 0.0)
        return bound_factor(self.longest, max(self.gradient.size, 1)) * self.deviation(unit, least).rms

    def slopes(self, probes: list[tuple[int, int, int]], directions: np.ndarray, vectors: list[np.ndarray]) -> Any:
        """Of every probe: f at +-STEPS, and the products of its direction v with `vectors`, the last with |v|.

        A probe is (leaf, index, direction): the element of that flat index, or if it is -1, the leaf's part of a direction.
        """

        @jax.jit
        def program(arrays: list[Any], scale: Any, probes: Any, directions: Any, vectors: Any) -> Any:
            start = _flat(arrays[: self.n])
            elements = jnp.arange(start.size)

            def probe(p: Any) -> Any:
                first, last, index, direction = p
                within = (first <= elements) & (elements < last) & (index < 0)
                v = jnp.where(elements == index, scale, jnp.where(within, scale * directions[direction], 0))
                steps = jnp.array([*STEPS, *(-h for h in STEPS)])
                values = jax.lax.map(lambda h: self.value(self.at(start + h * v, arrays)).astype(jnp.float64), steps)
                return values, jnp.stack([*(vector @ v for vector in vectors[:-1]), vectors[-1] @ jnp.abs(v)])

            return jax.lax.map(probe, probes)

        leaves, indices, ways = np.array(probes, np.int64).reshape(-1, 3).T
        columns = (self.ends[leaves], self.ends[leaves + 1], indices, ways)
        return map(np.asarray, program(self.inputs.arrays, self.scale, columns, directions, vectors))


def _judge(
    referee: _Referee,
    given: _Inputs,
    found: _Result,
    own: _Result,
    automatic: np.ndarray | None,
    notes: list[str],
) -> GradientReport:
    """`found` is the hand-written gradient as far as possible in float64, `own` in the given precision."""
    name, n, paths, a = given.precision.name, referee.n, given.paths, referee.gradient
    if not math.isfinite(referee.loss):
        return GradientReport(name, referee.loss, (), ("the loss is not finite in float64: there is nothing to check",))
    for result in (own, found):
        if result.wrong:
            return GradientReport(name, referee.loss, (), (result.wrong,))

    faults = [_misfit(x, y, given.leaves[i]) for i, (x, y) in enumerate(zip(own.leaves, found.leaves, strict=True))]
    parts = referee.parts(a)
    m = _concatenated([y if fault else x for x, y, fault in zip(found.leaves, parts, faults, strict=True)])
    m_own = _concatenated([y if fault else x for x, y, fault in zip(own.leaves, parts, faults, strict=True)])

    near = referee.deviation(MIDWAY, moved=MIDWAY)
    nearer = referee.deviation(MIDWAY / 64, moved=MIDWAY / 64)
    kink = nearer.largest > near.largest / 8  # smooth: about 1/64; at a kink: about 1
    tolerance = 2 * near.largest
    bound = None if automatic is None else referee.rounding_bound(given.precision)
    if found is own and bound is not None:
        tolerance = np.maximum(tolerance, bound)
    elif found.unit > unit_roundoff(np.float64):
        tolerance = np.maximum(tolerance, referee.rounding_bound(unit=found.unit))
        notes.append("the gradient computes in a narrower type than float64: it is judged by that type's rounding")
    wrong = np.abs(m - a) > tolerance
    if found is own and automatic is not None:
        wrong &= ~(np.abs(m - automatic) <= tolerance)  # either side of a kink, together with jax.grad

    error_of_f = near.loss / MIDWAY * bound_factor(referee.longest, 1) + abs(referee.loss)
    finite = _finite_differences(referee, m, tolerance, wrong, error_of_f * unit_roundoff(np.float64), paths)

    leaves = []
    for i in range(n):
        part = slice(referee.ends[i], referee.ends[i + 1])
        shape, d = referee.shapes[i], finite[i]
        refuted = d is not None and not d.confirms_automatic
        difference = rounding = None
        status, reason = "pass", faults[i]
        if not reason and part.stop > part.start:
            difference = _difference(m[part], a[part], tolerance[part], shape)
            if bound is not None and automatic is not None:
                rounding = _rounding(name, m_own[part], automatic[part], a[part], bound[part], shape)
            if wrong[part].any() and refuted and d is not None and d.confirms_manual:
                notes.append(f"{paths[i]}: finite differences confirm the gradient and contradict jax.grad")
            elif wrong[part].any():
                both = " and finite differences" if d is not None and not d.confirms_manual else ""
                which = f"{wrong[part].sum()} of {part.stop - part.start} elements" if part.stop - part.start > 1 else "it"
                differ = "differ" if part.stop - part.start > 1 else "differs"
                reason = f"{which} {differ} from jax.grad{both} by more than rounding"
            elif d is not None and not d.confirms_manual:
                reason = f"finite differences contradict the gradient and jax.grad, which agree, at {d.at}"
            elif rounding is not None and not rounding.explained and not refuted:
                reason = (
                    f"right in float64, but in {name} the error of {rounding.worst:.2g} at "
                    f"{list(rounding.worst_index)} is more than rounding explains, {rounding.bound:.2g}"
                )
        kinks = int(kink[part].sum())
        if reason:
            status = "fail"
        elif kinks:
            status, reason = "kink", f"{kinks} of {part.stop - part.start} elements stand at a kink: the derivative there is a convention"
        norms = [float(np.linalg.norm(x[part])) for x in (m, a)]
        dtype = np.dtype(given.leaves[i].dtype).name
        leaves.append(
            LeafReport(paths[i], shape, dtype, status, reason, kinks, *norms, difference, finite[i], rounding)
        )
        if rounding is not None and not np.any(m_own[part]) and np.any(a[part]) and status != "fail":
            notes.append(f"{paths[i]}: every element is 0 in {name}, where the truth reaches {np.abs(a[part]).max():.1e}")

    problems = []
    if found.value is not None and not abs(found.value - referee.loss) <= max(
        2 * near.loss * found.unit / MIDWAY * bound_factor(referee.longest, 1), 2 * found.unit * abs(referee.loss)
    ):
        problems.append(f"the value beside the gradient is {found.value:.9g}, the loss is {referee.loss:.9g}")
    if np.array_equal(m, a) and a.any():
        notes.append(
            "the gradient and jax.grad agree to the last bit: if the loss is a jax.custom_vjp they are the same rule, and "
            "finite differences are the only independent witness"
        )
    failing = [i for i, leaf in enumerate(leaves) if wrong[referee.ends[i] : referee.ends[i + 1]].any()]
    causes = _causes(referee, m, tolerance, wrong, failing, paths) if failing and not any(faults) else []
    return GradientReport(name, referee.loss, tuple(leaves), tuple(problems), tuple(causes), tuple(notes))


def _concatenated(leaves: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(x).astype(np.float64) for x in leaves] or [np.zeros(0)])


def _misfit(own: np.ndarray, wide: np.ndarray, leaf: Any) -> str:
    """What is wrong with a leaf of the gradient before its numbers are compared."""
    for x in (own, wide):
        if x.shape != leaf.shape:
            transposed = ": transposed" if x.shape == leaf.shape[::-1] else ""
            return f"the gradient's shape is {x.shape}, expected {leaf.shape}{transposed}"
    if own.dtype != leaf.dtype:
        return f"the gradient's dtype is {own.dtype.name}, expected {np.dtype(leaf.dtype).name}"
    for x, where in ((wide, "in float64"), (own, f"in {own.dtype.name}")):
        places = np.argwhere(~np.isfinite(x.astype(np.float64)))
        if len(places):
            at = tuple(map(int, places[0]))
            return f"the gradient is {x[at]} at {list(at)} {where}, and not finite at {len(places)} of {x.size} elements"
    return ""


def _place(flat_index: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(flat_index), shape))


def _difference(m: np.ndarray, a: np.ndarray, tolerance: np.ndarray, shape: tuple[int, ...]) -> Difference:
    absolute = np.abs(m - a)
    scale = np.maximum(np.abs(a), tolerance)
    relative = absolute / np.where(scale > 0, scale, 1)
    i, j = np.argmax(absolute), np.argmax(relative)
    norms = float(np.linalg.norm(m) * np.linalg.norm(a))
    cosine = float(m @ a) / norms if norms > 0 else float(np.array_equal(m, a))
    return Difference(float(absolute[i]), _place(i, shape), float(relative[j]), _place(j, shape), cosine)


def _rounding(
    name: str, m: np.ndarray, a: np.ndarray, truth: np.ndarray, bound: np.ndarray, shape: tuple[int, ...]
) -> Rounding:
    error, least = np.abs(m - truth), np.fmin(np.abs(m - truth), np.abs(m - a))
    excess = np.where(least > bound, least / np.maximum(bound, TINY), error * 0)
    i = np.argmax(excess) if excess.any() else np.argmax(error / np.maximum(bound, TINY))
    manual, automatic = float(np.linalg.norm(error)), float(np.linalg.norm(a - truth))
    nearer = "equal" if manual == automatic else "jax.grad" if automatic < manual else "gradient"
    return Rounding(
        name, manual, automatic, nearer, float(error[i]), _place(i, shape), float(bound[i]), not excess.any()
    )


def _finite_differences(
    referee: _Referee, m: np.ndarray, tolerance: np.ndarray, wrong: np.ndarray, error_of_f: float, paths: list[str]
) -> list[FiniteDifferences | None]:
    """Of every leaf, the probe that speaks most against the gradient."""
    directions = np.empty((3, m.size))
    directions[:2] = np.random.default_rng(1).choice([-1.0, 1.0], (2, m.size))
    directions[2] = toward = m - referee.gradient
    probes: list[tuple[int, int, int]] = []
    for i in range(referee.n):
        part = slice(referee.ends[i], referee.ends[i + 1])
        if part.stop - part.start <= SMALL:
            probes += [(i, j, 0) for j in range(part.start, part.stop)]
            continue
        probes += [(i, -1, 0), (i, -1, 1)]
        if wrong[part].any():
            doubtful = part.start + np.argsort(-np.abs(toward[part]) / np.maximum(tolerance[part], TINY))[:4]
            probes += [(i, -1, 2), *((i, int(j), 0) for j in doubtful)]
            toward[part] /= np.abs(toward[part]).max()
    if not probes:
        return [None] * referee.n

    values, products = referee.slopes(probes, directions, [m, referee.gradient, tolerance])
    h, f = np.array(STEPS), referee.loss
    forward, backward = (values[:, : len(h)] - f) / h, (f - values[:, len(h) :]) / h
    central = (forward + backward) / 2
    bounds = np.abs(forward - backward) / 2 + error_of_f / h
    bounds[:, 1:] += np.abs(np.diff(central, axis=1))
    bounds = np.where(np.isfinite(bounds), bounds, np.inf)[:, 1:]  # the widest step has none to be compared with
    best = np.argmin(bounds, axis=1) + 1
    rows = np.arange(len(probes))
    d, bound = central[rows, best], bounds[rows, best - 1] + products[:, 2]
    errors = np.abs(products[:, :2] - d[:, None])

    found: list[FiniteDifferences | None] = [None] * referee.n
    for i in range(referee.n):
        mine = [r for r in rows if probes[r][0] == i]
        if not mine:
            continue
        confirmed = errors[mine] <= bound[mine][:, None]
        r = mine[int(np.argmax(errors[mine, 0] / np.maximum(bound[mine], TINY)))]
        _, index, way = probes[r]
        step, scale = STEPS[best[r]], referee.scales[i]
        if index >= 0:
            at = str(list(_place(index - referee.ends[i], referee.shapes[i])))
        else:
            at = "the direction of the difference" if way == 2 else "a random direction"
        found[i] = FiniteDifferences(
            len(mine), at, step * scale, *(float(x / scale) for x in (d[r], backward[r, best[r]], forward[r, best[r]])),
            *(float(x / scale) for x in (*errors[r], bound[r])), *(bool(x) for x in confirmed.all(axis=0)),
        )  # fmt: skip
    return found


def _factors(referee: _Referee) -> Iterator[tuple[float, str]]:
    """Constant factors that have a name, with the likeliest first."""
    inputs = referee.inputs
    yield from ((-1.0, "the sign -1"), (2.0, "2"), (0.5, "1/2"), (-2.0, "-2"), (-0.5, "-1/2"))
    names: dict[float, str] = {}
    for path, x in zip(inputs.paths[referee.n :], inputs.leaves[referee.n :], strict=True):
        if not _is_array(x):
            continue
        for axis, size in enumerate(np.shape(x)):
            letter = "B" if axis == 0 else "n"
            names.setdefault(float(size), f"{letter} = {size}, the length of axis {axis} of {path}")
        if _is_float(x) and np.ndim(x) == 1:
            names.setdefault(float(np.sum(x)), f"the sum of {path} = {np.sum(x):.6g}")
            names.setdefault(float(np.mean(x)), f"the mean of {path} = {np.mean(x):.6g}")
    for path, shape in zip(inputs.paths, referee.shapes, strict=False):
        for axis, size in enumerate(shape):
            names.setdefault(float(size), f"n = {size}, the length of axis {axis} of {path}")
    for value, name in names.items():
        if value not in (0.0, 1.0):
            for factor, before in ((1.0, ""), (-1.0, "-"), (2.0, "2 times "), (0.5, "1/2 times ")):
                yield factor * value, f"{before}{name}"
                yield factor / value, f"{before}1/{name}" if len(name.split(" = ")[0]) == 1 else f"{before}1 over {name}"


def _pattern(referee: _Referee, i: int, m: list[Any], tolerance: list[Any], wrong: Any, paths: list[str]) -> str:
    """What a wrong leaf looks like."""
    a = referee.parts(referee.gradient)
    mine, true, t = m[i], a[i], tolerance[i]
    if not mine.any():
        return "all zero"
    if true.ndim == 2 and true.shape[0] == true.shape[1] > 1 and np.all(np.abs(mine - true.T) <= t.T):
        return "the gradient transposed"
    for j in range(referee.n):
        if j != i and a[j].shape == true.shape and a[j].any() and np.all(np.abs(mine - a[j]) <= tolerance[j]):
            return f"holds the gradient of {paths[j]}: shifted"
    square = float(np.sum(true * true))
    factor = float(np.sum(mine * true)) / square if square > 0 else 0.0
    if factor != 0 and np.all(np.abs(mine - factor * true) <= (1 + abs(factor)) * t):
        uncertain = max(float(np.linalg.norm(t)) / math.sqrt(square), 2 * MIDWAY)
        for value, name in _factors(referee):
            if abs(factor - value) <= uncertain * max(abs(value), abs(factor)):
                return f"the gradient times {name}"
        if true.size > 1:
            return f"the gradient times a constant, {factor:.8g}"
    places = np.argwhere(wrong)
    if len(places) == 1 and true.size > 1:
        return f"only the element {[int(k) for k in places[0]]} is wrong"
    for axis, word in enumerate(("row", "column")[: true.ndim] if true.ndim == 2 else ()):
        if true.shape[axis] > 1 and len(set(places[:, axis])) == 1:
            return f"only {word} {int(places[0, axis])} is wrong"
    for axis in range(true.ndim):
        if true.shape[axis] > 1 and np.all(np.ptp(mine, axis=axis) <= np.ptp(t, axis=axis) + 2 * np.max(t)):
            return f"the same all along axis {axis}: summed or averaged over it, then broadcast"
    return ""


def _causes(
    referee: _Referee, m_flat: np.ndarray, tolerance: np.ndarray, wrong: np.ndarray, failing: list[int], paths: list[str]
) -> list[str]:
    n, inputs = referee.n, referee.inputs
    arrays = inputs.arrays
    where = [k for k, x in enumerate(arrays) if k >= n and _is_float(x) and np.ndim(x) == 1 and np.any(x != 1)]
    array_paths = [path for path, x in zip(inputs.paths, inputs.leaves, strict=True) if _is_array(x)]
    for k in where:
        _, ones = referee.differentiate([*arrays[:k], np.ones_like(arrays[k]), *arrays[k + 1 :]])
        if np.all(np.abs(m_flat - np.asarray(_flat(jax.tree.leaves(ones)))) <= tolerance):
            return [f"{array_paths[k]} is ignored: with ones in its place the gradient is right"]

    m, t, w = referee.parts(m_flat), referee.parts(tolerance), referee.parts(wrong)
    patterns: dict[str, list[str]] = {}
    for i in failing:
        patterns.setdefault(_pattern(referee, i, m, t, w[i], paths), []).append(paths[i])
    causes = [f"{', '.join(leaves)}: {pattern}" for pattern, leaves in patterns.items() if pattern]
    right = [i for i in range(n) if i not in failing]
    vectors = [i for i in range(n) if len(referee.shapes[i]) == 1]
    if n > len(vectors) > 0 and len(failing) > 1:
        if failing == vectors:
            causes.append("only the vectors (biases) are wrong: their own sum over the examples")
        elif not set(failing) & set(vectors):
            causes.append("only the matrices are wrong, their biases are right: the activations that enter the layers")
    if "" not in patterns:
        return causes
    if right and failing == list(range(len(failing))) and len(failing) > 1:
        causes.append(
            f"every leaf from {paths[right[0]]} on is right and all before are wrong, by no constant factor: the fault lies "
            "in what passes from one to the other, such as a missing or wrong activation derivative"
        )
    elif not right:
        causes.append(
            "every leaf is wrong, by no constant factor: the fault lies where the backward pass begins, in the derivative of "
            "the loss or of the output's activation"
        )
    return causes
