"""How far rounding can carry a result: the same program, run with its roundings drawn at random.

The standard model of arithmetic in a precision of unit roundoff u says that every operation returns

    fl(x op y) = (x op y)(1 + d) + t,        |d| <= u,  |t| <= the smallest number kept (else 0)

so that a program's rounding error is, to first order, e = sum_i c_i d_i over its roundings i. What is wanted are not
the c_i but their length: with independent random d_i of variance u^2, e has mean 0 and standard deviation
s = u sqrt(sum_i c_i^2). `perturbed` runs a program so (Monte Carlo arithmetic, Parker 1997), and a few runs give s for
every element of the result. Two steps go from s to a bound:

- A sum of n terms rounds n times, on partial sums; here its terms are perturbed once each. A partial sum of j terms is
  sqrt(j) times a term where the signs are mixed, so the sum's own roundings weigh at most sqrt(n) as much as its
  terms', for the program's longest sum n.
- By Hoeffding's inequality |e| > t s has probability below 2 exp(-t^2 / 2) for independent d_i in [-u, u], as in Higham
  and Mary, "A new approach to probabilistic rounding error analysis" (2019).

So N elements stay within `bound_factor(n, N) * s` but for a chance of one in a billion, were s known. It is estimated,
from few runs; but their d_i have three times the variance of a rounding's own, which is spread over [-u, u] evenly.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

CHANCE = 1e-9
"""Chance that a correct result lies outside the bound."""

EXACT = frozenset(
    [
        "abs",
        "and",
        "argmax",
        "argmin",
        "bitcast_convert_type",
        "broadcast_in_dim",
        "clamp",
        "concatenate",
        "copy",
        "cummax",
        "cummin",
        "dynamic_slice",
        "dynamic_update_slice",
        "eq",
        "expand_dims",
        "gather",
        "ge",
        "gt",
        "iota",
        "is_finite",
        "le",
        "lt",
        "max",
        "min",
        "ne",
        "neg",
        "not",
        "optimization_barrier",
        "or",
        "pad",
        "real",
        "reduce_and",
        "reduce_max",
        "reduce_min",
        "reduce_or",
        "reduce_precision",
        "reshape",
        "rev",
        "round",
        "floor",
        "ceil",
        "scatter",
        "select_and_gather_add",
        "select_n",
        "sharding_constraint",
        "sign",
        "slice",
        "sort",
        "split",
        "squeeze",
        "stop_gradient",
        "top_k",
        "transpose",
    ]
)
"""Primitives that move or compare numbers and round nothing, as conversions to a wider type do. Any other is taken to
round its result."""

SWITCHES = frozenset(
    [
        "argmax",
        "argmin",
        "ceil",
        "eq",
        "floor",
        "ge",
        "gt",
        "is_finite",
        "le",
        "lt",
        "ne",
        "round",
        "sign",
        "sort",
        "top_k",
    ]
)
"""Primitives, with conversions to whole numbers, whose result jumps: of what doesn't depend on the parameters they are
given the exact value, since a place computed from constants, such as the middle of a median, is no kink."""

BACKWARD = frozenset(
    [
        "cholesky",
        "eig",
        "eigh",
        "fft",
        "geqrf",
        "hessenberg",
        "householder_product",
        "lu",
        "qr",
        "schur",
        "svd",
        "triangular_solve",
        "tridiagonal",
        "tridiagonal_solve",
    ]
)
"""Primitives that round on the way to their results. Their error is what results from an error of their inputs, of the
size of a rounding of the largest element (Higham, "Accuracy and stability of numerical algorithms", 2002)."""

INLINED = frozenset(
    [
        "jit",
        "pjit",
        "closed_call",
        "core_call",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
        "remat",
        "remat2",
        "checkpoint",
    ]
)
"""Primitives that only call another program. A loop is one operation here, whose result is rounded."""

_DRAWS = 1 << 16

_finfo: Any = jnp.finfo  # which has no annotations


def unit_roundoff(dtype: Any) -> float:
    """u: half the distance from 1 to the next number.

    >>> unit_roundoff(jnp.float32) == 2**-24
    True
    """
    return float(_finfo(dtype).eps) / 2


def bound_factor(longest_sum: int, elements: int) -> float:
    """How many standard deviations an error may reach in any of N elements: sqrt(n) sqrt(2 ln(2N / chance))."""
    return math.sqrt(longest_sum) * math.sqrt(2 * math.log(2 * elements / CHANCE))


def underflow(dtype: Any) -> float:
    """The smallest number that is not flushed to 0: subnormals are kept in float16 only."""
    info = _finfo(dtype)
    return float(info.smallest_subnormal if dtype == jnp.float16 else info.tiny)


def _inner(eqn: Any) -> ClosedJaxpr | None:
    if eqn.primitive.name not in INLINED:
        return None
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in eqn.params:
            inner = eqn.params[name]
            return inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
    return None


def inlined(jaxpr: Jaxpr) -> Iterator[Any]:
    """Every operation of a program and of those that it only calls: what `perturbed` and `stopped` meet."""
    for eqn in jaxpr.eqns:
        inner = _inner(eqn)
        yield from [eqn] if inner is None else inlined(inner.jaxpr)


def equations(jaxpr: Jaxpr) -> Iterator[Any]:
    """Every operation of a program and of the programs that it calls or loops over."""
    for eqn in jaxpr.eqns:
        yield eqn
        inner: Any
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns"):
                    yield from equations(getattr(inner, "jaxpr", inner))


def constants(program: ClosedJaxpr | Jaxpr) -> list[Any]:
    """All numbers and arrays that a program, and those that it calls or loops over, hold, in the program's order.

    >>> [float(x) for x in constants(jax.make_jaxpr(lambda x: 3 * x)(2.0))]
    [3.0]
    """
    found = [*getattr(program, "consts", ())]
    for eqn in program.eqns:
        found += [x.val for x in eqn.invars if isinstance(x, Literal)]
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns"):
                    found += constants(inner)
    return found


def longest_sum(jaxpr: Jaxpr) -> int:
    """The number of terms in the longest sum of a program.

    >>> longest_sum(jax.make_jaxpr(lambda x: jnp.sum(x @ x.T))(jnp.ones((2, 9))).jaxpr)
    9
    >>> longest_sum(jax.make_jaxpr(jnp.cumsum)(jnp.ones(7)).jaxpr)
    7
    >>> images, kernels = jnp.ones((1, 3, 32, 32)), jnp.ones((16, 3, 3, 3))
    >>> longest_sum(jax.make_jaxpr(lambda x, k: jax.lax.conv(x, k, (1, 1), "VALID"))(images, kernels).jaxpr)
    27
    """
    longest = 1
    for eqn in equations(jaxpr):
        if eqn.primitive.name == "dot_general":
            shape = eqn.invars[0].aval.shape
            longest = max(longest, math.prod(shape[axis] for axis in eqn.params["dimension_numbers"][0][0]))
        elif eqn.primitive.name == "cumsum":
            longest = max(longest, eqn.invars[0].aval.shape[eqn.params["axis"]])
        elif eqn.primitive.name == "conv_general_dilated":
            kernel = eqn.invars[1].aval
            longest = max(longest, kernel.size // max(kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]], 1))
        elif eqn.primitive.name in ("reduce_sum", "scatter-add"):
            longest = max(longest, *(v.aval.size // max(eqn.outvars[0].aval.size, 1) for v in eqn.invars))
    return longest


def _from_whole(eqn: Any) -> bool:
    return eqn.primitive.name == "convert_element_type" and not jnp.issubdtype(eqn.invars[0].aval.dtype, jnp.inexact)


def _exact(eqn: Any) -> bool:
    if eqn.primitive.name != "convert_element_type":
        return eqn.primitive.name in EXACT
    given, to = eqn.invars[0].aval.dtype, eqn.params["new_dtype"]
    inexact = jnp.issubdtype(given, jnp.inexact) and jnp.issubdtype(to, jnp.inexact)
    return not inexact or unit_roundoff(to) <= unit_roundoff(given)


def _switches(eqn: Any) -> bool:
    to_whole = eqn.primitive.name == "convert_element_type" and not jnp.issubdtype(eqn.params["new_dtype"], jnp.inexact)
    return to_whole or eqn.primitive.name in SWITCHES


def coarsest(jaxpr: Jaxpr, least: float = 0.0) -> float:
    """The unit roundoff of the narrowest floating type that a program computes in.

    A mask that is converted to floating numbers is no computation.
    """
    avals = (v.aval for eqn in equations(jaxpr) if not _from_whole(eqn) for v in eqn.outvars)
    dtypes = {a.dtype for a in avals if jnp.issubdtype(getattr(a, "dtype", bool), jnp.inexact)}
    return max([least, *(unit_roundoff(dtype) for dtype in dtypes)])


def random_draws(runs: int, seed: int) -> np.ndarray:
    """Roundings of variance 1 for so many runs, uniform: of mere signs, two of equal weight could cancel in every run.

    Made outside of the compiled program, since a generator for each operation would be slow.
    """
    return np.random.default_rng(seed).uniform(-math.sqrt(3), math.sqrt(3), (runs, _DRAWS)).astype(np.float32)


def take_draws(draws: Any, start: int, shape: tuple[int, ...]) -> Any:
    """An array of draws, read from `start` on and round again."""
    start, size = start % (_DRAWS // 2), math.prod(shape)
    if size <= _DRAWS // 2:
        return jnp.asarray(draws)[start : start + size].reshape(shape)
    return jnp.resize(jnp.roll(draws, -start), shape)


def largest(x: Any) -> Any:
    """The largest magnitude in each matrix or vector of a stack."""
    return jnp.max(jnp.abs(x), axis=tuple(range(max(x.ndim - 2, 0), x.ndim)), keepdims=True).astype(x.dtype)


def bind(eqn: Any, inputs: list[Any]) -> list[Any]:
    """The results of an operation."""
    results = eqn.primitive.bind(*inputs, **eqn.params)
    return list(results) if eqn.primitive.multiple_results else [results]


def interpret(
    program: ClosedJaxpr,
    operands: list[Any],
    lift: Callable[[Any], Any],
    apply: Callable[[Any, list[Any]], list[Any]],
) -> list[Any]:
    """Runs a program and those that it only calls, with `apply(eqn, inputs)` in the place of every operation.

    Values may be of any kind that `apply` takes and gives; `lift` makes one of a constant.
    """
    jaxpr, constants = program.jaxpr, map(lift, program.consts)
    values: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *operands], strict=True))

    def read(v: Any) -> Any:
        return lift(v.val) if isinstance(v, Literal) else values[v]

    for eqn in jaxpr.eqns:
        inputs, inner = [read(v) for v in eqn.invars], _inner(eqn)
        results = apply(eqn, inputs) if inner is None else interpret(inner, inputs, lift, apply)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def stopped(function: Callable[..., Any], *example: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`function` with its stop_gradients held, as (hold, run): `run(hold(*args), *others)`.

    `hold` gives the values that pass the stop_gradients, and `run` puts them in the place of those that would pass:
    what is left to vary is what `jax.grad` differentiates. A stop_gradient inside a loop or branch is not held.

    >>> hold, run = stopped(lambda x: jax.lax.stop_gradient(x) * x, jnp.float32(1))
    >>> float(run(hold(jnp.float32(2)), jnp.float32(10)))
    20.0
    """
    program, shape = jax.make_jaxpr(function, return_shape=True)(*example)
    tree = jax.tree.structure(shape)

    def evaluate(args: Any, stop: Callable[[Any], Any]) -> list[Any]:
        def apply(eqn: Any, inputs: list[Any]) -> list[Any]:
            return [stop(x) for x in inputs] if eqn.primitive.name == "stop_gradient" else bind(eqn, inputs)

        return interpret(program, jax.tree.leaves(args), lambda constant: constant, apply)

    def hold(*args: Any) -> list[Any]:
        held: list[Any] = []

        def keep(x: Any) -> Any:
            held.append(x)
            return x

        evaluate(args, keep)
        return held

    def run(held: list[Any], *args: Any) -> Any:
        passing = iter(held)
        return jax.tree.unflatten(tree, evaluate(args, lambda x: next(passing)))

    return hold, run


