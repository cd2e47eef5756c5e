"""The referee of a gradient check: the loss in float64, its slopes, and what rounding does to its gradient.

For any `loss(params, *args)` of any pytrees. Arrays are traced; all other leaves, such as a `Network`, are passed on as
they are.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from jaxmlp.errors import GradientError, JaxmlpError
from jaxmlp.gradcheck.rounding import (
    bound_factor,
    coarsest,
    constants,
    equations,
    inlined,
    longest_sum,
    perturbed,
    random_draws,
    stopped,
    take_draws,
    underflow,
    unit_roundoff,
)

RUNS = 16
"""Runs with random roundings."""

MIDWAY = 2.0**-38.5
"""u*, midway between the unit roundoffs of float32 and float64."""

STEPS = tuple(0.83 * 2.0**k for k in range(42, -43, -6))
"""The sweep of finite-difference steps, in units of an element's own size; no powers of 2, as periods may be."""

FLOAT64 = np.dtype(np.float64)

enable_x64: Any = jax.enable_x64


def is_array(x: Any) -> bool:
    """Whether a leaf is traced."""
    return isinstance(x, jax.Array | np.ndarray | np.generic)


def is_float(x: Any) -> bool:
    """Whether a leaf is an array of a floating type, bfloat16 included."""
    return is_array(x) and bool(jnp.issubdtype(x.dtype, jnp.floating))


def flatten(tree: Any) -> jax.Array:
    """All elements of a tree, in float64."""
    return jnp.concatenate([jnp.ravel(x).astype(jnp.float64) for x in jax.tree.leaves(tree)] or [jnp.zeros(0)])


@dataclass(frozen=True, eq=False)
class Call:
    """How to call a function of (params, *args) with a list of arrays: what `jax.jit` takes as static.

    Attributes:
        leaves: None in the place of an array.
    """

    tree: Any
    leaves: tuple[Any, ...]
    arrays: tuple[bool, ...]

    def __call__(self, function: Callable[..., Any], arrays: Any) -> Any:
        replaced = iter(arrays)
        leaves = [next(replaced) if traced else x for x, traced in zip(self.leaves, self.arrays, strict=True)]
        params, args = jax.tree.unflatten(self.tree, leaves)
        return function(params, *args)

    def __hash__(self) -> int:
        return hash((self.tree, self.arrays))  # the leaves may not be hashable

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Call)
            and (self.tree, self.arrays) == (other.tree, other.arrays)
            and all(map(_same, self.leaves, other.leaves))
        )


def _same(x: Any, y: Any) -> bool:
    """Whether two arguments are equal; those whose `==` gives no truth are not."""
    try:
        return x is y or bool(x == y)
    except Exception:
        return False


class Inputs(NamedTuple):
    """(params, args), taken apart.

    Attributes:
        arrays: The parameters come first.
        shapes: Of the parameters.
        paths: Of the arrays.
    """

    call: Call
    arrays: list[Any]
    shapes: list[tuple[int, ...]]
    paths: list[str]

    @classmethod
    def of(cls, params: Any, args: tuple[Any, ...]) -> "Inputs":
        leaves, tree = jax.tree.flatten((params, args))
        n = len(jax.tree.leaves(params))
        names = [jax.tree_util.keystr(path[1:]) for path, _ in jax.tree.leaves_with_path((params, args))]
        paths = [name or "params" for name in names[:n]] + [f"args{name}" for name in names[n:]]
        for i in range(n):
            if isinstance(leaves[i], float):
                leaves[i] = np.asarray(leaves[i])
            if not is_float(leaves[i]):
                kind = getattr(leaves[i], "dtype", type(leaves[i]).__name__)
                raise GradientError(
                    f"params{names[i]} is of type {kind}, expected a floating array; the rest goes in args"
                )
        traced = tuple(map(is_array, leaves))
        rest = tuple(None if is_traced else x for x, is_traced in zip(leaves, traced, strict=True))
        return cls(
            Call(tree, rest, traced),
            [x for x in leaves if is_array(x)],
            [x.shape for x in leaves[:n]],
            [path for path, is_traced in zip(paths, traced, strict=True) if is_traced],
        )

    @property
    def precision(self) -> np.dtype[Any]:
        """The parameters' type; of several, the narrowest."""
        dtypes = (np.dtype(x.dtype) for x in self.arrays[: len(self.shapes)])
        return max(dtypes, key=unit_roundoff, default=FLOAT64)

    def as_float64(self) -> "Inputs":
        return self._replace(arrays=[_widened(x) for x in self.arrays])


