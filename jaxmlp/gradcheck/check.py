"""Is a hand-written gradient right? Three witnesses, leaf by leaf and element by element, and a likely cause.

    m = gradient(params, *args)        a = jax.grad(loss)(params, *args)        d = finite differences along v

Two questions are kept apart, because float32's rounding hides errors of the algebra and is often taken for one.

**Is the algebra right?** Asked in float64, of every element e: is |m_e - a_e| <= tolerance_e? A difference of rounding
shrinks with the precision, a difference of algebra does not. Between the unit roundoffs of float32, 2^-24, and of
float64, 2^-53, lies u* = 2^-38.5, equally far from both in logarithms. `rounding.py` runs `jax.grad` as if u* were
the precision, at parameters moved by u* of their own size, and

    tolerance_e = 2 max over the runs of |a_e(run) - a_e|

is about 2^14.5 = 23,000 times what float64's rounding explains, and as much less than float32 would show. It is in
proportion to the element's own sensitivity, so that a small leaf or element is not judged by a large one's scale; its
own size is its magnitude, or its leaf's root mean square where that is less or the element is 0. At a
kink, such as relu's at 0, the runs fall on either side, and deviate by the jump or half of it: any convention for the
derivative there stays within the tolerance. A kink is told by its deviation, which does not shrink with u*.

**Do finite differences confirm it?** jax.grad is not above doubt: of a `jax.custom_vjp` it calls the hand-written rule.
Along v (each element of a small leaf; of a large one random numbers of either sign, the direction of m - a, and the
elements in doubt) float64 values of the loss at steps h give the slopes left and right, and the derivative d lies
between them where the slope is monotone. What bounds the error, with STEPS 64 apart, is

    D_h = (f(h) - f(-h)) / 2h        |D_h - d| <= r_h + (error of f) / h
                                     r_h = |f(h) - 2 f(0) + f(-h)| / 2h + |D_h - D_(64 h)|

The first term of r_h is half the distance of the two slopes; the second is 4,095 times the truncation left, which is of
order h^2; the error of f comes from the same runs as the tolerance. The step with the least sum is taken, of those over
which f is still the same smooth or convex function: there the interval D_h +- r_h grows with h, and holds those of all
smaller steps. Where it does not, as when h spans many waves of a bounded f, that step and all wider ones are left out.
A gradient on which m and a agree must be confirmed; where they differ, finite differences say who is right.

**What does the given precision do to it?** In float32, bfloat16 or float16 the errors |m_e - truth_e| and
|a_e - truth_e| are compared, and `rounding_bound = bound_factor(n, N) s_e` says what rounding explains: s_e is the
standard deviation of the runs at that precision's u, n the longest sum, N the number of elements; `rounding.py`
derives it.
"""

import copy
import math
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmlp.gradcheck.causes import likely_causes
from jaxmlp.gradcheck.referee import FLOAT64, MIDWAY, STEPS, Gradient, Inputs, Programs, Referee, Result, enable_x64
from jaxmlp.gradcheck.report import Difference, FiniteDifferences, GradientReport, LeafReport, Rounding
from jaxmlp.gradcheck.rounding import bound_factor, underflow, unit_roundoff

SMALL = 64
"""Finite differences visit every element of a leaf of up to so many."""

