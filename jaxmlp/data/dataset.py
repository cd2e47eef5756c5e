"""A data set as arrays in memory, checked once, and its validation split."""

import math
import zlib
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Num, UInt8
from numpy.typing import ArrayLike, DTypeLike, NDArray

from jaxmlp.errors import DataError, LabelError

Numbers: TypeAlias = NDArray[Any]


NUMBERED = "; classes as numbers from 0, alike in both sets"
"""What to make of labels that are words."""


class Examples(NamedTuple):
    """N labelled examples: a pytree.

    Attributes:
        inputs: Shape (N, n_0): uint8 grey levels, kept so (a quarter of the memory) until `as_inputs` converts a batch
            inside the compiled program, or float32.
        targets: int32 labels, shape (N,), or float32 outputs, shape (N, n_L).
    """

    inputs: UInt8[np.ndarray, "N n_0"] | Float[np.ndarray, "N n_0"]
    targets: Int[np.ndarray, " N"] | Float[np.ndarray, "N n_L"]

    @property
    def size(self) -> int:
        """N."""
        return int(self.inputs.shape[0])

    def take(self, indices: ArrayLike | slice) -> "Examples":
        """The examples at `indices`, as NumPy has it; a copy, but for a slice, which JAX on a CPU takes as it is.

        Raises:
            IndexError: for an index that none has.
        """
        if isinstance(indices, slice):
            return Examples(self.inputs[indices], self.targets[indices])
        places = np.arange(self.size)[np.asarray(indices)]
        taken = Examples(*(empty((*places.shape, *array.shape[1:]), array.dtype) for array in self))
        for array, out in zip(self, taken, strict=True):
            np.take(array, places, axis=0, out=out, mode="clip")  # other modes would take a buffer of their own
        return taken


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set of the same kind. Make one with `Dataset.from_arrays`, which checks the arrays.

    Attributes:
        name: What it is called.
        train: The training examples, those that will be held out for validation among them.
        test: The test examples.
        classes: Labels are numbers below it; None for regression.
        shape: Shape of one example as it came, such as (28, 28) for an image; its features are the product.
        names: What the classes are called; none where they are numbers.
    """

    name: str
    train: Examples
    test: Examples
    classes: int | None
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        kind = f"classes: {self.classes}" if self.labelled else f"wanted outputs: {self.outputs}"
        sizes = f"{self.train.size:,} training and {self.test.size:,} test examples of shape {self.shape}"
        return f"<Dataset {self.name}: {sizes}; {kind}>"

    @property
    def features(self) -> int:
        """n_0, the numbers in an example."""
        return int(self.train.inputs.shape[1])

    @property
    def labelled(self) -> bool:
        """Whether the targets are labels (classification), not wanted outputs (regression)."""
        return self.classes is not None

    @property
    def outputs(self) -> int:
        """How many outputs the targets ask for: one a class, or the targets' width."""
        return int(self.train.targets.shape[1]) if self.classes is None else self.classes

    def checksum(self) -> str:
        """Of all its numbers: what tells it from another of the same name and sizes. CRC-32, 8 hexadecimal digits."""
        found = 0
        for array in (*self.train, *self.test):
            found = zlib.crc32(np.ascontiguousarray(array).data, found)
        return f"{found:08x}"

    @staticmethod
    def from_arrays(
        train_inputs: ArrayLike,
        train_targets: ArrayLike,
        test_inputs: ArrayLike,
        test_targets: ArrayLike,
        *,
        name: str = "arrays",
        classes: int | None = None,
    ) -> "Dataset":
        """A data set from arrays of numbers, each with the examples along its first axis.

        Inputs of uint8 are grey levels from 0 to 255 and count as 0 to 1; other inputs are taken as they are, as
        float32. Targets of a whole (or boolean) type, shape (N,) or (N, 1), are labels from 0 to `classes` - 1, where
        that is given, else to the largest; other targets are wanted outputs, shape (N, n_L), or (N,) for one.

        Raises:
            DataError: for empty, masked, mismatched or non-numeric arrays, numbers that are not finite, labels out of
                range.

        >>> import numpy as np
        >>> images, labels = np.zeros((5, 28, 28), np.uint8), np.arange(5)
        >>> dataset = Dataset.from_arrays(images, labels, images, labels)
        >>> dataset.features, dataset.outputs, dataset.shape
        (784, 5, (28, 28))
        """
        if classes is not None and (not isinstance(classes, Integral) or isinstance(classes, bool) or classes < 1):
            raise DataError(f"{name}: classes is {classes!r}: expected a whole number of 1 or more, or None")
        train_inputs, test_inputs = (
            as_array(given, f"{name}, {part} set: inputs")
            for given, part in ((train_inputs, "training"), (test_inputs, "test"))
        )
        train = _examples(train_inputs, train_targets, f"{name}, training set", classes)
        test = _examples(test_inputs, test_targets, f"{name}, test set", classes)
        if train_inputs.shape[1:] != test_inputs.shape[1:]:
            raise DataError(
                f"{name}: a training input has shape {train_inputs.shape[1:]}, a test input {test_inputs.shape[1:]}: "
                "expected the same"
            )
        if train.targets.shape[1:] != test.targets.shape[1:]:
            raise DataError(
                f"{name}: a training target is {_kind(train.targets)}, a test target {_kind(test.targets)}: "
                "expected the same"
            )
        if train.inputs.dtype != test.inputs.dtype:
            raise DataError(
                f"{name}: training inputs are {train_inputs.dtype}, test inputs {test_inputs.dtype}: expected both "
                "uint8 (grey levels) or neither"
            )
        if train.targets.ndim == 2:
            classes = None
        elif classes is None:
            classes = 1 + int(max(train.targets.max(), test.targets.max()))
        return Dataset(name, train, test, None if classes is None else int(classes), train_inputs.shape[1:])


