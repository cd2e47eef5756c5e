"""The network: its static description, its parameters, and the forward pass.

    a^0 = x          z^l = a^(l-1) W^l + b^l          a^l = f_l(z^l)          C_i = loss(a^L_i, y_i)

Letters of the shapes: B examples in a batch, L layers of weights, n_l units in layer l, so that n_0 are the inputs and
n_L the outputs.
"""

import itertools
import numbers
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, Num

from jaxmlp.activations import ACTIVATIONS, ActivationName
from jaxmlp.errors import NetworkError
from jaxmlp.losses import LossName, output_loss


@dataclass(frozen=True)
class Network:
    """A multilayer perceptron, without its parameters.

    It is hashable, so that it can be a static argument of `jax.jit`.

    Raises:
        NetworkError: for fewer than two sizes, a size below 1, an unknown name, or a loss that doesn't go with the
            output activation.

    >>> Network((784, 16, 16, 10)).parameters
    13002
    """

    sizes: tuple[int, ...]
    """Units in each layer, from the inputs to the outputs; two sizes make a network without a hidden layer."""

    activation: ActivationName = "sigmoid"
    """Activation of the hidden layers."""

    output: ActivationName = "sigmoid"
    """Activation of the output layer."""

    loss: LossName = "squared_error"
    """Cost of an example, summed over the outputs; cross_entropy takes output softmax, binary_cross_entropy sigmoid."""

    def __post_init__(self) -> None:
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

    @property
    def parameters(self) -> int:
        """How many weights and biases there are."""
        return sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(self.sizes))

    def __str__(self) -> str:
        hidden = f"{self.activation} hidden, " if len(self.sizes) > 2 else ""
        return f"{'-'.join(map(str, self.sizes))}, {hidden}{self.output} output, {self.loss}"


class Layer(NamedTuple):
    """One layer's parameters: z = a @ kernel + bias."""

    kernel: Float[Array, "n_in n_out"]
    bias: Float[Array, " n_out"]


Params: TypeAlias = tuple[Layer, ...]
"""The parameters of layers 1..L, in order: a pytree."""


class Batch(NamedTuple):
    """B labelled examples: a pytree.

    `inputs` has shape (B, n_0). `targets` are labels, shape (B,) of whole numbers from 0 to n_L - 1 (with one output:
    0 or 1, the target itself), or the wanted outputs, shape (B, n_L); a label outside that range wants every output to
    be 0. `weights`, shape (B,), count each example that many times in every mean; a weight of 0 masks one out, whose
    inputs and targets must be finite all the same.
    """

    inputs: Float[Array, "B n_0"]
    targets: Int[Array, " B"] | Float[Array, "B n_L"]
    weights: Float[Array, " B"] | None = None


GROWING = ("relu", "leaky_relu", "elu", "softplus", "silu", "gelu", "gelu_tanh")
"""Activations that pass about half of their input's variance on: their layers start twice as wide (He 2015)."""


def init(key: Key[Array, ""], network: Network, dtype: DTypeLike = jnp.float32) -> Params:
    """Random kernels and zero biases.

    A kernel is drawn from a normal distribution, truncated at two standard deviations, of variance 1 / n_in (LeCun
    1998), or 2 / n_in behind a hidden layer of the relu family (He 2015, arXiv 1502.01852), so that activations keep
    their scale through the layers.

    >>> params = init(jax.random.key(0), Network((784, 16, 10)))
    >>> [(layer.kernel.shape, layer.bias.shape) for layer in params]
    [((784, 16), (16,)), ((16, 10), (10,))]
    """
    keys = jax.random.split(key, len(network.sizes) - 1)
    layers = []
    for l, (n_in, n_out) in enumerate(itertools.pairwise(network.sizes), start=1):
        he = l > 1 and network.activation in GROWING
        draw = jax.nn.initializers.he_normal() if he else jax.nn.initializers.lecun_normal()
        layers.append(Layer(draw(keys[l - 1], (n_in, n_out), dtype), jnp.zeros((n_out,), dtype)))
    return tuple(layers)