class _Value(NamedTuple):
    """A value of a run, and the exact one where it doesn't depend on the parameters."""

    run: Any
    exact: Any = None


def perturbed(function: Callable[..., Any], *example: Any, variables: int | None = None) -> Callable[..., Any]:
    """`function(*args)` as `run(draws, unit, least, *args)`: each operation's result times 1 +- unit, +- least.

    `draws` are `random_draws(1, seed)[0]`. The first `variables` arguments (by default all) are the parameters.

    >>> run = perturbed(lambda x: 3 * x, jnp.float32(1))
    >>> result = run(random_draws(1, 0)[0], jnp.float32(0.25), jnp.float32(0), jnp.float32(1))
    >>> 0 < abs(float(result) - 3) < 0.75 * 3**0.5
    True
    """
    program, shape = jax.make_jaxpr(function, return_shape=True)(*example)
    tree = jax.tree.structure(shape)

    def run(draws: Any, unit: Any, least: Any, *args: Any) -> Any:
        drawn = 0

        def rounded(x: Any, size: Callable[[Any], Any] = lambda x: x) -> Any:
            nonlocal drawn
            if not jnp.issubdtype(x.dtype, jnp.inexact):
                return x
            drawn += 1  # each operation reads the draws from another place
            draw = take_draws(draws, drawn * 7919, x.shape).astype(x.dtype)
            # a type narrower than the run's precision rounds by its own unit
            own = jnp.maximum(unit, unit_roundoff(x.dtype)).astype(x.dtype)
            moved = x + draw * (own * size(x) + least.astype(x.dtype))
            return jnp.where(jnp.isfinite(x), moved, x)  # infinities, such as a mask's, are exact

        def apply(eqn: Any, inputs: list[_Value]) -> list[_Value]:
            switches = _switches(eqn)
            given = [x.exact if switches and x.exact is not None else x.run for x in inputs]
            moved = [rounded(x, largest) for x in given] if eqn.primitive.name in BACKWARD else given
            found = bind(eqn, moved)
            exact: list[Any] = [None] * len(found)
            if all(x.exact is not None for x in inputs):
                same = all(x is y.exact for x, y in zip(moved, inputs, strict=True))
                exact = found if same else bind(eqn, [x.exact for x in inputs])
            if not _exact(eqn):
                found = [rounded(x) for x in found]
            return [_Value(*pair) for pair in zip(found, exact, strict=True)]

        leaves = jax.tree.leaves(args)
        varying = len(leaves) if variables is None else len(jax.tree.leaves(args[:variables]))
        operands = [_Value(x, None if i < varying else x) for i, x in enumerate(leaves)]
        found = interpret(program, operands, lambda constant: _Value(constant, constant), apply)
        return jax.tree.unflatten(tree, [x.run for x in found])

    return run