def _widened(x: Any) -> Any:
    if is_float(x):
        return np.asarray(x, np.float64)
    return np.asarray(x, np.complex128) if jnp.issubdtype(x.dtype, jnp.complexfloating) else x


class Result(NamedTuple):
    """What a gradient function returned.

    Attributes:
        unit: Unit roundoff of the narrowest type that it computes in.
        wrong: What is wrong with the result as a whole.
    """

    value: float | None
    leaves: list[np.ndarray]
    unit: float
    wrong: str


def _is_number(x: Any) -> bool:
    return (is_array(x) and x.shape == ()) or isinstance(x, int | float)


class Programs:
    """The compiled programs of one loss: compiled when they first meet arrays of some shapes."""

    def __init__(self, loss: Callable[..., Any]) -> None:
        self.loss = loss
        self.steady: set[Call] = set()
        self.value = jax.jit(lambda call, arrays: call(loss, arrays), static_argnums=0)
        self.differentiate = jax.jit(lambda call, arrays: call(jax.value_and_grad(loss), arrays), static_argnums=0)
        self.deviations = jax.jit(partial(_deviations, loss), static_argnums=0)
        self.slopes = jax.jit(partial(_slopes, loss), static_argnums=0)

    def refuse_chance(self, inputs: Inputs) -> None:
        """Raises a GradientError where the loss has other numbers each time it is traced, as NumPy draws them.

        Each program has numbers of its own then, and what one finds of the loss is not so of the others'. Numbers that
        make no difference to value and gradient, such as a buffer's that is written over, are none of it.
        """
        if inputs.call in self.steady:
            return
        traced = [
            jax.make_jaxpr(lambda *arrays: inputs.call(jax.value_and_grad(self.loss), arrays))(*inputs.arrays)
            for _ in range(2)
        ]
        first, second = map(constants, traced)
        if len(first) != len(second) or not all(map(_alike, first, second)):
            here, there = (
                np.asarray(flatten(jax.jit(jaxpr_as_fun(program))(*inputs.arrays)), np.float64) for program in traced
            )
            if not np.allclose(here, there, rtol=SAME, atol=SAME * np.nanmax(np.abs(here), initial=0), equal_nan=True):
                raise GradientError(
                    "the loss has another value or gradient each time that JAX traces it, as of random numbers that "
                    "NumPy draws: expected the same, such as of those that a key among its arguments gives"
                )
        self.steady.add(inputs.call)


SAME = 1e-9
"""Relative difference of two values in float64 that the order of sums may make."""


def _alike(x: Any, y: Any) -> bool:
    """Whether two constants of a program are the same."""
    if x is y:
        return True
    if is_array(x) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x, y = jax.random.key_data(x), jax.random.key_data(y)
    x, y = np.asarray(x), np.asarray(y)
    return np.array_equal(x, y, equal_nan=bool(jnp.issubdtype(x.dtype, jnp.inexact)))


class Gradient:
    """The hand-written gradient, compiled if it can be."""

    def __init__(self, gradient: Callable[..., Any]) -> None:
        self.gradient = gradient
        self.compiled = jax.jit(lambda call, arrays: call(gradient, arrays), static_argnums=0)

    def __call__(self, inputs: Inputs) -> Result:
        unit = 0.0
        try:
            result = self.compiled(inputs.call, inputs.arrays)
            unit = coarsest(jax.make_jaxpr(partial(self.compiled, inputs.call))(inputs.arrays).jaxpr)
        except Exception:  # it is written in NumPy, or branches on values; if it is broken, it raises again
            result = inputs.call(self.gradient, [jnp.asarray(x) for x in inputs.arrays])
        wanted: Any = jax.tree.structure(inputs.call(lambda params, *_: params, inputs.arrays))
        value, tree = None, cast(Any, jax.tree.structure(result))
        if tree != wanted and isinstance(result, tuple) and len(result) == 2:
            first, rest = result
            if isinstance(first, tuple) and len(first) == 2:  # as of jax.value_and_grad with has_aux=True
                first = first[0]
            if _is_number(first):
                value, result = float(first), rest
                tree = cast(Any, jax.tree.structure(result))
            elif is_array(first) and first.size == 1 and jax.tree.structure(rest) == wanted:
                wrong = f"the value beside the gradient has shape {first.shape}, expected one number, of shape ()"
                return Result(None, [], 0.0, wrong)
        if tree != wanted:
            return Result(value, [], 0.0, f"the gradient's tree is {tree}, expected that of the parameters, {wanted}")
        leaves = [np.asarray(x) for x in jax.tree.leaves(result)]
        return Result(value, leaves, max([unit, *(unit_roundoff(x.dtype) for x in leaves if is_float(x))]), "")


