import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import in_memory

from jaxmlp.products import (
    ALIASED,
    BRIEF,
    CROWD,
    FEW,
    INPUTS,
    MANY,
    NARROW,
    PARTS,
    SHORT,
    SMALL,
    SOME,
    TILES,
    WIDE,
    in_parts,
    kernel_gradient,
    on_one_core,
    parts,
    sent_back,
    turns,
    weighted_sums,
)

pytestmark = pytest.mark.own_precision


def matrices(*shapes: tuple[int, int], dtype: str = "float32") -> list[jax.Array]:
    return [jnp.asarray(np.random.default_rng(i).normal(size=shape), dtype) for i, shape in enumerate(shapes)]


def program(product: object, *shapes: tuple[int, int]) -> str:
    """As lowered; of a new function each time, as JAX keeps those of old ones."""
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return str(jax.jit(lambda *matrices: product(*matrices)).lower(*given).as_text())


@pytest.mark.parametrize("B", [1, 7, BRIEF, BRIEF + 1])
@pytest.mark.parametrize("n_in", [3, WIDE])
def test_what_is_sent_back_is_the_product_with_the_kernels_transpose(B: int, n_in: int) -> None:
    D, W = matrices((B, WIDE), (n_in, WIDE))
    expected = np.asarray(D) @ np.asarray(W).T
    np.testing.assert_allclose(jax.jit(sent_back)(D, W), expected, rtol=1e-4, atol=1e-3)


def assert_kernel_gradient_is_the_sum_of_outer_products(B: int, n_in: int, n_out: int, dtype: str) -> None:
    A, D = matrices((B, n_in), (B, n_out), dtype=dtype)
    found = jax.jit(kernel_gradient)(A, D)
    assert (found.shape, found.dtype) == ((n_in, n_out), A.dtype)
    exact = np.asarray(A, np.float64).T @ np.asarray(D, np.float64)
    np.testing.assert_allclose(np.asarray(found, float), exact, rtol=1e-2, atol=1e-4 if dtype == "float32" else 1)


@pytest.mark.parametrize("turned", [0, 1, PARTS])
@pytest.mark.parametrize(("B", "n_in", "n_out"), [(9, 7, 5), (CROWD, 70, 3), (BRIEF, 3, WIDE)])
def test_numpys_arrays_are_multiplied_as_jaxs_are_compiled_or_not(B: int, n_in: int, n_out: int, turned: int) -> None:
    A, W, D = matrices((B, n_in), (n_in, n_out), (B, n_out))
    for product, sides in ((weighted_sums, (A, W)), (sent_back, (D, W)), (kernel_gradient, (A, D))):
        found = product(*sides, turned)
        np.testing.assert_array_equal(product(*map(np.asarray, sides), turned), found)
        compiled = jax.jit(product, static_argnums=2)(*sides, turned)
        np.testing.assert_allclose(compiled, found, rtol=1e-4, atol=1e-3)