OWN_SIZE = 0.5
"""Steps from here on, in units of the element, reach beyond 0 and to where it would have another order of size."""


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
        GradientError: for parameters that aren't floating arrays, and a loss that isn't one floating number, that JAX
            can't trace, or whose value or gradient hangs on random numbers that NumPy draws as it does.

    Some things can't be judged. At a kink any gradient passes that is off by less than twice the jump. A loop, such as
    `jax.lax.scan`, counts as one operation: where large numbers cancel inside it, its rounding is thought too small.
    What passes a `jax.lax.stop_gradient` is held still for finite differences, but not inside a loop or branch: where
    they contradict a gradient there that respects it as jax.grad does, a note says so. Of a large leaf finite
    differences see sums; where those are too coarse to judge single elements of a hand-written rule, a note says so.

    >>> import jax.numpy as jnp
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

    >>> import jax.numpy as jnp
    >>> check = GradientCheck(lambda w: jnp.sum(w**3), lambda w: 3 * w**2)
    >>> check(jnp.ones(2)).passed, check(jnp.zeros(2)).passed
    (True, True)
    """

    def __init__(self, loss: Callable[..., Any], gradient: Callable[..., Any]) -> None:
        self._programs, self._gradient = Programs(loss), Gradient(gradient)

    def of(self, gradient: Callable[..., Any]) -> "GradientCheck":
        """The check of another gradient of the same loss, whose programs need not be compiled again."""
        other = copy.copy(self)
        other._gradient = Gradient(gradient)
        return other

    def __call__(self, params: Any, *args: Any) -> GradientReport:
        """What `check_gradients(loss, gradient, params, *args)` gives."""
        given, notes, automatic = Inputs.of(params, args), [], None
        dtype = given.precision
        quiet = np.errstate(over="ignore", invalid="ignore")  # where squares leave float64, or wide steps the domain
        with quiet, jax.default_matmul_precision("highest"):
            with enable_x64(True):
                referee = Referee(self._programs, given.as_float64())
                try:
                    wide = self._gradient(referee.inputs)
                except Exception as error:
                    if dtype == FLOAT64:
                        raise
                    wide, brief = None, textwrap.shorten(str(error), 120)
                    notes.append(
                        f"the gradient does not run in float64 ({type(error).__name__}: {brief}): "
                        f"it is judged by {dtype.name}'s rounding"
                    )
            if dtype == FLOAT64 and wide is not None:
                own = wide
            else:  # in the caller's own setting of x64
                own = self._gradient(given)
                _, found = self._programs.differentiate(given.call, given.arrays)
                automatic = _vector(jax.tree.leaves(found))
            with enable_x64(True):
                return _judge(referee, given, wide or own, own, automatic, notes)


def _vector(leaves: list[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(x).astype(np.float64) for x in leaves] or [np.zeros(0)])


class _Evidence(NamedTuple):
    """What is known of every element, as vectors: of all leaves, or of one.

    Attributes:
        m: The hand-written gradient, in float64 if it runs there.
        m_own: The same in the given precision.
        a: jax.grad in float64: the truth, unless finite differences contradict it.
        bound: What rounding explains in the given precision.
    """

    m: np.ndarray
    m_own: np.ndarray
    a: np.ndarray
    a_own: np.ndarray
    tolerance: np.ndarray
    bound: np.ndarray
    wrong: np.ndarray
    kink: np.ndarray

    def leaf(self, part: slice) -> "_Evidence":
        return _Evidence(*(x[part] for x in self))


def _judge(
    referee: Referee, given: Inputs, found: Result, own: Result, automatic: np.ndarray | None, notes: list[str]
) -> GradientReport:
    """`found` is the gradient, in float64 if it can be; `own` and `automatic` are in the given precision."""
    name, n, paths = given.precision.name, referee.n, given.paths
    if not math.isfinite(referee.loss):
        return GradientReport(name, referee.loss, (), ("the loss is not finite in float64: there is nothing to check",))
    for result in (own, found):
        if result.wrong:
            return GradientReport(name, referee.loss, (), (result.wrong,))

    truths = referee.parts(referee.gradient)
    faults = [_misfit(*x) for x in zip(own.leaves, found.leaves, truths, given.arrays, strict=False)]
    referee.gradient = a = np.where(np.isfinite(referee.gradient), referee.gradient, 0)
    m, m_own = (
        _vector([y if fault else x for x, y, fault in zip(r.leaves, referee.parts(a), faults, strict=True)])
        for r in (found, own)
    )

    near = referee.deviation(MIDWAY, moved=MIDWAY)
    nearer = referee.deviation(MIDWAY / 64, moved=MIDWAY / 64)
    kink = nearer.largest > near.largest / 8  # smooth: about 1/64; at a kink: about 1
    # XLA flushes what is smaller than the smallest normal number, NumPy does not
    tolerance, unit_of_f = 2 * near.largest + underflow(FLOAT64), unit_roundoff(FLOAT64)
    if referee.unit > unit_of_f:
        notes.append("the loss itself computes in a narrower type than float64, which blurs all three witnesses")
        tolerance = tolerance + referee.rounding_bound(unit=referee.unit)
        kink, unit_of_f = np.zeros_like(kink), MIDWAY  # its own rounding is in every run, whatever their precision
    bound = tolerance if automatic is None else tolerance + referee.rounding_bound(given.precision)
    if found is own:
        tolerance = bound
    elif found.unit > unit_roundoff(FLOAT64):
        tolerance = tolerance + referee.rounding_bound(unit=found.unit)
        notes.append("the gradient computes in a narrower type than float64: it is judged by that type's rounding")
    wrong = np.abs(m - a) > tolerance
    if found is own and automatic is not None:
        wrong &= ~(np.abs(m - automatic) <= tolerance)  # rounding carried both across a kink
    if referee.custom_rule:
        notes.append(
            "the loss holds a jax.custom_vjp: jax.grad calls its hand-written rule, and finite differences are the "
            "only independent witness"
        )

    error_of_f = near.loss / MIDWAY * bound_factor(referee.longest, 1) + abs(referee.loss)
    finite = _finite_differences(referee, m, tolerance, wrong, error_of_f * unit_of_f)
    evidence = _Evidence(m, m_own, a, a if automatic is None else automatic, tolerance, bound, wrong, kink)
    leaves = []
    for i in range(n):
        here = evidence.leaf(referee.part(i))
        leaf = _judge_leaf(referee, paths[i], given.arrays[i], faults[i], here, finite[i], automatic is not None)
        leaves.append(leaf)
        if leaf.status != "fail":
            notes += [f"{paths[i]}: {note}" for note in _remarks(referee, name, here, finite[i], automatic is not None)]

    problems = []
    if found.value is not None and not abs(found.value - referee.loss) <= 2 * error_of_f * max(found.unit, unit_of_f):
        problems.append(f"the value beside the gradient is {found.value:.9g}, the loss is {referee.loss:.9g}")
    plain = wrong & ~kink  # at a kink no pattern can be told from the convention
    failing = [i for i in range(n) if leaves[i].status == "fail" and plain[referee.part(i)].any()]
    causes = likely_causes(referee, m, tolerance, wrong, failing) if failing and not any(faults) else []
    return GradientReport(name, referee.loss, tuple(leaves), tuple(problems), tuple(causes), tuple(notes))


def _misfit(own: np.ndarray, wide: np.ndarray, truth: np.ndarray, leaf: Any) -> str:
    """What is wrong with a leaf of the gradient before its numbers are compared."""
    for x in (own, wide):
        if x.shape != leaf.shape:
            transposed = ": transposed" if x.shape == leaf.shape[::-1] else ""
            return f"the gradient's shape is {x.shape}, expected {leaf.shape}{transposed}"
    if own.dtype != leaf.dtype:
        return f"the gradient's dtype is {own.dtype.name}, expected {np.dtype(leaf.dtype).name}"
    for x, what in ((wide, "the gradient is"), (truth, "jax.grad is"), (own, f"in {own.dtype.name} the gradient is")):
        places = np.argwhere(~np.isfinite(x.astype(np.float64)))
        if len(places):
            at = tuple(map(int, places[0]))
            both = ", and so is jax.grad" if x is wide and not np.isfinite(truth[at]) else ""
            return f"{what} {x[at]} at {list(at)}{both}: {len(places)} of {x.size} elements are not finite"
    return ""


def _judge_leaf(
    referee: Referee,
    path: str,
    leaf: Any,
    fault: str,
    e: _Evidence,
    finite: FiniteDifferences | None,
    rounds: bool,
) -> LeafReport:
    shape, size, kinks = tuple(leaf.shape), e.a.size, int(e.kink.sum())
    difference = rounding = None
    status, reason = "pass", ""
    if fault:
        status, reason = "fail", fault
    elif size:
        difference = _difference(e, shape)
        if rounds:
            rounding = _rounding(np.dtype(leaf.dtype).name, e, shape)
        confirmed = finite is None or finite.confirms_manual
        truth_stands = finite is None or finite.confirms_automatic or _excused(referee)
        if e.wrong.any() and (truth_stands or not confirmed):
            who = "jax.grad" if confirmed else "jax.grad and from finite differences"
            reason = f"differs from {who} by more than rounding in {e.wrong.sum()} of {size} elements"
        elif not confirmed and finite is not None and not _excused(referee):
            where = f"in {finite.contradicted} of {finite.probes} probes, most at {finite.at}"
            reason = f"finite differences contradict it, and jax.grad which agrees with it, {where}"
        elif rounding is not None and not rounding.explained and truth_stands:
            reason = (
                f"right in float64, but in {rounding.dtype} its error at {list(rounding.worst_index)} is "
                f"{rounding.worst:.2g}, where rounding explains {rounding.bound:.2g}"
            )
        if reason:
            status = "fail"
        elif kinks:
            status, reason = "kink", f"{kinks} of {size} elements stand at a kink, where the derivative is a convention"
    norms = float(np.linalg.norm(e.m)), float(np.linalg.norm(e.a))
    dtype = np.dtype(leaf.dtype).name
    return LeafReport(path, shape, dtype, status, reason, kinks, norms[0], norms[1], difference, finite, rounding)


def _excused(referee: Referee) -> bool:
    """Whether finite differences, which see through a stop_gradient, may contradict a right gradient."""
    return referee.stops and not referee.custom_rule


def _remarks(
    referee: Referee, name: str, e: _Evidence, finite: FiniteDifferences | None, rounds: bool
) -> Iterator[str]:
    if finite is not None and not finite.confirms_automatic:
        if e.wrong.any() and not _excused(referee):
            yield "finite differences confirm the gradient and contradict jax.grad"
        else:
            yield (
                "finite differences contradict it, and jax.grad which agrees with it; the loss holds a stop_gradient "
                "in a loop or branch, through which they see"
            )
    if finite is not None and referee.custom_rule and not finite.tells:
        yield (
            f"finite differences are too coarse to judge its single elements: at {finite.at} they know the derivative "
            f"within {finite.bound:.1e}; the hand-written rule may be wrong there"
        )
    if finite is not None and finite.blind:
        yield f"{finite.blind} of {finite.probes} probes found nothing: the loss is not finite one step away"
    if e.kink.size and e.kink.all():
        yield "every element stands at a kink, where little can be told; check at other parameters too"
    if e.a.size and not e.m.any() and not e.a.any() and not e.kink.all():
        yield "every element is 0, as of many a wrong gradient here: check at other parameters"
    if rounds and not e.m_own.any() and np.any(np.abs(e.a) > e.tolerance):
        yield f"every element underflows to 0 in {name}, where the truth reaches {np.abs(e.a).max():.1e}"
    elif rounds and not np.all(np.abs(e.a_own - e.a) <= e.bound):
        yield (
            f"in {name} jax.grad itself strays from float64's by more than rounding explains: is the loss "
            "ill-conditioned, or does it branch, or draw random numbers, by its precision?"
        )


def _place(flat_index: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(flat_index), shape))


def _ratio(error: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """error / bound, where 0 / 0 is 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(error > 0, error / bound, 0)