def as_array(given: ArrayLike, what: str) -> Numbers:
    """What is given as an array, or a DataError where it can't be one or has masked places."""
    if np.ma.is_masked(given):
        raise DataError(f"{what} have masked places: expected a number in each; give masked.filled(NUMBER)")
    try:
        return np.asarray(given)
    except ValueError as error:
        raise DataError(f"{what} are no array ({error}): expected examples of one shape") from error


def _kind(targets: Numbers) -> str:
    return "a label" if targets.ndim == 1 else f"a row of {targets.shape[1]} numbers"


def _examples(inputs: Numbers, given: ArrayLike, where: str, classes: int | None) -> Examples:
    targets = as_array(given, f"{where}: targets")
    if targets.dtype.kind in "uib" and targets.shape[1:] == (1,):  # labels in a column, as Keras has some
        targets = targets[:, 0]
    for array, what in ((inputs, "inputs"), (targets, "targets")):
        if array.dtype.kind not in "uifb":
            numbered = NUMBERED * (what == "targets" and array.dtype.kind in "USTO")
            raise DataError(f"{where}: {what} have type {array.dtype}: expected real numbers{numbered}")
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                bad = np.argwhere(~np.isfinite(array.astype(np.float32)))
            if len(bad):
                index = tuple(map(int, bad[0]))
                place = ", ".join(map(str, index))
                raise DataError(
                    f"{where}: {what}[{place}] is {array[index]}: expected numbers that are finite in float32"
                )
    if inputs.ndim < 2 or targets.ndim not in (1, 2):
        raise DataError(
            f"{where}: inputs have shape {inputs.shape}, targets {targets.shape}: expected an example a row, inputs of "
            "shape (N, ...) and targets of shape (N,) or (N, outputs)"
        )
    if inputs.shape[0] != targets.shape[0]:
        raise DataError(
            f"{where}: {inputs.shape[0]:,} inputs and {targets.shape[0]:,} targets: expected as many of each"
        )
    if inputs.size == 0 or targets.size == 0:
        raise DataError(f"{where}: inputs have shape {inputs.shape}, targets {targets.shape}: expected at least one")

    rows = np.ascontiguousarray(inputs.reshape(inputs.shape[0], -1))
    rows = rows if rows.dtype == np.uint8 else rows.astype(np.float32)
    if targets.dtype.kind == "f" or targets.ndim == 2:
        return Examples(rows, targets.reshape(targets.shape[0], -1).astype(np.float32))
    hint = "; targets of a floating type, such as float32, are no labels but wanted outputs"
    check_labels(targets.astype(np.int64), where, classes, hint)
    return Examples(rows, targets.astype(np.int32))