SHAPES = [
    (ALIASED, 300),
    (2 * ALIASED, 500),
    (ALIASED + 1, 300),
    (ALIASED, 3),
    (784, 64),
    (784, 12),
    (700, WIDE),
    (9, 9),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("B", [8, SHORT - 1, SHORT, 2 * SHORT + 1, CROWD])
@pytest.mark.parametrize(("n_in", "n_out"), SHAPES)
def test_a_kernels_gradient_is_the_sum_over_the_batch_in_whatever_form(
    n_in: int, n_out: int, B: int, dtype: str
) -> None:
    assert_kernel_gradient_is_the_sum_of_outer_products(B, n_in, n_out, dtype)


@settings(max_examples=20, deadline=None)
@given(B=st.integers(0, 300), n_in=st.integers(1, 1100), n_out=st.integers(1, 300))
def test_the_kernels_gradient_of_any_shape_is_the_sum_over_the_batch(B: int, n_in: int, n_out: int) -> None:
    assert_kernel_gradient_is_the_sum_of_outer_products(B, n_in, n_out, "float32")


@pytest.mark.parametrize(
    ("B", "n_in", "n_out", "own"),
    [
        *((B, n, 16, B > 3) for B in (1, 3, 4, 10, 64) for n in (784, 16)),
        (FEW // 16, 16, 16, True), (FEW // 16 + 1, 16, 16, False), (129, 784, 16, False),
    ],
)  # fmt: skip
def test_the_transposed_side_of_a_small_product_is_an_array_of_its_own_from_batches_of_4_on(
    B: int, n_in: int, n_out: int, own: bool
) -> None:
    assert on_one_core(B, n_in, n_out) or not own
    assert in_memory("transpose", program(kernel_gradient, (B, n_in), (B, n_out))) == own


@pytest.mark.parametrize(
    ("B", "n_in", "n_out", "melted"),
    [
        (4, 784, 64, True), (8, 784, 100, True), (12, 784, 100, True), (16, 784, 64, True), (4, 900, 64, True),
        (28, 784, 56, True), (24, 784, 64, True), (16, 784, 88, True), (8, 784, 128, True),
        (0, 784, 64, True), (4, 784, 52, True),
        (10, 784, 100, False), (6, 784, 64, False),  # no multiple of 4
        (4, 784, 51, False), (8, 784, 32, False), (8, 13, 64, False),  # small
        (8, 800, 64, False), (8, 1024, 64, False),  # rows of whole blocks
        (16, 784, 100, False), (32, 784, 64, False),  # so large that Eigen would wake another core
        (28, 784, 64, False), (12, 784, 128, False),
        (4, 784, 150, False), (5, 784, 190, False),  # shared by YNNPACK
        (8, 250, 250, False), (4, 100, 784, False),  # not long, or long the other way
    ],
)  # fmt: skip
def test_where_eigen_is_faster_the_transposition_melts_into_the_product(
    B: int, n_in: int, n_out: int, melted: bool
) -> None:
    assert ("optimization_barrier" in program(kernel_gradient, (B, n_in), (B, n_out))) == (not melted)


@pytest.mark.parametrize(("n_in", "n_out"), [(784, 10), (784, 16), (784, 196), (256, 32)])
def test_deltas_of_a_long_kernel_in_a_large_batch_are_transposed_in_memory(n_in: int, n_out: int) -> None:
    def has_own(B: int, *sizes: int) -> bool:
        return in_memory("transpose", program(kernel_gradient, *((B, n) for n in sizes))) == 1

    assert has_own(CROWD, n_in, n_out)
    assert has_own(CROWD + 1, n_in, n_out)
    assert not has_own(CROWD - 1, n_in, n_out)
    assert not has_own(CROWD, n_out, n_in)  # long the other way


@pytest.mark.parametrize(
    ("B", "n_in", "n_out", "own"),
    [
        (16, 784, 16, 1), (1024, 784, 16, 1), (CROWD, 784, 100, 1), (512, 250, 10, 1),
        (15, 784, 16, 0), (128, 784, 100, 0),  # of more numbers than the inputs; and with deltas left where they are
    ],
)  # fmt: skip
def test_a_long_kernels_gradient_is_an_array_before_it_is_transposed(B: int, n_in: int, n_out: int, own: int) -> None:
    assert in_memory("dot_general", program(kernel_gradient, (B, n_in), (B, n_out))) == own


def test_in_a_large_batch_whoever_holds_a_long_kernel_as_it_is_has_an_epochs_product() -> None:
    """XLA would melt the transposition into it: f32[784,16]."""
    A, D = (jax.ShapeDtypeStruct((1024, n), jnp.float32) for n in (784, 16))
    text = jax.jit(kernel_gradient).lower(A, D).compile({"xla_cpu_use_fusion_emitters": True}).as_text()
    assert re.findall(r"= (f32\[[\d,]+\])\S* dot\(", text) == ["f32[16,784]"]


@pytest.mark.parametrize("B", [20, 32, 100])
def test_deltas_of_a_product_that_is_shared_among_cores_are_left_where_they_are(B: int) -> None:
    assert B * 100 > SMALL
    assert "optimization_barrier" not in program(kernel_gradient, (B, 784), (B, 100))


@pytest.mark.parametrize(("B", "n", "own"), [(2, 32, True), (2, 33, False), (300, 32, True)])
def test_a_small_kernel_that_deltas_are_sent_back_through_is_transposed_in_memory(B: int, n: int, own: bool) -> None:
    assert own == (n * n <= SMALL)
    assert ("optimization_barrier" in program(sent_back, (B, n), (n, n))) == own


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("turned", [0, 1, PARTS])
@pytest.mark.parametrize(
    ("B", "n_in", "n_out"),
    [(1, 3, 2), (40, 30, 7), (33, 100, TILES[0]), (9, 5, 600), (129, 784, TILES[0]), (255, 784, 12)],
)
def test_turned_or_not_the_products_are_the_same(B: int, n_in: int, n_out: int, turned: int, dtype: str) -> None:
    A, W, D = matrices((B, n_in), (n_in, n_out), (B, n_out), dtype=dtype)
    exact_A, exact_W, exact_D = (np.asarray(matrix, np.float64) for matrix in (A, W, D))
    for product, sides, exact in (
        (weighted_sums, (A, W), exact_A @ exact_W),
        (sent_back, (D, W), exact_D @ exact_W.T),
        (kernel_gradient, (A, D), exact_A.T @ exact_D),
    ):
        found = jax.jit(product, static_argnums=2)(*sides, turned)
        assert (found.shape, found.dtype) == (exact.shape, A.dtype)
        np.testing.assert_allclose(np.asarray(found, float), exact, rtol=1e-2, atol=1e-4 if dtype == "float32" else 1)


@pytest.mark.parametrize(
    ("B", "sizes", "turned"),
    [
        (SOME, (784, 16, 16, 10), True), (SOME - 1, (784, 16, 16, 10), False),
        (32, (784, 64, 10), True), (32, (784, 16, 100, 10), True), (32, (784, 100, 10), False),  # one core or two
        (64, (784, 64, 10), True), (97, (784, 64, 10), False), (192, (784, 30, 10), True),  # in two and three parts
        (MANY // 2, (784, NARROW, 10), True), (MANY // 2 - 1, (784, NARROW, 10), False),
        (MANY, (784, 64, 10), True), (MANY - 1, (784, 64, 10), False),
        (2 * 300, (784, 300, 10), True), (2 * 300 - 1, (784, 300, 10), False),
        (1024, (784, 512, 512, 10), True), (1024, (784, 1024, 10), False), (1024, (5, 9, 1024), False),
    ],
)  # fmt: skip
def test_many_examples_of_few_numbers_are_turned(B: int, sizes: tuple[int, ...], turned: bool) -> None:
    assert bool(turns((B, sizes[0]), sizes)) == turned


@pytest.mark.parametrize(
    ("B", "n_in", "n_out", "P"),
    [
        (125, 784, 16, 1), (126, 784, 16, 2), (251, 784, 16, 3), (375, 784, 16, PARTS), (376, 784, 16, 0),
        (64, 784, 64, 2), (63, 784, 64, 0), (32, 784, 100, 0),  # as their parts would have few examples
        (511, 64, 60, 2), (MANY, 64, 60, 0), (MANY, 250, 10, 2), (1024, 120, 10, 2), (1000, 60, 32, 1),
    ],
)  # fmt: skip
def test_a_batch_has_as_many_parts_as_each_to_stay_on_one_core(B: int, n_in: int, n_out: int, P: int) -> None:
    assert parts(B, n_in, n_out, PARTS) == P
    assert P == 0 or (on_one_core(-(-B // P), n_in, n_out) and -(-B // P) * n_in <= INPUTS)
    for product, sides in (
        (weighted_sums, ((B, n_in), (n_in, n_out))),
        (kernel_gradient, ((B, n_in), (B, n_out))),
    ):
        for turned in (1, PARTS):
            text = program(partial(product, turned=turned), *sides)
            assert text.count("stablehlo.dot_general") == (max(1, P) if turned == PARTS else 1)


@pytest.mark.parametrize(
    ("B", "sizes", "most"),
    [
        (SOME, (784, 16, 16, 10), PARTS), (375, (784, 16, 16, 10), PARTS), (376, (784, 16, 16, 10), 1),
        (192, (784, 30, 10), PARTS), (1024, (784, 100, 10), 1), (MANY, (250, 10), PARTS),
        (209, (20, 100, 100, 5), 0), (128, (20, 100, 100, 5), PARTS),  # D W^T is shared sooner than A W
    ],
)  # fmt: skip
def test_products_are_in_parts_where_those_of_all_layers_stay_on_one_core(
    B: int, sizes: tuple[int, ...], most: int
) -> None:
    assert turns((B, sizes[0]), sizes) == most
    assert in_parts(B, sizes) == (most == PARTS)


@pytest.mark.parametrize(("dtype", "P"), [("float64", 2), ("float32", 2), ("bfloat16", 1), ("float16", 1)])
def test_parts_of_16_bit_types_are_not_summed(dtype: str, P: int) -> None:
    with jax.enable_x64(True):
        A, D = (jax.ShapeDtypeStruct((128, n), jnp.dtype(dtype)) for n in (784, 12))
        lowered = jax.jit(partial(kernel_gradient, turned=PARTS)).lower(A, D)
        assert lowered.as_text().count("stablehlo.dot_general") == P


@pytest.mark.parametrize(
    ("n_in", "n_out", "turned"), [(784, 16, False), (784, 32, False), (784, 30, True), (16, 16, True), (8, 32, True)]
)
def test_weighted_sums_that_fill_whole_tiles_are_left_as_they_are(n_in: int, n_out: int, turned: bool) -> None:
    def turned_sums(A: jax.Array, W: jax.Array) -> jax.Array:
        return weighted_sums(A, W, turned=1)

    assert in_memory("dot_general", program(turned_sums, (64, n_in), (n_in, n_out))) == turned


def test_only_a_cpu_gets_forms_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [
        (kernel_gradient, (10, 784), (10, 16)),
        (kernel_gradient, (SHORT, ALIASED), (SHORT, ALIASED)),
        (kernel_gradient, (10, WIDE), (10, WIDE)),
        (sent_back, (10, 16), (16, 16)),
        (sent_back, (10, WIDE), (WIDE, WIDE)),
    ]
    assert all("optimization_barrier" in program(*case) for case in cases)
    assert turns((64, 784), (784, 16))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not any("optimization_barrier" in program(*case) for case in cases)
    assert not turns((64, 784), (784, 16))
    with jax.default_device(jax.devices("cpu")[0]):
        assert all("optimization_barrier" in program(*case) for case in cases)


def test_a_program_for_any_number_of_examples_has_plain_products() -> None:
    (B,) = jax.export.symbolic_shape("B")
    assert not turns((B, 784), (784, 16))
    for n in (16, WIDE):
        for product, other in ((kernel_gradient, (B, n)), (sent_back, (n, n))):
            given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((B, n), other)]
            exported = jax.export.export(jax.jit(product))(*given)
            assert "optimization_barrier" not in exported.mlir_module()


@pytest.mark.parametrize(
    ("B", "n_in", "n_out", "alone"),
    [
        (1, 784, 100, True), (10, 784, 100, True), (16, 784, 128, True), (10, 784, 200, False), (20, 784, 100, False),
        (32, 784, 64, True), (128, 784, 16, True), (128, 784, 20, False), (144, 784, 16, False), (128, 1024, 16, False),
    ],
)  # fmt: skip
def test_which_layers_stay_on_one_core(B: int, n_in: int, n_out: int, alone: bool) -> None:
    assert on_one_core(B, n_in, n_out) == alone


def test_no_layer_of_an_accelerator_is_kept_to_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not on_one_core(10, 784, 16)