def _difference(e: _Evidence, shape: tuple[int, ...]) -> Difference:
    absolute = np.abs(e.m - e.a)
    relative = _ratio(absolute, np.maximum(np.abs(e.a), e.tolerance))
    i, j = np.argmax(absolute), np.argmax(relative)
    norms = float(np.linalg.norm(e.m) * np.linalg.norm(e.a))
    cosine = float(e.m @ e.a) / norms if norms > 0 else float(np.array_equal(e.m, e.a))
    return Difference(float(absolute[i]), _place(i, shape), float(relative[j]), _place(j, shape), cosine)


def _rounding(name: str, e: _Evidence, shape: tuple[int, ...]) -> Rounding:
    """Rounding explains an error that is within the bound, or that jax.grad shares: it carried both across a kink."""
    error, shared = np.abs(e.m_own - e.a), np.abs(e.m_own - e.a_own)
    least = np.fmin(error, shared)
    explained = bool(np.all(least <= e.bound))
    i = np.argmax(_ratio(error if explained else least, e.bound))
    manual, automatic = float(np.linalg.norm(error)), float(np.linalg.norm(e.a_own - e.a))
    nearer = "equal" if manual == automatic else "jax.grad" if automatic < manual else "gradient"
    return Rounding(name, manual, automatic, nearer, float(error[i]), _place(i, shape), float(e.bound[i]), explained)


