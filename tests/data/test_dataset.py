from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmlp import DataError, Dataset
from jaxmlp.data.dataset import Examples, Scale, as_inputs, on_device, split_indices


@given(validation=st.integers(0, 202), seed=st.integers(0, 1000))
def test_a_split_parts_the_training_set_by_seed(validation: int, seed: int) -> None:
    held_out, rest = split_indices(203, validation, seed)
    assert held_out.size == validation
    assert sorted([*rest, *held_out]) == [*range(203)]
    for again, once in zip(split_indices(203, validation, seed), (held_out, rest), strict=True):
        np.testing.assert_array_equal(again, once)


@given(fewer=st.integers(1, 150), more=st.integers(1, 150), seed=st.integers(0, 1000))
def test_fewer_examples_are_among_those_that_more_would_be(fewer: int, more: int, seed: int) -> None:
    fewer, more = sorted((fewer, more))
    held_out, few = split_indices(203, 53, seed, fewer)
    _, many = split_indices(203, 53, seed, more)
    assert (few.size, many.size) == (fewer, more)
    assert {*few} <= {*many} <= {*range(203)} - {*held_out}


def test_different_seeds_split_differently() -> None:
    assert not np.array_equal(split_indices(203, 50, 0)[0], split_indices(203, 50, 1)[0])


@given(data=st.data(), size=st.integers(1, 40), floats=st.booleans())
def test_taking_examples_copies_the_rows_at_the_indices(data: st.DataObject, size: int, floats: bool) -> None:
    inputs = np.arange(size * 3).reshape(size, 3).astype(np.float32 if floats else np.uint8)
    examples = Examples(inputs, np.arange(size, dtype=np.int32))
    indices = np.array(data.draw(st.lists(st.integers(0, size - 1))), np.int64)
    taken = examples.take(indices)
    np.testing.assert_array_equal(taken.inputs, inputs[indices])
    np.testing.assert_array_equal(taken.targets, indices)
    assert not np.shares_memory(taken.inputs, inputs)


@pytest.mark.parametrize("indices", [np.array([True, False, True]), np.array([-1, 0]), np.array([[0, 1], [2, 2]])])
def test_masks_and_indices_from_the_end_or_of_any_shape_are_numpys(indices: Any) -> None:
    examples = Examples(np.arange(6, dtype=np.uint8).reshape(3, 2), np.arange(3, dtype=np.int32))
    for array, taken in zip(examples, examples.take(indices), strict=True):
        np.testing.assert_array_equal(taken, array[indices])


@pytest.mark.parametrize("index", [-4, 3])
def test_an_index_that_no_example_has_is_refused(index: int) -> None:
    examples = Examples(np.zeros((3, 2), np.uint8), np.zeros(3, np.int32))
    with pytest.raises(IndexError, match="out of bounds"):
        examples.take(np.array([0, index]))


def test_jax_takes_a_copy_of_examples_as_it_is_and_standardised_ones_too() -> None:
    examples = Examples(np.eye(300, 7, dtype=np.float32), np.ones(300, np.int32)).take(np.arange(1, 300))
    scaled = examples._replace(inputs=Scale.of(examples.inputs)(examples.inputs))
    for each in (examples, scaled):
        for array, placed in zip(each, on_device(each), strict=True):
            assert placed.unsafe_buffer_pointer() == array.ctypes.data


def test_grey_levels_become_zero_to_one_and_other_numbers_stay() -> None:
    levels = as_inputs(jnp.arange(256, dtype=jnp.uint8)[None])
    np.testing.assert_allclose(levels[0], np.arange(256) / 255, rtol=2e-7)
    assert levels.dtype == jnp.float32
    numbers = jnp.array([[300.0, -2.0]], jnp.float32)
    assert (as_inputs(numbers) == numbers).all()


def test_whole_numbers_that_are_not_uint8_are_taken_as_they_are() -> None:
    dataset = Dataset.from_arrays(*[np.array([[300], [-2]]), np.array([0, 1])] * 2)
    assert dataset.train.inputs.tolist() == [[300.0], [-2.0]]
    assert dataset.train.inputs.dtype == np.float32