def _parameters(flat: Any, like: Any) -> list[Any]:
    """A vector cut into arrays of the shapes of `like`."""
    ends = np.cumsum([0, *(x.size for x in like)])
    return [flat[i:j].reshape(x.shape) for i, j, x in zip(ends[:-1], ends[1:], like, strict=True)]


def _deviations(
    loss: Callable[..., Any],
    call: Call,
    params: Any,
    rest: Any,
    here: Any,
    move: Any,
    unit: Any,
    least: Any,
    draws: Any,
) -> Any:
    """Of (gradient, loss) from `here`: the largest and the root mean square over runs with random roundings."""
    start = flatten(params)
    run = perturbed(lambda *arrays: call(jax.value_and_grad(loss), arrays), *params, *rest, variables=len(params))

    def one(total: Any, draws: Any) -> Any:
        moved = start + move * take_draws(draws, 0, start.shape).astype(jnp.float64)
        value, gradient = run(draws, unit, least, *_parameters(moved, params), *rest)
        away = jnp.abs(flatten((gradient, value)) - here)
        away = jnp.where(jnp.isfinite(away), away, 0)
        return (jnp.maximum(total[0], away), total[1] + away * away), None

    (largest, squares), _ = jax.lax.scan(one, (jnp.zeros_like(here), jnp.zeros_like(here)), draws)
    return largest, jnp.sqrt(squares / len(draws))


def _slopes(
    loss: Callable[..., Any],
    call: Call,
    params: Any,
    rest: Any,
    reach: Any,
    probes: Any,
    directions: Any,
    vectors: Any,
) -> Any:
    """Of every probe: f at +-STEPS, and the products of its direction v with `vectors`, with the last's that of |v|."""
    start = flatten(params)
    elements = jnp.arange(start.size)
    steps = jnp.array([*STEPS, *(-h for h in STEPS)])
    hold, run = stopped(lambda *arrays: call(loss, arrays), *params, *rest)
    held = hold(*params, *rest)

    def probe(p: Any) -> Any:
        first, last, index, direction = p
        within = (first <= elements) & (elements < last) & (index < 0)
        v = jnp.where(elements == index, reach, jnp.where(within, directions[direction], 0))

        def at(h: Any) -> Any:
            return run(held, *_parameters(start + h * v, params), *rest).astype(jnp.float64)

        return jax.lax.map(at, steps), jnp.stack([*(x @ v for x in vectors[:-1]), vectors[-1] @ jnp.abs(v)])

    return jax.lax.map(probe, probes)


class Deviation(NamedTuple):
    """How far the runs strayed, for every element of the gradient, and for the loss."""

    largest: np.ndarray
    rms: np.ndarray
    loss: float


@contextmanager
def _loss_errors() -> Iterator[None]:
    """Says in a line what hinders JAX from differentiating the loss."""
    try:
        yield
    except JaxmlpError:
        raise
    except Exception as error:
        reason = (str(error).strip() or "no message").split("\n", 1)[0]
        raise GradientError(
            f"the loss can't be differentiated by JAX: {type(error).__name__}: {reason}; expected a function in "
            "jax.numpy that jax.grad accepts"
        ) from error


