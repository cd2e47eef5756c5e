"""The network: its static description, its parameters, and the forward pass.

    a^0 = x          z^l = a^(l-1) W^l + b^l          a^l = f_l(z^l)          C_i = loss(a^L_i, y_i)

Letters of the shapes: B examples in a batch, L layers of weights, n_l units in layer l, so that n_0 are the inputs and
n_L the outputs.

With a key, dropout multiplies the inputs of layer l+1 by a random mask M^l of zeros and 1 / (1 - rate):

    A^l = M^l * a^l          z^(l+1) = A^l W^(l+1) + b^(l+1)

and the cost, the mean of C_i, gains a penalty on the weights, l2/2 sum over l of |W^l|^2.
"""

import itertools
import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, Num, UInt16

from jaxmlp.activations import ACTIVATIONS, ActivationName
from jaxmlp.errors import NetworkError
from jaxmlp.losses import LossName, output_loss
from jaxmlp.products import weighted_sums


@dataclass(frozen=True)
class Network:
    """A multilayer perceptron, without its parameters.

    It is hashable, so that it can be a static argument of `jax.jit`.

    Attributes:
        sizes: Units in each layer, from the inputs to the outputs; two sizes make a network without a hidden layer.
        activation: Activation of the hidden layers.
        output: Activation of the output layer.
        loss: Cost of an example, summed over the outputs; huber is quadratic up to a difference of 1; cross_entropy
            takes output softmax, binary_cross_entropy sigmoid.
        dropout: Chance of each hidden activation to be left out of a training step (Srivastava 2014).
        input_dropout: The same of each input.
        l2: The cost gains half of this times the sum of all squared weights, biases left alone.
        label_smoothing: A label wants this less of its output, spread evenly over all outputs (Szegedy 2016).
        initializer: Of kernels: scaled (see jaxmlp.init), a name of jax.nn.initializers, or normal:DEVIATION or
            uniform:BOUND.

    Raises:
        NetworkError: for fewer than two sizes, a size below 1, an unknown name, or a loss that doesn't go with the
            output activation.

    >>> Network((784, 16, 16, 10)).parameters
    13002
    """

    sizes: tuple[int, ...]
    activation: ActivationName = "sigmoid"
    output: ActivationName = "sigmoid"
    loss: LossName = "squared_error"
    dropout: float = 0.0
    input_dropout: float = 0.0
    l2: float = 0.0
    label_smoothing: float = 0.0
    initializer: str = "scaled"

    def __post_init__(self) -> None:
        if not isinstance(self.sizes, Iterable) or isinstance(self.sizes, str):
            raise NetworkError(f"network.sizes is {self.sizes!r}: expected whole numbers, such as (784, 16, 10)")
        given = " ".join(map(str, self.sizes)) or "empty"
        if len(self.sizes) < 2:
            raise NetworkError(f"network.sizes is {given}: expected at least two, the inputs and the outputs")
        if any(not isinstance(n, numbers.Integral) or isinstance(n, bool) or n < 1 for n in self.sizes):
            raise NetworkError(f"network.sizes is {given}: expected whole numbers of 1 and more")
        object.__setattr__(self, "sizes", tuple(map(int, self.sizes)))
        for field, known in (("activation", ActivationName), ("output", ActivationName), ("loss", LossName)):
            name, names = getattr(self, field), get_args(known)
            if name not in names:
                raise NetworkError(f"network.{field} is {name!r}: expected one of {', '.join(names)}")
        output_loss(self.output, self.loss)
        if self.output == "softmax" and self.sizes[-1] == 1:
            raise NetworkError("network.output is 'softmax' of 1 output, always 1: expected 'sigmoid', or 2 outputs")
        for field, limit in (("dropout", 1), ("input_dropout", 1), ("label_smoothing", 1), ("l2", math.inf)):
            value: Any = getattr(self, field)
            real = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not real or not 0 <= value < limit:
                expected = "a finite number of 0 or more" if limit == math.inf else "a number of 0 or more, below 1"
                raise NetworkError(f"network.{field} is {value!r}: expected {expected}")
            object.__setattr__(self, field, float(value))
        initializer_of(self.initializer)

    @property
    def parameters(self) -> int:
        """How many weights and biases there are."""
        return sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(self.sizes))

    def __str__(self) -> str:
        hidden = f"{self.activation} hidden, " if len(self.sizes) > 2 else ""
        rates = {name: getattr(self, name) for name in ("dropout", "input_dropout", "l2", "label_smoothing")}
        regularised = "".join(f", {name.replace('_', ' ')} {rate:g}" for name, rate in rates.items() if rate)
        return f"{'-'.join(map(str, self.sizes))}, {hidden}{self.output} output, {self.loss}{regularised}"


