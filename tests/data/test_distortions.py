import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import jaxmlp
from jaxmlp import Data, Dataset, Experiment, ExperimentError, Network, Train
from jaxmlp.data import distortions
from jaxmlp.data.distortions import Distort, distorted, places, sampled, smooth

KEY = jax.random.key(3)
ALL = Distort(shift=2.0, rotation=15.0, scaling=0.15, shear=0.2, alpha=8.0, sigma=2.0)
DISTORTED = jax.jit(distorted, static_argnums=(2, 3))


def anew(images: jax.Array, shape: tuple[int, ...], distort: Distort) -> jax.Array:
    """Compiled again, lest a program serve that was made with other draws."""
    return jax.jit(lambda images: distorted(KEY, images, shape, distort))(images)


def random_images(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).random(shape), jnp.float32)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts in place of what is drawn, from -1 to 1: angle, shear, width, height, right and down, of every image."""

    def put(*numbers: float) -> None:
        def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any, least: float, most: float) -> jax.Array:
            assert (shape[0], least, most) == (6, -1, 1)
            return jnp.broadcast_to(jnp.asarray(numbers, dtype).reshape(6, 1, 1, 1), shape)

        monkeypatch.setattr(distortions.jax.random, "uniform", uniform)

    return put


def test_images_are_sampled_as_scipy_does() -> None:
    """Linearly, with zeros beyond the edges: also at whole places, at the edges, and far away."""
    rng = np.random.default_rng(0)
    images = random_images(6, 7, 5, 2)
    y, x = (rng.uniform(-3, n + 2, (6, 7, 5)).astype(np.float32) for n in (7, 5))
    y[0], x[0] = np.round(y[0]), np.round(x[0])
    y[1, :, 0], y[1, :, 1], x[1, 0], x[1, 1] = 6.0, 7.0, 4.0, 5.0
    y[2], x[3] = 1e9, -1e9
    found = np.asarray(sampled(images, jnp.asarray(y), jnp.asarray(x)))
    for i in range(6):
        for c in range(2):
            expected = ndimage.map_coordinates(images[i, :, :, c], [y[i], x[i]], order=1, mode="grid-constant")
            np.testing.assert_allclose(found[i, :, :, c], expected, atol=1e-5)
    assert not found[2].any()
    assert not found[3].any()


@pytest.mark.parametrize("sigma", [0.5, 2.0, 4.0, 40.0])
def test_fields_are_smoothed_as_scipy_does(sigma: float) -> None:
    field = np.random.default_rng(0).uniform(-1, 1, (2, 3, 11, 8)).astype(np.float32)
    expected = [
        [ndimage.gaussian_filter(one.astype(np.float64), sigma, mode="constant", truncate=10) for one in two]
        for two in field
    ]
    np.testing.assert_allclose(smooth(jnp.asarray(field), sigma), expected, atol=1e-6)


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, -2), (-1, 2)])
def test_a_shift_by_whole_pixels_moves_pixels_exactly(right: int, down: int, drawn: Callable[..., None]) -> None:
    drawn(0, 0, 0, 0, right / 2, down / 2)
    images = random_images(3, 6, 5)
    found = np.asarray(anew(images.reshape(3, 30), (6, 5), Distort(shift=2.0))).reshape(3, 6, 5)
    for i in range(3):
        np.testing.assert_array_equal(found[i], ndimage.shift(images[i], (-down, -right), order=0))


@pytest.mark.parametrize("side", [5, 6])
@pytest.mark.parametrize("turns", [1, -1])
def test_by_a_positive_angle_the_picture_turns_counterclockwise(
    turns: int, side: int, drawn: Callable[..., None]
) -> None:
    drawn(turns, 0, 0, 0, 0, 0)
    image = random_images(side, side)
    found = anew(image.reshape(1, -1), (side, side), Distort(rotation=90.0)).reshape(side, side)
    np.testing.assert_allclose(found, np.rot90(image, turns), atol=1e-5)


def test_places_are_the_modules_formula(drawn: Callable[..., None]) -> None:
    drawn(0.5, -0.25, 0.75, -1.0, 0.5, 1.0)
    distort = Distort(shift=3.0, rotation=40.0, scaling=0.2, shear=0.4)
    y, x = places(KEY, 1, 4, 6, distort, jnp.dtype("float32"))
    angle, shear, wide, high = math.radians(20), -0.1, 1.15, 0.8
    R = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    S = R @ np.array([[1, shear], [0, 1]]) @ np.diag([1 / wide, 1 / high])
    for row in range(4):
        for column in range(6):
            q = S @ np.array([column - 2.5, row - 1.5]) + np.array([1.5, 3.0])
            np.testing.assert_allclose([x[0, row, column], y[0, row, column]], q + np.array([2.5, 1.5]), atol=1e-5)


def test_width_and_height_change_by_their_factors(drawn: Callable[..., None]) -> None:
    drawn(0, 0, 1, 0, 0, 0)  # wider by a half: the middle 4 of 6 columns fill the image
    ramp = jnp.broadcast_to(jnp.arange(6, dtype=jnp.float32), (4, 6))
    found = anew(ramp.reshape(1, -1), (4, 6), Distort(scaling=0.5)).reshape(4, 6)
    np.testing.assert_allclose(found, np.tile((np.arange(6) - 2.5) / 1.5 + 2.5, (4, 1)), atol=1e-5)


@pytest.mark.parametrize(
    "distort", [Distort(shift=1.5), Distort(rotation=20.0), Distort(scaling=0.3), Distort(shear=0.5)]
)
def test_nothing_goes_beyond_the_bounds_and_all_that_is_within_occurs(distort: Distort) -> None:
    B, H, W = 2000, 3, 3
    y, x = (np.asarray(p) - 1 for p in jax.jit(lambda: places(KEY, B, H, W, distort, jnp.dtype("float32")))())
    down, right = y[:, 1, 1], x[:, 1, 1]  # where the middle looks
    to_right, to_bottom = np.stack([x[:, 1, 2] - right, y[:, 1, 2] - down]), np.stack([x[:, 2, 1], y[:, 2, 1]])
    to_bottom -= np.stack([right, down])
    asked = {
        "shift": np.concatenate([down, right]),
        "rotation": np.degrees(np.arctan2(to_right[1], to_right[0])),
        "scaling": np.concatenate(
            [1 / np.linalg.norm(to_right, axis=0) - 1, 1 / np.linalg.norm(to_bottom, axis=0) - 1]
        ),
        "shear": to_bottom[0],
    }
    if distort.shear:
        del asked["scaling"]  # of which this measures no pure one
    if distort.rotation:
        del asked["shear"]
    for name, found in asked.items():
        most = getattr(distort, name)
        assert np.abs(found).max() <= most + 1e-4
        assert found.min() <= -0.98 * most
        assert found.max() >= 0.98 * most
        assert abs(found.mean()) <= 5 * most / math.sqrt(3 * B) + 1e-5


def test_elastic_fields_are_smoothed_even_numbers_of_that_strength() -> None:
    B, n, sigma, alpha = 300, 28, 4.0, 34.0
    distort, here = Distort(alpha=alpha, sigma=sigma), np.arange(n)
    y, x = map(np.asarray, jax.jit(lambda: places(KEY, B, n, n, distort, jnp.dtype("float32")))())
    moved = np.stack([y - here[:, None], x - here[None, :]])
    # the variance of a sum of even numbers, 1/3 each, weighted by a Gaussian in two directions
    expected = alpha**2 / 3 / (4 * math.pi * sigma**2)
    np.testing.assert_allclose(moved[..., 14, 14].var(), expected, rtol=0.3)
    assert abs(moved[..., 14, 14].mean()) < 5 * math.sqrt(expected / (2 * B))
    assert np.abs(moved).max() <= alpha
    assert np.abs(np.corrcoef(moved[0].ravel(), moved[1].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (1, 1)])
def test_without_settings_images_stay_as_they_are(shape: tuple[int, ...]) -> None:
    images = random_images(3, math.prod(shape))
    np.testing.assert_array_equal(distorted(KEY, images, shape, Distort()), images)
    assert not Distort()
    assert not Distort(sigma=9.0)


def test_channels_are_distorted_alike() -> None:
    images = random_images(4, 6, 7)
    together = jnp.stack([images, 2 * images], axis=-1).reshape(4, -1)
    found = DISTORTED(KEY, together, (6, 7, 2), ALL).reshape(4, 6, 7, 2)
    alone = DISTORTED(KEY, images.reshape(4, -1), (6, 7), ALL).reshape(4, 6, 7)
    np.testing.assert_allclose(found[..., 0], alone, atol=1e-6)
    np.testing.assert_allclose(found[..., 1], 2 * alone, atol=1e-6)


def test_a_key_gives_the_same_images_and_another_others() -> None:
    images = jnp.tile(random_images(1, 42), (4, 1))
    first, again, other = (DISTORTED(key, images, (6, 7), ALL) for key in (KEY, KEY, jax.random.key(4)))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(np.concatenate([first, other]), axis=0)) == 8  # each in a way of its own
    assert first.dtype == images.dtype
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_a_distorted_image_lies_between_black_and_its_brightest_pixel(seed: int) -> None:
    images = random_images(4, 42, seed=seed)
    found = DISTORTED(jax.random.key(seed), images, (6, 7), ALL)
    assert bool(jnp.all(found >= 0))
    assert bool(jnp.all(jnp.max(found, axis=1) <= jnp.max(images, axis=1) * (1 + 1e-6)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shift": -1.0}, "distort.shift is -1.0: expected a finite number, 0 or more"),
        ({"rotation": math.nan}, "distort.rotation is nan: expected a finite number, 0 or more"),
        ({"alpha": math.inf}, "distort.alpha is inf"),
        ({"scaling": 1.0}, "distort.scaling is 1.0: expected a finite number, 0 or more, below 1"),
        ({"sigma": 0}, "distort.sigma is 0: expected a finite number, above 0"),
        ({"sigma": 1e9}, "distort.sigma is 1000000000.0: expected a finite number, above 0, up to 1000"),
        ({"shear": "1"}, "distort.shear is '1'"),
        ({"shift": True}, "distort.shift is True"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        Distort(**settings)


EXPERIMENT = Experiment(
    Network((20, 3)), Data(validation=0), train=Train(epochs=1, batch_size=203), distort=Distort(shift=1.0)
)


def test_what_is_no_image_is_one_clear_line(digits: Dataset) -> None:
    for shape in ((20,), (5, 2, 2, 1)):
        with pytest.raises(
            ExperimentError, match=r"distort distorts images, but an example of digits has shape \("
        ) as e:
            jaxmlp.fit(EXPERIMENT, replace(digits, shape=shape))
        assert "\n" not in str(e.value)
    far = replace(EXPERIMENT, distort=Distort(shift=4.0))
    with pytest.raises(ExperimentError, match="distort.shift is 4 pixels, but an image of digits has 5 x 4: expect"):
        jaxmlp.fit(far, replace(digits, shape=(5, 4)))
    with pytest.raises(
        ExperimentError, match="data.standardize is True, but distort takes all beyond an image's edges"
    ):
        replace(EXPERIMENT, data=Data(validation=0, standardize=True))


def test_training_distorts_what_it_trains_on_and_nothing_else(digits: Dataset) -> None:
    """One step of the whole training set: the loss is that of distorted images, the test's of plain ones."""
    run = jaxmlp.fit(EXPERIMENT, digits)
    plain = jaxmlp.fit(replace(EXPERIMENT, distort=Distort()), digits)
    assert run.history[0].train_loss != plain.history[0].train_loss
    batch = jaxmlp.Batch(jnp.asarray(digits.test.inputs, jnp.float32) / 255, jnp.asarray(digits.test.targets))
    assert run.result.test_loss == pytest.approx(float(jaxmlp.loss(run.params, batch, EXPERIMENT.network)), rel=1e-5)