class Referee:
    """The loss in float64 at one place: its value, its gradient by jax.grad, and what rounding does to them."""

    def __init__(self, programs: Programs, inputs: Inputs) -> None:
        self.programs, self.inputs, self.shapes = programs, inputs, inputs.shapes
        self.n = len(self.shapes)
        self.params, self.rest = inputs.arrays[: self.n], inputs.arrays[self.n :]
        self.ends = np.cumsum([0, *(x.size for x in self.params)])
        squares = [np.mean(np.square(x)) if x.size else 0 for x in self.params]
        self.scales = np.array([math.sqrt(s) if s > 0 and math.isfinite(s) else 1.0 for s in squares])
        scale = np.repeat(self.scales, np.diff(self.ends))
        magnitudes = np.abs(np.asarray(flatten(self.params)))
        # an element's own size; of a 0, its leaf's
        self.reach = np.where(magnitudes > 0, np.minimum(magnitudes, scale), scale)
        # its leaf's, unless the narrowest step in that measure would be of its own size
        self.spread = np.where(magnitudes > 0, np.minimum(2.0**30 * magnitudes, scale), scale)
        with _loss_errors():
            value: Any = jax.eval_shape(partial(programs.value, inputs.call), inputs.arrays)
        if not (getattr(value, "shape", None) == () and jnp.issubdtype(value.dtype, jnp.floating)):
            alone = isinstance(value, jax.ShapeDtypeStruct)
            kind = f"shape {value.shape}, type {value.dtype}" if alone else jax.tree.structure(value)
            raise GradientError(f"the loss returns {kind}: expected one number of a floating type")
        with _loss_errors():
            programs.refuse_chance(inputs)
        with _loss_errors():
            program = jax.make_jaxpr(partial(programs.differentiate, inputs.call))(inputs.arrays).jaxpr
        forward = jax.make_jaxpr(partial(programs.value, inputs.call))(inputs.arrays).jaxpr
        self.custom_rule = any(eqn.primitive.name.startswith("custom_vjp_call") for eqn in equations(forward))
        all_stops, held = (
            sum(eqn.primitive.name == "stop_gradient" for eqn in found(forward)) for found in (equations, inlined)
        )
        self.stops = all_stops > held
        self.longest, self.unit = longest_sum(program), coarsest(program, unit_roundoff(FLOAT64))
        self.loss, self.gradient = self.differentiate(inputs.arrays)

    def differentiate(self, arrays: list[Any]) -> tuple[float, np.ndarray]:
        """The loss and its gradient by jax.grad, in one vector."""
        value, gradient = self.programs.differentiate(self.inputs.call, arrays)
        return float(value), np.asarray(flatten(gradient))

    def part(self, i: int) -> slice:
        """Where leaf i stands in a vector."""
        return slice(int(self.ends[i]), int(self.ends[i + 1]))

    def parts(self, flat: np.ndarray) -> list[Any]:
        """A vector as leaves."""
        return _parameters(flat, self.params)

    def deviation(self, unit: float, least: float = 0.0, moved: float = 0.0) -> Deviation:
        """Of jax.grad, with roundings of size `unit`, at parameters moved by `moved` of their size.

        That is their magnitude or their leaf's root mean square, whichever is less; of a 0, the latter. No gradient
        strays by less than one rounding of its own.
        """
        here, move = np.append(self.gradient, self.loss), moved * self.reach
        settings = np.float64(unit), np.float64(least), random_draws(RUNS, seed=0)
        drawn = self.programs.deviations(self.inputs.call, self.params, self.rest, here, move, *settings)
        largest, rms = map(np.asarray, drawn)
        own = unit * np.abs(self.gradient)
        return Deviation(np.maximum(largest[:-1], own), np.maximum(rms[:-1], own), float(rms[-1]))

    def rounding_bound(self, dtype: Any = None, unit: float = 0.0) -> np.ndarray:
        """What rounding explains, for every element, in a precision given by its type or its unit roundoff."""
        unit, least = (unit_roundoff(dtype), underflow(dtype)) if dtype is not None else (unit, 0.0)
        return bound_factor(self.longest, max(self.gradient.size, 1)) * self.deviation(unit, least).rms

    def slopes(self, probes: list[tuple[int, int, int]], directions: np.ndarray, vectors: list[np.ndarray]) -> Any:
        """Values of the loss along probes (leaf, index, direction), and the products of those with vectors.

        A probe is the element of that index in the vector of parameters, in units of its `reach`; if the index is -1,
        the leaf's part of a direction.
        """
        leaves, indices, ways = np.array(probes, np.int64).reshape(-1, 3).T
        columns = (self.ends[leaves], self.ends[leaves + 1], indices, ways)
        found = self.programs.slopes(self.inputs.call, self.params, self.rest, self.reach, columns, directions, vectors)
        return tuple(map(np.asarray, found))