class Layer(NamedTuple):
    """One layer's parameters: z = a @ kernel + bias.

    Attributes:
        kernel: W^l, shape (n_(l-1), n_l).
        bias: b^l, shape (n_l,).
    """

    kernel: Float[Array, "n_in n_out"]
    bias: Float[Array, " n_out"]


Params: TypeAlias = tuple[Layer, ...]
"""The parameters of layers 1..L, in order: a pytree."""


class Batch(NamedTuple):
    """B labelled examples: a pytree.

    Attributes:
        inputs: Shape (B, n_0).
        targets: Labels, shape (B,) of whole numbers from 0 to n_L - 1 (with one output: 0 or 1, the target itself), or
            the wanted outputs, shape (B, n_L). Of several outputs, a label outside that range makes its example's cost
            NaN, and so every mean that it is in.
        weights: Shape (B,): how many times each example counts in every mean; once, if None. A weight of 0 masks one
            out, whose inputs must be finite, and whose target must be one that can be, all the same.
    """

    inputs: Float[Array, "B n_0"]
    targets: Int[Array, " B"] | Float[Array, "B n_L"]
    weights: Float[Array, " B"] | None = None


GROWING = ("relu", "leaky_relu", "elu", "softplus", "silu", "gelu", "gelu_tanh")
"""Activations that pass about half of their input's variance on: their layers start twice as wide (He 2015)."""

Initializer: TypeAlias = Callable[..., Array]
"""(key, shape, dtype) to an array, as of `jax.nn.initializers`."""

INITIALIZERS = (
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
    "ones",
)
"""Of `jax.nn.initializers`, those that make matrices without being told more."""


def initializer_of(name: str) -> Initializer | None:
    """What draws a kernel; None for `scaled`, which depends on the layer.

    `normal:DEVIATION` has mean 0, `uniform:BOUND` lies between -BOUND and BOUND; the names alone are
    `jax.nn.initializers`', whose `normal` has deviation 0.01, and whose `uniform` lies between 0 and 0.01.

    Raises:
        NetworkError: for an unknown name, or a number that can't be.
    """
    kind, colon, number = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not colon and kind in INITIALIZERS:
        found: Any = getattr(jax.nn.initializers, kind)
        made: Initializer = found if kind in ("zeros", "ones") else found()
        return made
    if not colon and kind == "scaled":
        return None
    try:
        size = float(number) if kind in ("normal", "uniform") else math.nan
    except ValueError:
        size = math.nan
    if not 0 <= size < math.inf:
        raise NetworkError(
            f"network.initializer is {name!r}: expected scaled, normal:DEVIATION, uniform:BOUND, or one of "
            f"{', '.join(INITIALIZERS)}"
        )
    if kind == "normal":
        return jax.nn.initializers.normal(size)
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -size, size)


def init(key: Key[Array, ""], network: Network, dtype: DTypeLike = jnp.float32) -> Params:
    """Random kernels and zero biases.

    Unless `network.initializer` says otherwise, a kernel is drawn from a normal distribution, truncated at two standard
    deviations, of variance 1 / n_in (LeCun 1998), or 2 / n_in behind a hidden layer of the relu family (He 2015, arXiv
    1502.01852), so that activations keep their scale through the layers.

    >>> params = init(jax.random.key(0), Network((784, 16, 10)))
    >>> [(layer.kernel.shape, layer.bias.shape) for layer in params]
    [((784, 16), (16,)), ((16, 10), (10,))]
    """
    shapes = tuple(itertools.pairwise(network.sizes))
    keys, given = jax.random.split(key, len(shapes)), initializer_of(network.initializer)
    if given:
        kernels = [given(keys[l], shape, dtype) for l, shape in enumerate(shapes)]
    else:
        drawn = truncated_normals(keys, [math.prod(shape) for shape in shapes], dtype)
        gains = [2 if l and network.activation in GROWING else 1 for l in range(len(shapes))]
        scales = [deviation(gain / n_in, dtype) for gain, (n_in, _) in zip(gains, shapes, strict=True)]
        kernels = [x.reshape(shape) * scale for x, shape, scale in zip(drawn, shapes, scales, strict=True)]
    return tuple(Layer(kernel, jnp.zeros(kernel.shape[1], dtype)) for kernel in kernels)


