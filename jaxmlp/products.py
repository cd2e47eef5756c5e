"""The three products of a layer in backpropagation, each in the form that takes a CPU the least time.

With A = A^(l-1), W = W^l and D = D^l:

    A W            the weighted sums of its inputs: `weighted_sums`
    D W^T          what the layer sends back: `sent_back`
    A^T D          its kernel's gradient, of a long kernel as (D^T A)^T: `kernel_gradient`

Other devices get them just so, as does a program for any number of examples (a symbol of `jax.export`). For a CPU, XLA
melts a transposition into the product, and gives that to Eigen or to YNNPACK, on one core or on all, by rules of its
own; which form is the fastest follows from the shapes alone. docs/speed.md has the measurements.

Of many examples the products are turned:

    (W^T A^T)^T    (W D^T)^T    (D^T A)^T

Each is an array of its own before it is transposed back (but see TILES), and XLA gives what is computed from it element
by element the same order, so that z, a and D lie in memory feature by feature, as (n, B), and not example by example,
as (B, n). The products, the sums over the batch and the update then read most arrays along their rows. A batch that is
a little too large for one core is cut in parts, as waking an idle core takes longer than a part takes the busy one.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmlp.devices import on_cpu

WIDE, BRIEF, SHORT = 2048, 64, 128
"""Units of a layer from which on, and examples of a batch up to which, (W D^T)^T takes less time than D W^T.

In batches of fewer than SHORT, A^T in memory saves such a layer more than it takes; from SHORT on, `lengthened` may."""

ALIASED = 512
"""Where rows have a multiple of so many numbers of float32, those of a column share few places in the nearest cache,
which finds them by the last 12 bits of their addresses; `A^T D` reads columns of A."""

LONG = 4
"""How many times as long as wide, or as wide as long, a matrix is that counts as long."""

SMALL = 1024
"""Numbers of a matrix that a CPU takes no time to speak of to transpose."""

FEW = 8 * SMALL
"""Numbers of a matrix that is transposed sooner than the other core wakes that a product across its rows asks for."""

TINY = 3
"""Examples of a batch up to which Eigen, with a transposition melted in, is faster than YNNPACK with one in memory."""

LARGE, ALONE, WRITTEN = 40_000, 1_500_000, 4
"""Numbers of a long kernel from which on Eigen may be faster in other batches, too; and multiplications up to which it
stays on one core, where writing a number of the result counts as so many."""

CROWD = 256
"""Examples of a batch from which on a long kernel's deltas, however many, are worth an array of their own."""

SOME, MANY, NARROW = 32, 512, 32
"""Examples of a batch from which on products take less time turned: SOME, if each stays on one core; else MANY, and
twice as many as the widest layer has units; half of MANY, where no layer has more than NARROW units."""

PARTS, INPUTS = 3, 98_304
"""Parts into which a batch is cut at most so that each part's products stay on one core; and numbers of a part's inputs
up to which YNNPACK leaves `D^T A` there: 384 kB of float32."""

TILES = (16, 32)
"""Units of a layer with LONG times as many inputs, or more, whose A W takes as little time as (W^T A^T)^T, or less:
YNNPACK computes 16 columns at a time."""