@pytest.mark.parametrize("targets", [[0, 1, 1], [[0], [1], [1]], [False, True, True]])
def test_lists_columns_and_booleans_are_labels(targets: list) -> None:
    inputs = [[0.5], [1.0], [2.0]]
    dataset = Dataset.from_arrays(inputs, targets, inputs, targets)
    assert dataset.labelled
    assert dataset.train.targets.tolist() == [0, 1, 1]
    assert dataset.train.inputs.tolist() == inputs


def test_a_scale_brings_every_feature_to_mean_0_and_deviation_1() -> None:
    rng = np.random.default_rng(0)
    inputs = (rng.normal(size=(50, 4)) * [1, 1e-3, 1e4, 1] + [0, 5, -1e5, 1e6]).astype(np.float32)
    scale = Scale.of(inputs)
    assert scale.mean.dtype == scale.deviation.dtype == scale(inputs).dtype == np.float32
    np.testing.assert_allclose(scale.mean, inputs.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(scale(inputs).std(axis=0), 1, rtol=1e-3)
    np.testing.assert_allclose(scale(inputs)[:, :3].mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(scale(inputs[:1] + 1), (inputs[:1] + 1 - scale.mean) / scale.deviation, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e7, 1e-30, 1e30])
def test_a_constant_feature_is_0_and_a_new_value_of_it_keeps_its_distance(value: float) -> None:
    inputs = np.full((1001, 1), value, np.float32)
    scale = Scale.of(inputs)
    assert scale.deviation.tolist() == [1]
    np.testing.assert_array_equal(scale(inputs), np.zeros((1001, 1)))


def test_grey_levels_are_scaled_as_they_are() -> None:
    inputs = np.array([[0, 7], [255, 7]], np.uint8)
    assert Scale.of(inputs)(inputs).tolist() == [[-1, 0], [1, 0]]


def test_a_data_set_is_described_in_a_line(digits: Dataset) -> None:
    assert repr(digits).startswith("<Dataset digits: 203 training and ")
    assert repr(digits).endswith(" test examples of shape (5, 4); classes: 3>")
    x = np.zeros((5, 4))
    assert repr(Dataset.from_arrays(x, x, x, x)).endswith("5 test examples of shape (4,); wanted outputs: 4>")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("classes", [4.5, 3.0, 0, -3, True, "3"])
def test_a_number_of_classes_is_a_whole_number(classes: Any) -> None:
    x, y = np.zeros((3, 4)), np.arange(3)
    with pytest.raises(DataError, match=f"arrays: classes is {classes!r}: expected a whole number of 1"):
        Dataset.from_arrays(x, y, x, y, classes=classes)
    assert Dataset.from_arrays(x, y, x, y, classes=np.int64(4)).classes == 4


def test_masked_places_are_refused_and_a_masked_array_without_is_not() -> None:
    x, y = np.ma.masked_equal(np.arange(12.0).reshape(3, 4), 5), np.arange(3)
    with pytest.raises(DataError, match=r"training set: inputs have masked places: expected .*filled\(NUMBER\)"):
        Dataset.from_arrays(x, y, x, y)
    with pytest.raises(DataError, match="test set: targets have masked places"):
        Dataset.from_arrays(x.filled(0), y, x.filled(0), np.ma.masked_equal(y, 1))
    whole = Dataset.from_arrays(np.ma.array(x.filled(0)), y, x.filled(0), y)
    assert type(whole.train.inputs) is np.ndarray


def test_words_for_labels_and_numbers_that_are_none_are_told_what_to_be() -> None:
    x = np.zeros((2, 4))
    with pytest.raises(DataError, match="targets have type <U3: expected real numbers; classes as numbers from 0"):
        Dataset.from_arrays(x, ["cat", "dog"], x, ["cat", "dog"])
    with pytest.raises(DataError, match="labels from 0 to 1; targets of a floating type, such as float32, "):
        Dataset.from_arrays(x, [25, 346], x, [25, 346], classes=2)


def test_rows_of_different_lengths_are_no_examples() -> None:
    rows: Any = [[1.0], [1.0, 2.0]]
    with pytest.raises(
        DataError, match=r"arrays, training set: inputs are no array \(.*expected examples of one shape"
    ):
        Dataset.from_arrays(rows, [0, 1], rows, [0, 1])
    with pytest.raises(DataError, match=r"arrays, test set: targets are no array"):
        Dataset.from_arrays([[1.0]], [0], [[1.0]], rows)