def propagate(
    params: Params, inputs: Float[Array, "B n_0"], network: Network
) -> tuple[tuple[Float[Array, "B _"], ...], tuple[Float[Array, "B _"], ...]]:
    """The forward pass with all that it meets on the way: (z^1..z^L), (a^0..a^L), each of shape (B, n_l).

    Raises:
        NetworkError: where the parameters are not this network's, or the inputs are not rows of n_0 floating numbers.
            Shapes and types are known while JAX compiles, so that the check costs nothing later.
    """
    shapes = tuple(layer.kernel.shape for layer in params)
    if shapes != tuple(itertools.pairwise(network.sizes)):
        raise NetworkError(f"kernels have shapes {shapes}: expected those of {network}")
    if inputs.ndim != 2 or inputs.shape[1] != network.sizes[0]:
        raise NetworkError(f"inputs have shape {inputs.shape}: expected (B, {network.sizes[0]}), an example a row")
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise NetworkError(f"inputs are {inputs.dtype}: expected a floating type; divide grey levels by 255")
    z: tuple[Array, ...] = ()
    a: tuple[Array, ...] = (inputs,)
    for l, layer in enumerate(params, start=1):
        name = network.output if l == len(params) else network.activation
        z += (a[-1] @ layer.kernel + layer.bias[None, :],)
        a += (ACTIVATIONS[name].forward(z[-1]),)
    return z, a


def forward(params: Params, inputs: Float[Array, "B n_0"], network: Network) -> Float[Array, "B n_L"]:
    """The network's outputs a^L, shape (B, n_L).

    >>> network = Network((3, 2), output="softmax", loss="cross_entropy")
    >>> inputs = jnp.ones((1, 3), jnp.float32)
    >>> forward(init(jax.random.key(0), network), inputs, network).shape
    (1, 2)
    """
    _, a = propagate(params, inputs, network)
    return a[-1]


def wanted(targets: Num[Array, "..."], a: Float[Array, "B n_L"]) -> Float[Array, "B n_L"]:
    """The targets as wanted outputs y, in the shape and type of the outputs a.

    A label is a row with a single 1 (of one output: itself).

    Raises:
        NetworkError: where the shape is neither (B,) nor (B, n_L).
    """
    B, n_L = a.shape
    if targets.shape not in ((B,), (B, n_L)):
        raise NetworkError(f"targets have shape {targets.shape}: expected labels, ({B},), or outputs, ({B}, {n_L})")
    if targets.ndim == 2:
        return targets.astype(a.dtype)
    return targets.astype(a.dtype)[:, None] if n_L == 1 else jax.nn.one_hot(targets, n_L, dtype=a.dtype)


def weighted_mean(values: Float[Array, " B"], weights: Float[Array, " B"] | None) -> Float[Array, ""]:
    """sum_i w_i v_i / sum_i w_i, or the plain mean without weights. Weights that sum to 0 give NaN."""
    return jnp.sum(shares(values, weights) * values)


def shares(values: Float[Array, " B"], weights: Float[Array, " B"] | None) -> Float[Array, " B"]:
    """Each example's share w_i / sum_i w_i in a mean, of the type of `values`; 1 / B without weights."""
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
    if weights.shape != values.shape:
        raise NetworkError(f"weights have shape {weights.shape}: expected {values.shape}, one an example")
    return weights.astype(values.dtype)


def loss(params: Params, batch: Batch, network: Network) -> Float[Array, ""]:
    """The cost: the (weighted) mean over the examples of C_i = loss(a^L_i, y_i), a scalar.

    For `squared_error`, the lesson's cost, C_i is the sum over outputs of squared differences, without a factor 1/2.

    >>> network = Network((2, 1), output="identity")
    >>> params = (Layer(jnp.array([[1.0], [2.0]]), jnp.array([3.0])),)
    >>> float(loss(params, Batch(jnp.array([[1.0, 1.0]]), jnp.array([[4.0]])), network))
    4.0
    """
    z, a = propagate(params, batch.inputs, network)
    y = wanted(batch.targets, a[-1])
    C = output_loss(network.output, network.loss).value(z[-1], a[-1], y)
    return weighted_mean(C, batch.weights)
