"""What the pattern of a wrong gradient suggests: the likely cause, for a person to start from."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxmlp.gradcheck.referee import FLOAT64, MIDWAY, Referee, is_float
from jaxmlp.gradcheck.rounding import underflow

TINY = underflow(FLOAT64)


def _factors(referee: Referee) -> Iterator[tuple[float, str]]:
    """Constant factors that have a name, with the likeliest first."""
    inputs = referee.inputs
    yield from ((-1.0, "the sign -1"), (2.0, "2"), (0.5, "1/2"), (-2.0, "-2"), (-0.5, "-1/2"))
    names: dict[float, tuple[str, str]] = {}
    for path, x in zip(inputs.paths[referee.n :], referee.rest, strict=True):
        for axis, size in enumerate(np.shape(x)):
            names.setdefault(float(size), ("n" if axis else "B", f", the length of axis {axis} of {path}"))
        if is_float(x) and np.ndim(x) == 1:
            names.setdefault(float(np.sum(x)), (f"sum({path})", ""))
            names.setdefault(float(np.mean(x)), (f"mean({path})", ""))
    for path, shape in zip(inputs.paths, referee.shapes, strict=False):
        for axis, size in enumerate(shape):
            names.setdefault(float(size), ("n", f", the length of axis {axis} of {path}"))
    for value, (name, where) in names.items():
        if value not in (0.0, 1.0):
            for factor, before in ((1.0, ""), (-1.0, "-"), (2.0, "2 "), (0.5, "1/2 ")):
                for product, text in ((factor * value, name), (factor / value, f"1/{name}")):
                    if abs(product) != 1:
                        yield product, f"{before}{text} ({name} = {value:.6g}{where})"


def _pattern(referee: Referee, i: int, m: list[Any], tolerance: list[Any], wrong: Any) -> str:
    """What a wrong leaf looks like."""
    a = referee.parts(referee.gradient)
    mine, true, t = m[i], a[i], tolerance[i]
    if not mine.any():
        return "all zero"
    if true.ndim == 2 and true.shape[0] == true.shape[1] > 1 and np.all(np.abs(mine - true.T) <= t.T):
        return "the gradient transposed"
    for j in range(referee.n):
        if j != i and a[j].shape == true.shape and a[j].any() and np.all(np.abs(mine - a[j]) <= tolerance[j]):
            return f"holds the gradient of {referee.inputs.paths[j]}: shifted"
    sure = t < np.max(np.abs(true)) / 4  # elsewhere, as at a kink, little can be told
    sure = sure if sure.any() else np.ones_like(sure)
    square = float(np.sum(true[sure] ** 2))
    factor = float(np.sum(mine[sure] * true[sure])) / square if square > 0 else 0.0
    if factor != 0 and np.all(np.abs(mine - factor * true) <= (1 + abs(factor)) * t):
        uncertain = max(float(np.linalg.norm(t[sure])) / math.sqrt(square), 2 * MIDWAY)
        for value, name in _factors(referee):
            if abs(factor - value) <= uncertain * max(abs(value), abs(factor)):
                return f"the gradient times {name}"
        near = f"1 {'-' if factor < 1 else '+'} {abs(factor - 1):.3g}" if abs(factor - 1) < 1e-4 else f"{factor:.8g}"
        return f"the gradient times a constant, {near}"
    places = np.argwhere(wrong)
    at = [[int(k) for k in place] for place in places[:3]]
    if len(places) == 1 < sure.sum():
        return f"only the element {at[0]} is wrong"
    p = np.asarray(referee.params[i])
    decay = float(np.sum((true - mine) * p)) / max(float(np.sum(p * p)), TINY)
    if np.ptp(p) > 0 and np.all(np.abs(true - mine - decay * p) <= 2 * t):
        verb = "lacks" if decay > 0 else "has too much of"
        return f"{verb} {abs(decay):.3g} times the leaf itself: an L2 term of the loss"
    if len(places) <= 3 < sure.sum():
        return f"only the elements {', '.join(map(str, at))} are wrong"
    for axis, word in enumerate(("row", "column")[: true.ndim] if true.ndim == 2 else ()):
        if true.shape[axis] > 1 and len(set(places[:, axis])) == 1:
            return f"only {word} {int(places[0, axis])} is wrong"
    for axis in range(true.ndim):
        if true.shape[axis] > 1 and np.all(
            np.ptp(mine, axis=axis) <= np.ptp(np.where(sure, t, 0), axis=axis) + 2 * np.max(t[sure])
        ):
            return f"the same all along axis {axis}: summed or averaged over it, then broadcast"
    return ""


def likely_causes(
    referee: Referee, m_flat: np.ndarray, tolerance: np.ndarray, wrong: np.ndarray, failing: list[int]
) -> list[str]:
    """Of leaves `failing`, whose elements `wrong` of the vector m differ by more than the tolerance."""
    n, paths, arrays = referee.n, referee.inputs.paths, referee.inputs.arrays
    for k in range(n, len(arrays)):
        if is_float(arrays[k]) and np.ndim(arrays[k]) == 1 and np.any(arrays[k] != 1):
            _, ones = referee.differentiate([*arrays[:k], np.ones_like(arrays[k]), *arrays[k + 1 :]])
            if np.all(np.abs(m_flat - ones) <= tolerance):
                return [f"{paths[k]} is ignored: with ones in its place the gradient is right"]

    m, t, w = referee.parts(m_flat), referee.parts(tolerance), referee.parts(wrong)
    patterns: dict[str, list[str]] = {}
    for i in failing:
        patterns.setdefault(_pattern(referee, i, m, t, w[i]), []).append(paths[i])
    causes = [f"{', '.join(leaves)}: {pattern}" for pattern, leaves in patterns.items() if pattern]
    right = [i for i in range(n) if i not in failing]
    vectors = [i for i in range(n) if len(referee.shapes[i]) == 1]
    local = any(pattern.startswith("only ") for pattern in patterns)
    if n > len(vectors) > 0 and len(failing) > 1 and not local:
        if failing == vectors:
            causes.append("only the vectors (biases) are wrong: their own sum over the examples")
        elif not set(failing) & set(vectors):
            causes.append("only the matrices are wrong, their biases are right: the activations that enter the layers")
    if len(failing) != len(patterns.get("", [])):  # what has a pattern of its own says more
        return causes
    if right and failing == list(range(len(failing))) and len(failing) > 1:
        causes.append(
            f"every leaf from {paths[right[0]]} on is right and all before are wrong, by no constant factor: the fault "
            "lies in what passes from one to the other, such as a missing or wrong activation derivative"
        )
    elif not right and n > 1:
        causes.append(
            "every leaf is wrong, by no constant factor: the fault lies in what all share, where the backward pass "
            "begins (the derivative of the loss or of the output's activation), passes back what a loop repeats, or "
            "ends (the mean over the examples)"
        )
    return causes