def turns(inputs: tuple[Any, ...], sizes: tuple[int, ...]) -> int:
    """Whether a network's products are to be turned, for inputs of that shape: how many parts they may be in, or 0.

    All layers' are or none: where one is turned and the next is not, what lies between is read across its rows.
    """
    if len(inputs) != 2 or not for_cpu(inputs):
        return 0
    if in_parts(inputs[0], sizes):
        return PARTS
    widest = max(sizes[1:])
    return int((MANY // 2 if widest <= NARROW else max(MANY, 2 * widest)) <= inputs[0])


def in_parts(B: int, sizes: tuple[int, ...]) -> bool:
    """Whether turned products of so many examples all stay on one core, those of A in parts of the batch or whole."""
    alone = all(parts(B, n_in, n_out, PARTS) for n_in, n_out in itertools.pairwise(sizes))
    return SOME <= B and alone and all(on_one_core(B, n_out, n_in) for n_in, n_out in itertools.pairwise(sizes[1:]))


def parts(B: int, n_in: int, n_out: int, most: int) -> int:
    """The fewest parts of a batch whose products of a layer stay on one core; 0 where those are more than `most`."""
    if MANY <= B and not on_one_core(B, n_in, n_out):
        return 0
    for P in range(1, most + 1):
        part = -(-B // P)
        if on_one_core(part, n_in, n_out) and part * n_in <= INPUTS and (P == 1 or P * SOME <= B):
            return P
    return 0


def cut(turned: int, n_out: int, *matrices: Float[Array, "B _"]) -> list[tuple[Float[Array, "_ _"], ...]]:
    """A layer's inputs, and deltas, in the parts that its products are in; one in 16 bits, which would round sums."""
    B, n_in = matrices[0].shape
    P = max(1, parts(B, n_in, n_out, turned)) if matrices[0].dtype.itemsize >= 4 else 1
    return list(zip(*(jnp.array_split(matrix, P) for matrix in matrices), strict=True))


def held(D: Float[Array, "B n"], turned: int) -> Float[Array, "B n"]:
    """Deltas as they are; turned, with their transpose an array of its own, whatever is computed from them."""
    return in_memory(D.T).T if turned else D


def weighted_sums(
    A: Float[Array | np.ndarray, "B n_in"], W: Float[Array | np.ndarray, "n_in n_out"], turned: int = 0
) -> Float[Array, "B n_out"]:
    """A W; turned as (W^T A^T)^T, with W^T as an array of its own, but see TILES; the batch may be in parts.

    An epoch that turns holds every kernel transposed already (`training/epoch.py`).
    """
    A, W = jnp.asarray(A), jnp.asarray(W)
    n_in, n_out = W.shape
    if not turned:
        return A @ W
    if n_out in TILES and n_in >= LONG * n_out:
        return jnp.concatenate([part @ W for (part,) in cut(turned, n_out, A)])
    own = in_memory(W.T)
    return in_memory(jnp.concatenate([in_memory(own @ part.T) for (part,) in cut(turned, n_out, A)], axis=1)).T


def sent_back(
    D: Float[Array | np.ndarray, "B n_out"], W: Float[Array | np.ndarray, "n_in n_out"], turned: int = 0
) -> Float[Array, "B n_in"]:
    """D W^T; turned as (W D^T)^T, and so for a CPU where the layer is wide and the batch is small.

    XLA then reads W along its rows and the little D^T from memory of its own: 0.80 to 0.99 of a step's time for
    784-2048-2048-10 in batches of 10 to 64.
    """
    D, W = jnp.asarray(D), jnp.asarray(W)
    if turned:
        return in_memory(in_memory(W) @ D.T).T
    if not for_cpu(D.shape):
        return D @ W.T
    if min(W.shape) >= WIDE and not is_long(W.shape) and D.shape[0] <= BRIEF:
        return in_memory(W @ in_memory(D.T)).T
    return D @ transposed(W, SMALL)


def kernel_gradient(
    A: Float[Array | np.ndarray, "B n_in"], D: Float[Array | np.ndarray, "B n_out"], turned: int = 0
) -> Float[Array, "n_in n_out"]:
    """A^T D, the sum of the examples' outer products; where turned, and always of a long kernel, as (D^T A)^T.

    An epoch holds long kernels transposed, or every one, so that the outer transposition melts away
    (`training/epoch.py`); for others the product is in memory first.
    """
    A, D = jnp.asarray(A), jnp.asarray(D)
    (B, n_in), n_out = A.shape, D.shape[1]
    if turned:
        products = [in_memory(in_memory(d.T) @ a) for a, d in cut(turned, n_out, A, D)]
        return sum(products[1:], start=products[0]).T
    if is_long((n_in, n_out)):
        return (long_kernel_gradient(A, D) if for_cpu(A.shape) else D.T @ A).T
    if not for_cpu(A.shape):
        return A.T @ D
    if n_out >= WIDE and B < SHORT:
        return in_memory(A.T) @ D
    if n_in % ALIASED == 0 and B >= SHORT:
        return (lengthened(A).T @ D)[:n_in]
    return transposed(A, most_transposed(B, n_in, n_out)) @ D


def long_kernel_gradient(A: Float[Array, "B n_in"], D: Float[Array, "B n_out"]) -> Float[Array, "n_out n_in"]:
    """D^T A, for a CPU; with D^T as an array of its own where that takes less time.

    Then the product is one, too, if it has no more numbers than A: else XLA melts a transposition that follows into it,
    and reads A and D^T across their rows. Where an epoch holds the kernel transposed, there is none to melt.
    """
    (B, n_in), n_out = A.shape, D.shape[1]
    if melts(B, n_in, n_out):
        return D.T @ A
    most = D.size if n_in > n_out and B >= CROWD else most_transposed(B, n_in, n_out)
    product = transposed(D, most) @ A
    return in_memory(product) if D.size <= most and n_out <= B else product


def melts(B: int, n_in: int, n_out: int) -> bool:
    """Whether Eigen computes D^T A in less time than YNNPACK with D^T in memory, in batches beyond the tiny ones.

    It does at 784 x 56 to 784 x 128 and 900 x 64 in batches of 4, 8, 12, 16, 20, 24 and 28, as far as it stays on one
    core: 0.76 to 1.00 of a step's time. It doesn't in batches of 5, 6, 7, 10 and 14, nor with rows of 512, 640, 768,
    800, 896 and 1,024 numbers.
    """
    large = n_in > n_out and n_in * n_out >= LARGE and (B + WRITTEN) * n_in * n_out < ALONE
    return large and on_one_core(B, n_in, n_out) and B % 4 == 0 and n_in % 32 != 0


def most_transposed(B: int, n_in: int, n_out: int) -> int:
    """Numbers that the transposed side of a kernel's gradient may have to be worth an array of its own."""
    if B <= TINY:
        return 0
    return FEW if on_one_core(B, n_in, n_out) else SMALL


def for_cpu(shape: tuple[Any, ...]) -> bool:
    """Whether that is a shape of known numbers, without symbols, and for a CPU."""
    return all(isinstance(n, int) for n in shape) and on_cpu()


def on_one_core(B: int, n_in: int, n_out: int) -> bool:
    """Whether a layer has so little to compute that XLA leaves `x W` to one core of a CPU: YNNPACK's rule, as measured.

    To wake another takes as long as some of the layer's products, so that these, too, are to stay on one.
    """
    padded_B, padded_n_out = (max(16, 1 << (n - 1).bit_length()) for n in (B, n_out))
    return padded_B * n_in * padded_n_out < 2**21 and on_cpu()


def all_on_one_core(B: int, sizes: tuple[int, ...]) -> bool:
    """Whether that is so of every layer of a network."""
    return all(on_one_core(B, *ends) for ends in itertools.pairwise(sizes))


def is_long(shape: tuple[int, ...]) -> bool:
    """Whether a matrix has a shape as 784 x 16. XLA on a CPU computes its gradient as D^T A in 0.6 of A^T D's time."""
    return len(shape) == 2 and max(shape) >= LONG * min(shape)


def transposed(matrix: Float[Array, "m n"], most: int) -> Float[Array, "n m"]:
    """The matrix's transpose, that of one with so many numbers at most as an array of its own.

    XLA would have the product read the matrix across its rows. Its transpose and a plain product take a CPU less: 0.85
    of a step's time for the lesson's network in batches of 10.
    """
    return in_memory(matrix.T) if matrix.size <= most else matrix.T


def lengthened(A: Float[Array, "B n"]) -> Float[Array, "B n+16"]:
    """A with 16 columns of zeros more, in memory: the next row then begins at another place of the cache."""
    return in_memory(jnp.pad(A, ((0, 0), (0, 16))))


def in_memory(matrix: Array) -> Array:
    """The matrix as an array of its own, which XLA doesn't melt into what is made of it."""
    own: Array = jax.lax.optimization_barrier(matrix)  # type: ignore[no-untyped-call]
    return own