def deviation(variance: float, dtype: DTypeLike) -> Float[Array, ""]:
    """That of a normal distribution which, truncated at two deviations, has the variance; rounded as JAX does."""
    return jnp.sqrt(jnp.asarray(variance, dtype)) / jnp.asarray(0.87962566103423978, dtype)


LEAST = 2**14
"""Numbers that a layer draws at least, of which it may use fewer: they take no time to speak of."""


def truncated_normals(keys: Key[Array, " L"], counts: Sequence[int], dtype: DTypeLike) -> list[Float[Array, " _"]]:
    """By each key its count of standard normal numbers, of which none is beyond two deviations.

    They are what `jax.random.truncated_normal` draws for each, but layers that draw as many share the code: the more
    draws a program has, the longer XLA compiles it. A number is a function of its key and its place alone, however many
    are drawn, unless `jax_threefry_partitionable` is off.
    """
    sizes = [max(count, LEAST) for count in counts]
    drawn: dict[int, Array] = {}
    for size in dict.fromkeys(sizes):
        alike = [l for l, other in enumerate(sizes) if other == size]
        rows = rows_drawn(keys[np.array(alike)], size, dtype)
        drawn |= {l: rows[i, : counts[l]] for i, l in enumerate(alike)}
    return [drawn[l] for l in range(len(counts))]


@partial(jax.jit, static_argnums=(1, 2))  # else the scan in `lax.map` is compiled anew in each call
def rows_drawn(keys: Key[Array, " n"], size: int, dtype: DTypeLike) -> Float[Array, "n {size}"]:
    """By each key a row of standard normal numbers of which none is beyond two deviations, one row after the other."""
    draw = partial(jax.random.truncated_normal, lower=-2, upper=2, shape=(size,), dtype=dtype)
    found: Array = jax.lax.map(draw, keys)
    return found


Masks: TypeAlias = tuple[Float[Array, "B _"] | None, ...]
"""M^0..M^(L-1), each of shape (B, n_l): 0 for what is left out, 1 / (1 - rate) for the rest. None where nothing is."""


def masks(key: Key[Array, ""] | None, inputs: Float[Array, "B n_0"], network: Network) -> Masks:
    """Dropout's masks for a batch: functions of the key, the same for the manual and the automatic gradient.

    Without a key, nothing is left out. A rate is rounded to a multiple of 2^-16.
    """
    rates = (network.input_dropout, *(network.dropout for _ in network.sizes[1:-1]))
    if key is None:
        return (None,) * len(rates)
    return tuple(
        mask(jax.random.fold_in(key, l), (inputs.shape[0], n), rate, inputs.dtype) if rate else None
        for l, (n, rate) in enumerate(zip(network.sizes, rates, strict=False))
    )


def mask(key: Key[Array, ""], shape: tuple[int, ...], rate: float, dtype: DTypeLike) -> Float[Array, "B _"]:
    """One mask. Its mean is 1, so that a network without dropout needs no other weights."""
    limit = min(round(rate * 2**16), 2**16 - 1)
    kept = short_numbers(key, shape) >= jnp.uint16(limit)
    return jnp.where(kept, jnp.asarray(1 / (1 - limit / 2**16), dtype), jnp.zeros((), dtype))


