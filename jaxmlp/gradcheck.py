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

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmlp.gradcauses import likely_causes
from jaxmlp.gradreport import Difference, FiniteDifferences, GradientReport, LeafReport, Rounding
from jaxmlp.referee import FLOAT64, MIDWAY, STEPS, Inputs, Programs, Referee, Result, enable_x64
from jaxmlp.rounding import bound_factor, unit_roundoff

SMALL = 64
"""Finite differences visit every element of a leaf of up to so many."""

TINY = float(np.finfo(np.float64).tiny)


def check_gradients(loss: Callable[..., Any], gradient: Callable[..., Any], params: Any, *args: Any) -> GradientReport:
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
    return GradientCheck(loss, gradient)(params, *args)


class GradientCheck:
    """`check_gradients` for several parameters and arguments, compiled once for each of their shapes.

    >>> check = GradientCheck(lambda w: jnp.sum(w**3), lambda w: 3 * w**2)
    >>> check(jnp.ones(2)).passed, check(jnp.zeros(2)).passed
    (True, True)
    """

    def __init__(self, loss: Callable[..., Any], gradient: Callable[..., Any]) -> None:
        self._programs = Programs(loss, gradient)

    def __call__(self, params: Any, *args: Any) -> GradientReport:
        """What `check_gradients(loss, gradient, params, *args)` gives."""
        given, notes, automatic = Inputs.of(params, args), [], None
        dtype = given.precision
        with jax.default_matmul_precision("highest"):
            with enable_x64(True):
                referee = Referee(self._programs, given.as_float64())
                try:
                    wide = self._programs.run_gradient(referee.inputs)
                except Exception as error:
                    if dtype == FLOAT64:
                        raise
                    wide, first_line = None, str(error).strip().partition("\n")[0]
                    notes.append(
                        f"the gradient does not run in float64 ({type(error).__name__}: {first_line}): "
                        f"it is judged by {dtype.name}'s rounding"
                    )
            if dtype == FLOAT64 and wide is not None:
                own = wide
            else:  # in the caller's own setting of x64
                own = self._programs.run_gradient(given)
                _, found = self._programs.differentiate(given.call, given.arrays)
                automatic = _vector(jax.tree.leaves(found))
            with enable_x64(True):
                return _judge(referee, given, wide or own, own, automatic, notes)


def _vector(leaves: list[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(x).astype(np.float64) for x in leaves] or [np.zeros(0)])


def _judge(
    referee: Referee,
    given: Inputs,
    found: Result,
    own: Result,
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

    faults = [_misfit(x, y, given.arrays[i]) for i, (x, y) in enumerate(zip(own.leaves, found.leaves, strict=True))]
    parts = referee.parts(a)
    m = _vector([y if fault else x for x, y, fault in zip(found.leaves, parts, faults, strict=True)])
    m_own = _vector([y if fault else x for x, y, fault in zip(own.leaves, parts, faults, strict=True)])

    near = referee.deviation(MIDWAY, moved=MIDWAY)
    nearer = referee.deviation(MIDWAY / 64, moved=MIDWAY / 64)
    kink = nearer.largest > near.largest / 8  # smooth: about 1/64; at a kink: about 1
    tolerance, unit_of_f = 2 * near.largest, unit_roundoff(FLOAT64)
    if referee.unit > unit_of_f:
        notes.append("the loss itself computes in a narrower type than float64, which blurs all three witnesses")
        tolerance = tolerance + referee.rounding_bound(unit=referee.unit)
        kink, unit_of_f = np.zeros_like(kink), MIDWAY  # its own rounding is in every run, whatever their precision
    bound = None if automatic is None else referee.rounding_bound(given.precision)
    if found is own and bound is not None:
        tolerance = np.maximum(tolerance, bound)
    elif found.unit > unit_roundoff(FLOAT64):
        tolerance = np.maximum(tolerance, referee.rounding_bound(unit=found.unit))
        notes.append("the gradient computes in a narrower type than float64: it is judged by that type's rounding")
    wrong = np.abs(m - a) > tolerance
    if found is own and automatic is not None:
        wrong &= ~(np.abs(m - automatic) <= tolerance)  # either side of a kink, together with jax.grad

    error_of_f = near.loss / MIDWAY * bound_factor(referee.longest, 1) + abs(referee.loss)
    finite = _finite_differences(referee, m, tolerance, wrong, error_of_f * unit_of_f)

    leaves = []
    for i in range(n):
        part = referee.part(i)
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
                which = (
                    f"{wrong[part].sum()} of {part.stop - part.start} elements" if part.stop - part.start > 1 else "it"
                )
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
            status, reason = (
                "kink",
                f"{kinks} of {part.stop - part.start} elements stand at a kink: the derivative there is a convention",
            )
        norms = [float(np.linalg.norm(x[part])) for x in (m, a)]
        dtype = np.dtype(given.arrays[i].dtype).name
        leaves.append(
            LeafReport(paths[i], shape, dtype, status, reason, kinks, *norms, difference, finite[i], rounding)
        )
        if rounding is not None and not np.any(m_own[part]) and np.any(a[part]) and status != "fail":
            notes.append(
                f"{paths[i]}: every element is 0 in {name}, where the truth reaches {np.abs(a[part]).max():.1e}"
            )

    problems = []
    if found.value is not None and not abs(found.value - referee.loss) <= max(
        2 * error_of_f * max(found.unit, unit_of_f), 0.0
    ):
        problems.append(f"the value beside the gradient is {found.value:.9g}, the loss is {referee.loss:.9g}")
    if np.array_equal(m, a) and a.any():
        notes.append(
            "the gradient and jax.grad agree to the last bit: if the loss is a jax.custom_vjp they are the same rule, and "
            "finite differences are the only independent witness"
        )
    failing = [i for i, leaf in enumerate(leaves) if wrong[referee.part(i)].any()]
    causes = likely_causes(referee, m, tolerance, wrong, failing) if failing and not any(faults) else []
    return GradientReport(name, referee.loss, tuple(leaves), tuple(problems), tuple(causes), tuple(notes))


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
            return (
                f"the gradient is {x[at]} at {list(at)} {where}, and not finite at {len(places)} of {x.size} elements"
            )
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
    referee: Referee, m: np.ndarray, tolerance: np.ndarray, wrong: np.ndarray, error_of_f: float
) -> list[FiniteDifferences | None]:
    """Of every leaf, the probe that speaks most against the gradient."""
    directions = np.empty((3, m.size))
    directions[:2] = np.random.default_rng(1).choice([-1.0, 1.0], (2, m.size))
    directions[2] = toward = m - referee.gradient
    probes: list[tuple[int, int, int]] = []
    for i in range(referee.n):
        part = referee.part(i)
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