def check_labels(labels: Integer[np.ndarray, " N"], where: str, classes: int | None, hint: str = "") -> None:
    """Raises a LabelError for the first label below 0, or from `classes` on where that is given."""
    highest = np.iinfo(np.int32).max if classes is None else classes - 1
    outside = np.flatnonzero((labels < 0) | (labels > highest))
    if outside.size:
        i = int(outside[0])
        expected = "labels from 0 up" if classes is None else f"labels from 0 to {highest}"
        raise LabelError(
            f"{where}: label {labels[i]} at index {i} ({outside.size:,} such of {labels.size:,}): expected {expected}"
            f"{hint}"
        )


def split_indices(
    count: int, validation: int, seed: int, examples: int | None = None
) -> tuple[Integer[np.ndarray, " M"], Integer[np.ndarray, " N"]]:
    """By seed, which of `count` examples are held out, and which `examples` of the rest are trained on, or all.

    Fewer examples are among those that more would be.
    """
    order = np.random.default_rng([seed, 0]).permutation(count)
    held_out, rest = order[:validation], order[validation:]
    return np.sort(held_out), np.sort(rest[:examples])


class Scale(NamedTuple):
    """How features are standardised: each less its mean, over its standard deviation.

    Attributes:
        mean: Of each feature.
        deviation: 1 for a feature that never varies.
    """

    mean: Float[np.ndarray, " n_0"]
    deviation: Float[np.ndarray, " n_0"]

    @staticmethod
    def of(inputs: Num[np.ndarray, "N n_0"]) -> "Scale":
        """That of these examples, in float64 before it is rounded to float32."""
        deviation = inputs.std(axis=0, dtype=np.float64)
        mean = inputs.mean(axis=0, dtype=np.float64)
        varies = deviation > 1e-7 * np.abs(mean)  # else it is rounding
        return Scale(mean.astype(np.float32), np.where(varies, deviation, 1).astype(np.float32))

    def __call__(self, inputs: Num[np.ndarray, "N n_0"]) -> Float[np.ndarray, "N n_0"]:
        """The inputs standardised."""
        scaled = empty(inputs.shape, np.float32)
        np.subtract(inputs.astype(np.float32, copy=False), self.mean, out=scaled)
        np.divide(scaled, self.deviation, out=scaled)
        return scaled


def as_inputs(raw: Num[Array, "B n_0"]) -> Float[Array, "B n_0"]:
    """What the network sees: grey levels of uint8 as 0 to 1 in float32, other numbers as they are."""
    return raw.astype(jnp.float32) * (1 / 255) if raw.dtype == jnp.uint8 else raw


def on_device(examples: Examples) -> Examples:
    """The examples as arrays on JAX's default device: one explicit transfer.

    On a CPU they may be the very same memory, which is not to change then.
    """
    return Examples(*jax.device_put((aligned(examples.inputs), aligned(examples.targets))))


LINE = 64
"""Bytes of a cache line."""


def aligned(array: Num[np.ndarray, "*shape"]) -> Num[np.ndarray, "*shape"]:
    """The array itself, if JAX on a CPU takes it as it is; else a copy in memory that it takes so."""
    if array.ctypes.data % LINE == 0 and array.flags.c_contiguous:
        return array
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> Num[np.ndarray, "*shape"]:
    """An array of whatever, in memory that JAX on a CPU takes as it is.

    NumPy asks Linux for huge pages. Where a program gathers rows from them in random order, an epoch of the lesson's
    network takes 4 % less.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    space = np.empty(size + LINE, np.uint8)
    start = -space.ctypes.data % LINE
    array: np.ndarray = space[start : start + size].view(dtype).reshape(shape)
    return array