def short_numbers(key: Key[Array, ""], shape: tuple[int, ...]) -> UInt16[Array, "..."]:
    """Random whole numbers below 2^16: two of every 32 bits drawn, in 0.4 of the time that a number a draw takes."""
    count = math.prod(shape)
    bits = jax.random.bits(key, ((count + 1) // 2,), jnp.uint32)
    return jax.lax.bitcast_convert_type(bits, jnp.uint16).ravel()[:count].reshape(shape)


def dropped(a: tuple[Float[Array, "B _"], ...], M: Masks) -> tuple[Float[Array, "B _"], ...]:
    """A^l = M^l * a^l: what the next layers see of the activations."""
    return tuple(x if m is None else m * x for x, m in zip(a, M, strict=True))


def refuse_misfits(params: Params, batch: Batch, network: Network) -> None:
    """Shapes and types are known while JAX compiles, so that the check costs nothing later.

    Raises:
        NetworkError: as `refuse_inputs`; for a batch that is none; for other than one weight an example.
    """
    if not isinstance(batch, Batch):
        raise NetworkError(f"the batch has type {type(batch).__name__}: expected a jaxmlp.Batch(inputs, targets)")
    refuse_inputs(params, batch.inputs, network)
    refuse_no_array(batch.targets, "targets")
    if batch.weights is not None:
        refuse_no_array(batch.weights, "weights")
        refuse_weights(batch.weights, batch.inputs.shape[:1])


def refuse_inputs(params: Params, inputs: Float[Array, "B n_0"], network: Network) -> None:
    """See `refuse_misfits`.

    Raises:
        NetworkError: where the parameters are not this network's, or the inputs are not rows of n_0 floating numbers.
    """
    if not isinstance(network, Network):
        raise NetworkError(f"the network has type {type(network).__name__}: expected a jaxmlp.Network")
    for layer in params:
        if not isinstance(layer, Layer):
            raise NetworkError(f"of params, one has type {type(layer).__name__}: expected jaxmlp.Layer(kernel, bias)")
    for what, arrays, expected in (
        ("kernels", [layer.kernel for layer in params], tuple(itertools.pairwise(network.sizes))),
        ("biases", [layer.bias for layer in params], tuple((n,) for n in network.sizes[1:])),
    ):
        for array in arrays:
            refuse_no_array(array, what)
        shapes = tuple(array.shape for array in arrays)
        if shapes != expected:
            raise NetworkError(f"{what} have shapes {shapes}: expected those of {network}")
        if not all(jnp.issubdtype(array.dtype, jnp.floating) for array in arrays):
            raise NetworkError(f"{what} are {', '.join(str(array.dtype) for array in arrays)}: expected floating types")
    refuse_no_array(inputs, "inputs")
    if inputs.ndim != 2 or inputs.shape[1] != network.sizes[0]:
        raise NetworkError(f"inputs have shape {inputs.shape}: expected (B, {network.sizes[0]}), an example a row")
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise NetworkError(f"inputs are {inputs.dtype}: expected a floating type; divide grey levels by 255")


def refuse_weights(weights: Array, shape: tuple[Any, ...]) -> None:
    """Raises a NetworkError where there is not one weight an example."""
    if weights.shape != shape:
        raise NetworkError(f"weights have shape {weights.shape}: expected {shape}, one an example")


def refuse_no_array(array: Any, what: str) -> None:
    """Raises a NetworkError for what is no array of JAX's or NumPy's."""
    if not isinstance(array, jax.Array | np.ndarray):
        raise NetworkError(f"{what} have type {type(array).__name__}: expected arrays, as of jax.numpy.asarray")


def propagate(
    params: Params,
    inputs: Float[Array, "B n_0"],
    network: Network,
    M: Masks | None = None,
    turned: int = 0,
) -> tuple[tuple[Float[Array, "B _"], ...], tuple[Float[Array, "B _"], ...]]:
    """The forward pass with all that it meets on the way: (z^1..z^L), (a^0..a^L), each of shape (B, n_l).

    The activations are those before dropout, which multiplies them by the masks M; see `dropped`. Turned they lie in
    memory the other way (`products.py`).
    """
    z: tuple[Array, ...] = ()
    a: tuple[Array, ...] = (inputs,)
    for l, layer in enumerate(params, start=1):
        name = network.output if l == len(params) else network.activation
        A = dropped(a[-1:], M[l - 1 : l])[0] if M else a[-1]
        z += (weighted_sums(A, layer.kernel, turned) + layer.bias[None, :],)
        a += (ACTIVATIONS[name].forward(z[-1]),)
    return z, a


def forward(params: Params, inputs: Float[Array, "B n_0"], network: Network) -> Float[Array, "B n_L"]:
    """The network's outputs a^L, shape (B, n_L).

    >>> network = Network((3, 2), output="softmax", loss="cross_entropy")
    >>> inputs = jnp.ones((1, 3), jnp.float32)
    >>> forward(init(jax.random.key(0), network), inputs, network).shape
    (1, 2)
    """
    refuse_inputs(params, inputs, network)
    _, a = propagate(params, inputs, network)
    return a[-1]


def wanted(targets: Num[Array, "..."], a: Float[Array, "B n_L"]) -> Float[Array, "B n_L"]:
    """The targets as wanted outputs y, in the shape and type of the outputs a.

    A label is a row with a single 1 (of one output: itself); one that is no label from 0 to n_L - 1, a row of NaN.

    Raises:
        NetworkError: where the shape is neither (B,) nor (B, n_L), or labels of several outputs are no whole numbers.
    """
    B, n_L = a.shape
    if targets.shape not in ((B,), (B, n_L)):
        raise NetworkError(f"targets have shape {targets.shape}: expected labels, ({B},), or outputs, ({B}, {n_L})")
    if targets.ndim == 2:
        return targets.astype(a.dtype)
    if n_L == 1:
        return targets.astype(a.dtype)[:, None]
    if not jnp.issubdtype(targets.dtype, jnp.integer) and targets.dtype != bool:
        raise NetworkError(
            f"targets are {targets.dtype} of shape ({B},), but there are {n_L} outputs: expected labels of a whole "
            f"type, ({B},), or outputs, ({B}, {n_L})"
        )
    # in 8 bits, labels would come round again from 256 outputs on
    labels = targets.astype(jnp.int32) if targets.dtype.itemsize < 4 else targets
    known = (labels >= 0) & (labels < n_L)
    return jnp.where(known[:, None], jax.nn.one_hot(labels, n_L, dtype=a.dtype), jnp.nan)


def weighted_mean(values: Float[Array, " B"], weights: Float[Array, " B"] | None) -> Float[Array, ""]:
    """sum_i w_i v_i / sum_i w_i, or the plain mean without weights. Weights that sum to 0 give NaN."""
    return jnp.sum(shares(values, weights) * values)


def shares(values: Float[Array, " B"], weights: Float[Array, " B"] | None) -> Float[Array, " B"]:
    """Each example's share w_i / sum_i w_i in a mean, of the type of `values`; 1 / B without weights.

    Raises:
        NetworkError: where there is no example.
    """
    if values.size == 0:
        raise NetworkError("the batch has no examples: expected one or more, of which there is a mean")
    if weights is None:
        return jnp.full_like(values, 1 / values.size)
    weights = counts(values, weights)
    return weights / jnp.sum(weights)


def counts(values: Float[Array, " B"], weights: Float[Array, " B"] | None) -> Float[Array, " B"]:
    """How many times each example counts: w_i, of the type of `values`; 1 without weights.

    Raises:
        NetworkError: where there is not one weight an example.
    """
    if weights is None:
        return jnp.ones_like(values)
    refuse_weights(weights, values.shape)
    return weights.astype(values.dtype)


def smoothed(targets: Num[Array, "..."], a: Float[Array, "B n_L"], network: Network) -> Float[Array, "B n_L"]:
    """The wanted outputs y to train on: (1 - s) y + s / n_L for labels, with s = network.label_smoothing.

    Of a single output, with two labels, s / 2 is added.

    Raises:
        NetworkError: as `wanted`, and for targets that are no labels, where s is not 0.
    """
    y, s = wanted(targets, a), network.label_smoothing
    if s == 0:
        return y
    if targets.ndim != 1:
        raise NetworkError(
            f"network.label_smoothing is {s:g}, but targets have shape {targets.shape}: expected labels, or 0"
        )
    return (1 - s) * y + s / max(2, a.shape[1])


def penalty(params: Params, network: Network) -> Float[Array, ""]:
    """l2/2 sum over l of |W^l|^2: what the cost gains for its weights."""
    squares = sum((jnp.sum(layer.kernel**2) for layer in params), jnp.zeros((), params[0].kernel.dtype))
    return network.l2 / 2 * squares


def loss(params: Params, batch: Batch, network: Network, key: Key[Array, ""] | None = None) -> Float[Array, ""]:
    """The cost: the (weighted) mean over the examples of C_i = loss(a^L_i, y_i), and the weights' penalty; a scalar.

    For `squared_error`, the lesson's cost, C_i is the sum over outputs of squared differences, without a factor 1/2.
    A key turns dropout on.

    >>> network = Network((2, 1), output="identity")
    >>> params = (Layer(jnp.array([[1.0], [2.0]]), jnp.array([3.0])),)
    >>> float(loss(params, Batch(jnp.array([[1.0, 1.0]]), jnp.array([[4.0]])), network))
    4.0
    """
    refuse_misfits(params, batch, network)
    z, a = propagate(params, batch.inputs, network, masks(key, batch.inputs, network))
    y = smoothed(batch.targets, a[-1], network)
    C = output_loss(network.output, network.loss).value(z[-1], a[-1], y)
    cost = weighted_mean(C, batch.weights)
    return cost + penalty(params, network) if network.l2 else cost