def _finite_differences(
    referee: Referee, m: np.ndarray, tolerance: np.ndarray, wrong: np.ndarray, error_of_f: float
) -> list[FiniteDifferences | None]:
    """Of every leaf, the probe that speaks most against the gradient."""
    directions = np.empty((3, m.size))
    rng = np.random.default_rng(1)  # of mere signs, errors that cancel in one of four pairs of elements would hide
    directions[:2] = rng.choice([-1.0, 1.0], (2, m.size)) * rng.uniform(0.5, 1, (2, m.size))
    directions[2] = toward = m - referee.gradient
    probes: list[tuple[int, int, int]] = []
    for i in range(referee.n):
        part = referee.part(i)
        if part.stop - part.start <= SMALL:
            probes += [(i, j, 0) for j in range(part.start, part.stop)]
            continue
        probes += [(i, -1, 0), (i, -1, 1)]
        if wrong[part].any():
            doubtful = part.start + np.argsort(-_ratio(np.abs(toward[part]), tolerance[part]))[:4]
            probes += [(i, -1, 2), *((i, int(j), 0) for j in doubtful)]
            toward[part] /= np.abs(toward[part]).max()
    if not probes:
        return [None] * referee.n

    directions *= np.stack([referee.reach, referee.spread, referee.spread])
    values, products = referee.slopes(probes, directions, [m, referee.gradient, tolerance])
    h, f = np.array(STEPS), referee.loss
    forward, backward = (values[:, : len(h)] - f) / h, (f - values[:, len(h) :]) / h
    central, noise = (forward + backward) / 2, error_of_f / h
    r = np.abs(forward - backward) / 2
    r[:, 1:] += np.abs(np.diff(central, axis=1))
    bounds = _smooth(central, r, noise, r + noise)
    best = np.argmin(bounds, axis=1)
    rows = np.arange(len(probes))
    d, bound = central[rows, best], bounds[rows, best] + products[:, 2]
    errors = np.abs(products[:, :2] - d[:, None])
    sizes = np.array([_typical(referee, probe, directions, m) for probe in probes])

    found: list[FiniteDifferences | None] = [None] * referee.n
    for i in range(referee.n):
        mine = [r for r in rows if probes[r][0] == i]
        if not mine:
            continue
        confirmed = ~(errors[mine] > bound[mine][:, None])  # a probe that finds no finite value contradicts nothing
        r = mine[int(np.argmax(_ratio(errors[mine, 0], bound[mine])))]
        _, index, way = probes[r]
        step, scale = STEPS[best[r]], referee.scales[i]
        if index >= 0:
            scale = referee.reach[index]
            at = str(list(_place(index - referee.ends[i], referee.shapes[i])))
        else:
            at = "the direction of the difference" if way == 2 else "a random direction"
        found[i] = FiniteDifferences(
            probes=len(mine),
            at=at,
            step=float(step * scale),
            value=float(d[r] / scale),
            left=float(backward[r, best[r]] / scale),
            right=float(forward[r, best[r]] / scale),
            error_manual=float(errors[r, 0] / scale),
            error_automatic=float(errors[r, 1] / scale),
            bound=float(bound[r] / scale),
            contradicted=int((~confirmed[:, 0]).sum()),
            confirms_manual=bool(confirmed[:, 0].all()),
            confirms_automatic=bool(confirmed[:, 1].all()),
            blind=int(np.isinf(bound[mine]).sum()),
            tells=bool(np.any(bound[mine] <= sizes[mine] / 2) or not sizes[mine].any()),
        )
    return found


