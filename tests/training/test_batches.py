import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxmlp
from jaxmlp import Data, Dataset, Experiment, Network, StoppedError, Train
from jaxmlp.data.dataset import Examples, as_inputs
from jaxmlp.training import batches, fit
from jaxmlp.training.batches import Batches, Feed, Ordered, batch_of, order_of, shape_of
from jaxmlp.training.epoch import Recipe, initial_state, train_steps

pytestmark = pytest.mark.own_precision  # training is in float32


@given(
    seed=st.integers(0, 2**32 - 1), epoch=st.integers(1, 10**6), count=st.integers(1, 400), batch=st.integers(1, 500)
)
def test_every_example_occurs_once_an_epoch(seed: int, epoch: int, count: int, batch: int) -> None:
    order = order_of(seed, epoch, count, batch)
    assert order.shape == (-(-count // batch), batch)
    assert sorted(order.ravel()[:count]) == list(range(count))
    assert not order.ravel()[count:].any()
    np.testing.assert_array_equal(order, order_of(seed, epoch, count, batch))


def test_every_epoch_and_every_seed_has_its_own_order() -> None:
    orders = [order_of(seed, epoch, 1000, 1000) for seed in range(3) for epoch in range(1, 4)]
    assert len({order.tobytes() for order in orders}) == len(orders)


BYTES = 16 * (20 + 4)
"""Of a batch of 16 of the tests' digits."""


@pytest.fixture(params=["ahead", "gathered"])
def feed(request: pytest.FixtureRequest, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> Feed:
    """Of batches of 16, ahead five of them at a time."""
    monkeypatch.setattr(batches, "AHEAD", 5 * BYTES + 1)
    return Feed(digits.train, seed=3, batch_size=16, ahead=request.param == "ahead")


def expected(digits: Dataset, epoch: int, first: int, end: int) -> Examples:
    order = order_of(3, epoch, 203, 16)[first:end]
    return Examples(digits.train.inputs[order], digits.train.targets[order])


def test_a_feed_gives_each_part_of_any_epoch_in_its_order(feed: Feed, digits: Dataset) -> None:
    for epoch, (first, end) in itertools.product((1, 2, 1), [(0, 5), (5, 6), (8, 13), (12, 13)]):
        given_ = feed(epoch, first, end)
        assert shape_of(given_) == (feed.most, 16)
        assert_batches(given_, first, expected(digits, epoch, first, end))


def assert_batches(given_: Batches, first: int, wanted: Examples) -> None:
    weights = jnp.ones(16, jnp.float32)
    for step, (inputs, targets) in enumerate(zip(*wanted, strict=True), first):
        batch = batch_of(given_, step, first, weights)
        np.testing.assert_array_equal(batch.inputs, as_inputs(jnp.asarray(inputs)))
        np.testing.assert_array_equal(batch.targets, targets)


def test_what_a_feed_gives_holds_until_the_next_call_but_one(feed: Feed, digits: Dataset) -> None:
    parts = [(1, 0, 5), (1, 5, 10), (1, 10, 13), (2, 0, 5)]
    now = feed(*parts[0])
    for part, following in itertools.pairwise(parts):
        after = feed(*following)
        assert_batches(now, part[1], expected(digits, *part))
        now = after


def test_jax_takes_a_feeds_buffers_as_they_are(digits: Dataset) -> None:
    feed = Feed(digits.train, seed=3, batch_size=16, ahead=True)
    given_ = feed(1, 0, 5)
    for array, buffer in zip(given_, feed.buffers[0], strict=True):
        assert array.unsafe_buffer_pointer() == buffer.ctypes.data


@pytest.mark.parametrize(("ahead", "most"), [(0, 1), (BYTES - 1, 1), (BYTES, 1), (3 * BYTES, 3), (2**30, 13)])
def test_a_feed_holds_no_more_than_it_may_but_one_batch_at_least(
    ahead: int, most: int, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "AHEAD", ahead)
    assert Feed(digits.train, seed=3, batch_size=16, ahead=True).most == most


@pytest.mark.parametrize("validation", [0, 3])
def test_a_run_is_the_same_bit_for_bit_however_little_is_put_in_order_at_a_time(
    validation: int, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment(Network((20, 6, 3)), Data(validation=validation), train=Train(epochs=3, batch_size=16))
    whole = jaxmlp.fit(experiment, digits)
    monkeypatch.setattr(batches, "AHEAD", 2 * BYTES)
    little = jaxmlp.fit(experiment, digits)
    jax.tree.map(np.testing.assert_array_equal, little.params, whole.params)
    assert [record.train_loss for record in little.history] == [record.train_loss for record in whole.history]


@pytest.mark.parametrize("gradient", ["manual", "auto"])
def test_a_run_is_the_same_bit_for_bit_gathered_or_put_in_order_ahead_and_stopped_at_every_step(
    gradient: Any, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Train(epochs=3, batch_size=16, gradient=gradient)
    experiment = Experiment(Network((20, 6, 3), dropout=0.1), Data(validation=0), train=train)
    fed: set[type] = set()

    def feeding(feed: Feed, *part: int) -> Batches:
        given_ = call(feed, *part)
        fed.add(type(given_))
        return given_

    call = Feed.__call__
    monkeypatch.setattr(Feed, "__call__", feeding)
    ahead = jaxmlp.fit(experiment, digits)
    assert fed == {Examples}
    fed.clear()
    monkeypatch.setattr(Recipe, "gathers", lambda *args: True)
    gathered = jaxmlp.fit(experiment, digits)
    monkeypatch.setattr(fit, "FIRST_PORTION", 1)
    broken, breaks = None, 0
    while broken is None:
        try:
            broken = jaxmlp.fit(experiment, digits, workdir=tmp_path, resume=True, stop=lambda: True)
        except StoppedError:
            breaks += 1
    assert fed == {Ordered}
    assert breaks == 3 * 13 - 1
    for run in (gathered, broken):
        jax.tree.map(np.testing.assert_array_equal, run.params, ahead.params)
        assert [record.train_loss for record in run.history] == [record.train_loss for record in ahead.history]


@pytest.mark.parametrize("examples", [203, 90])
def test_no_buffer_is_filled_while_a_program_trains_on_it(
    examples: int, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "AHEAD", 2 * BYTES)
    happened: list[tuple[str, int]] = []

    def filling(feed: Feed, *part: int) -> Examples:
        given_ = filled(feed, *part)
        happened.append(("filled", address(given_)))
        return given_

    def training(state: Any, losses: Any, given_: Examples, *rest: Any, **named: Any) -> Any:
        happened.append(("trains", address(given_)))
        return train_steps(state, losses, given_, *rest, **named)

    def address(given_: Examples) -> int:
        return given_.inputs.unsafe_buffer_pointer()

    filled = Feed.__call__
    monkeypatch.setattr(Feed, "__call__", filling)
    monkeypatch.setattr(fit, "train_steps", training)
    data = Data(validation=0, examples=examples)
    jaxmlp.fit(Experiment(Network((20, 6, 3)), data, train=Train(epochs=3, batch_size=16)), digits)

    assert sum(what == "trains" for what, _ in happened) == sum(what == "filled" for what, _ in happened) >= 9
    trained_on, ready = None, None
    for what, where in happened:
        if what == "filled":
            assert where != trained_on
            ready = where
        else:
            assert where == ready
            trained_on = where


def test_training_goes_on_after_an_interrupted_copy(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "AHEAD", 2 * BYTES)
    experiment = Experiment(Network((20, 6, 3)), Data(validation=0), train=Train(epochs=2, batch_size=16))

    def training() -> tuple[fit.Training, Any]:
        state = initial_state(experiment)
        return fit.Training(experiment, digits.train, state.params, np.arange(203), None, digits.shape), state

    def trained(training: fit.Training, state: Any) -> Any:
        for part in training.epoch(state, 1, fit.NONE):
            state = part.state
        return state

    calm, interrupted = training(), training()
    wanted, take, calls = trained(*calm), np.take, itertools.count()

    def interrupting(*args: Any, **named: Any) -> Any:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return take(*args, **named)

    monkeypatch.setattr(np, "take", interrupting)
    with pytest.raises(KeyboardInterrupt):
        trained(*interrupted)
    jax.tree.map(np.testing.assert_array_equal, trained(*interrupted), wanted)


def test_a_part_takes_about_a_second_and_the_rest_of_an_epoch_shortens_no_other(digits: Dataset) -> None:
    experiment = Experiment(Network((20, 6, 3)), Data(validation=0), train=Train(batch_size=1))
    training = fit.Training(
        experiment, digits.train, initial_state(experiment).params, np.arange(203), None, digits.shape
    )
    for steps, seconds, then in ((64, 6.4, 10), (10, 0.1, 40), (40, 0.2, 160), (3, 1.0, 160), (3, 0.001, 640)):
        training.time(steps, seconds)
        assert training.portion == then
    training.time(203, 10.0)
    assert training.portion == 20
