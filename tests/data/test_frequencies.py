import numpy as np
import pytest
from scipy.fft import dctn

from jaxmlp import DataError, Dataset, load_data
from jaxmlp.data.frequencies import lowest_frequencies, transformed

pytestmark = pytest.mark.own_precision  # it is NumPy's


@pytest.mark.parametrize("shape", [(28, 28), (10, 17)])
def test_they_are_the_first_of_the_cosine_transform_without_the_mean(shape: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, *shape)).astype(np.uint8)
    expected = dctn(images / 255, axes=(1, 2), norm="ortho")[:, :10, :10].reshape(3, 100)[:, 1:]
    np.testing.assert_allclose(lowest_frequencies(images), expected, atol=1e-5)
    np.testing.assert_allclose(lowest_frequencies(images.astype(np.float32) / 255), expected, atol=1e-5)


def test_an_image_is_transformed_by_itself_alone() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 12)).astype(np.uint8)
    alone = np.concatenate([lowest_frequencies(image[None]) for image in images])
    np.testing.assert_allclose(lowest_frequencies(images), alone, atol=1e-6)


def test_a_source_is_transformed_whole_and_its_labels_stay() -> None:
    plain, found = load_data("mnist"), load_data("dct:mnist")
    assert (found.name, found.features, found.outputs, found.shape) == ("dct:mnist", 99, 10, (99,))
    for before, after in ((plain.train, found.train), (plain.test, found.test)):
        np.testing.assert_array_equal(before.targets, after.targets)
        images = before.inputs[-20:].reshape(-1, 28, 28)
        np.testing.assert_allclose(after.inputs[-20:], lowest_frequencies(images), atol=1e-6)


@pytest.mark.parametrize(("shape", "said"), [((9, 12), "9 x 12"), ((784,), "784"), ((28, 28, 1), "28 x 28 x 1")])
def test_what_is_no_image_or_too_small_is_refused(shape: tuple[int, ...], said: str) -> None:
    x, y = np.zeros((2, *shape), np.uint8), np.arange(2)
    with pytest.raises(DataError, match=f"data.source is 'dct:small', of examples {said}: expected images, 10 x 10"):
        transformed(Dataset.from_arrays(x, y, x, y, name="small"))
