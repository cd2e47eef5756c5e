"""Flax at the border: parameters as `flax.linen` and `flax.nnx` hold them, and in files of `flax.serialization`.

A Dense layer of Flax's has the kernel, (n_in, n_out), and the bias, (n_out,), of a `Layer`. So nothing is computed:
arrays pass as they are, bit for bit, either way. `import jaxmlp.flax` takes Flax (`pip install 'jaxmlp[flax]'`).
"""

import contextlib
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx, serialization

from jaxmlp.errors import DataError, NetworkError
from jaxmlp.network import Layer, Network, Params


def to_linen(params: Params) -> dict[str, Any]:
    """The variables of a `flax.linen` module of Dense layers: {"params": {"Dense_0": {"kernel", "bias"}, ...}}.

    So they are named where the module's method is `nn.compact`.

    Raises:
        NetworkError: for anything but parameters.

    >>> import jax, jaxmlp
    >>> params = jaxmlp.init(jax.random.key(0), jaxmlp.Network((3, 2)))
    >>> jax.tree.map(jnp.shape, to_linen(params))
    {'params': {'Dense_0': {'bias': (2,), 'kernel': (3, 2)}}}
    """
    refuse_others(params)
    return {"params": {f"Dense_{i}": {"kernel": W, "bias": b} for i, (W, b) in enumerate(params)}}


def from_linen(variables: Mapping[str, Any], network: Network) -> Params:
    """The inverse of `to_linen`, for a module with the network's sizes.

    Raises:
        NetworkError: for other names or shapes, or arrays that are not of a floating type.
    """
    layers = within("variables", variables, ["params"])["params"]
    names = [f"Dense_{i}" for i in range(len(network.sizes) - 1)]
    found = within("variables['params']", layers, names)
    dense = [within(f"{name} of the variables", found[name], ["kernel", "bias"]) for name in names]
    return checked([(name, one["kernel"], one["bias"]) for name, one in zip(names, dense, strict=True)], network)


def to_nnx(params: Params) -> tuple[nnx.Linear, ...]:
    """The layers as `flax.nnx` modules: what a stack such as `nnx.Sequential` is made of, activations in between.

    Raises:
        NetworkError: for anything but parameters.

    >>> import jax, jaxmlp
    >>> network = jaxmlp.Network((3, 2), output="identity")
    >>> params = jaxmlp.init(jax.random.key(0), network)
    >>> (linear,) = to_nnx(params)
    >>> inputs = jnp.ones((1, 3), jnp.float32)
    >>> bool(jnp.array_equal(linear(inputs), jaxmlp.forward(params, inputs, network)))
    True
    """
    refuse_others(params)
    return tuple(
        nnx.Linear(
            *W.shape,
            param_dtype=W.dtype,
            kernel_init=lambda key, shape, dtype, W=W: W,
            bias_init=lambda key, shape, dtype, b=b: b,
            rngs=nnx.Rngs(0),
        )
        for W, b in params
    )


def from_nnx(layers: Sequence[nnx.Linear], network: Network) -> Params:
    """The parameters of a model's `nnx.Linear` layers, given in the order in which the model applies them.

    Raises:
        NetworkError: for another number of layers, other shapes, a layer without a bias, or arrays that are not of a
            floating type.
    """
    if len(layers) != len(network.sizes) - 1:
        raise NetworkError(f"{len(layers)} layers are given: expected {len(network.sizes) - 1}, those of {network}")
    arrays = []
    for i, layer in enumerate(layers):
        if not isinstance(layer, nnx.Linear):
            raise NetworkError(f"layers[{i}] is a {type(layer).__name__}: expected an nnx.Linear")
        arrays.append((f"layers[{i}]", *(array_of(part) for part in (layer.kernel, layer.bias))))
    return checked(arrays, network)


def array_of(variable: Any) -> Any:
    """What an nnx.Param holds; None of a layer without a bias, which has None, or a Param of None in older Flax."""
    try:
        return variable[...]
    except TypeError:
        return None


def save(path: str | PathLike[str], params: Params) -> None:
    """Writes `to_linen(params)` as Flax does, in msgpack: numbers and names, nothing that could run.

    `flax.serialization.msgpack_restore` of the file's bytes gives variables that a linen module takes. At every instant
    there is the whole file, or what was there before.

    Raises:
        NetworkError: for anything but parameters.
        DataError: where it can't be written.
    """
    path = Path(path)
    part = path.parent / f"{path.name}.part"
    try:
        part.write_bytes(serialization.to_bytes(to_linen(params)))
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise DataError(f"{path}: can't be written: {error.strerror}") from error


def load(path: str | PathLike[str], network: Network) -> Params:
    """The parameters in a file of `save`'s, or in any that Flax wrote of such variables: NumPy arrays.

    Raises:
        DataError: for a file that can't be read, or is no such file.
        NetworkError: for parameters of another network.
    """
    try:
        variables = serialization.msgpack_restore(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error
    except Exception as error:  # of whatever kind msgpack and Flax raise for bytes that are not theirs
        brief = textwrap.shorten(str(error) or repr(error), 100)
        raise DataError(f"{path}: not a file of flax.serialization, or a damaged one: {brief}") from error
    try:
        return from_linen(variables, network)
    except NetworkError as error:
        raise NetworkError(f"{path}: {textwrap.shorten(str(error), 300)}") from error


def refuse_others(params: Params) -> None:
    """Raises a NetworkError for what is no parameters."""
    if not isinstance(params, Sequence) or not all(isinstance(layer, Layer) for layer in params):
        raise NetworkError(f"params is a {type(params).__name__}: expected a tuple of Layers, such as a run's .params")


def within(what: str, given: Any, names: list[str]) -> Mapping[str, Any]:
    """The mapping itself; raises a NetworkError where it isn't one of these names."""
    if not isinstance(given, Mapping):
        raise NetworkError(f"{what} is a {type(given).__name__}: expected a dictionary of {', '.join(names)}")
    if {*given} != {*names}:
        raise NetworkError(f"{what} has {', '.join(map(str, given)) or 'nothing'}: expected {', '.join(names)}")
    return given


def checked(arrays: list[tuple[str, Any, Any]], network: Network) -> Params:
    """The layers, each given as its name, kernel and bias; raises a NetworkError where they are not the network's."""
    for (name, *given), (n_in, n_out) in zip(arrays, itertools.pairwise(network.sizes), strict=True):
        for part, array, shape in zip(("kernel", "bias"), given, ((n_in, n_out), (n_out,)), strict=True):
            if not hasattr(array, "dtype") or array.shape != shape:
                has = f"has shape {array.shape}" if hasattr(array, "shape") else f"is a {type(array).__name__}"
                raise NetworkError(f"the {part} of {name} {has}: expected {shape}, as of {network}")
            if not jnp.issubdtype(array.dtype, jnp.floating):
                raise NetworkError(f"the {part} of {name} is {array.dtype}: expected a floating type")
    return tuple(Layer(W, b) for _, W, b in arrays)