def _typical(referee: Referee, probe: tuple[int, int, int], directions: np.ndarray, m: np.ndarray) -> float:
    """What an element of typical size adds to the probe's derivative."""
    leaf, index, way = probe
    if index >= 0:
        return float(abs(m[index] * referee.reach[index]))
    part = referee.part(leaf)
    return float(np.sqrt(np.mean(np.square(m[part] * directions[way, part]))))


def _smooth(central: np.ndarray, r: np.ndarray, noise: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The bounds, infinite from the first step on, in widening order, whose interval doesn't hold the one before.

    Of every probe (a row) at every step (a column, the widest first). Rounding moves D_h by up to `noise` and r_h by
    up to four times that. The widest step has none to be compared with. A step beyond the element's own size counts
    only where it sees a slope: from there, that f doesn't move may mean that all happens nearer by.
    """
    kept = np.isfinite(bounds)
    for k in reversed(range(kept.shape[1] - 1)):
        apart = np.abs(central[:, k] - central[:, k + 1]) + r[:, k + 1] - r[:, k]
        kept[:, k] &= kept[:, k + 1] & (apart <= 5 * (noise[k] + noise[k + 1]))
    kept[:, 0] = False
    kept &= (np.array(STEPS) < OWN_SIZE) | (np.abs(central) > bounds)
    return np.where(kept, bounds, np.inf)
