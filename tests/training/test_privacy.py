import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmlp
from jaxmlp import Batch, Data, Dataset, Experiment, ExperimentError, Network, Optimizer, Privacy, Train
from jaxmlp.data.dataset import on_device
from jaxmlp.perexample import clipped_sum
from jaxmlp.training import privacy
from jaxmlp.training.epoch import Recipe, initial_state
from jaxmlp.training.optimizers import make
from jaxmlp.training.privacy import (
    PrivateTraining,
    Steps,
    calibrate,
    capacity,
    draw,
    noise_key,
    private_gradient,
    steps_of_epoch,
)

pytestmark = pytest.mark.own_precision  # training is in float32

NETWORK = Network((4, 3, 2), "tanh", "softmax", "cross_entropy")
PRIVATE = Experiment(
    Network((20, 8, 3), "tanh", "softmax", "cross_entropy"),
    Data(validation=0),
    Optimizer(learning_rate=1.0),
    Train(epochs=4, batch_size=50),
    privacy=Privacy(epsilon=8.0, delta=1e-3, clip=0.5),
)


def batch_of(B: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    inputs, targets = jnp.asarray(rng.normal(size=(B, 4))), jnp.asarray(rng.integers(0, 2, B), jnp.int32)
    return Batch(inputs, targets, jnp.asarray(rng.integers(0, 2, B), inputs.dtype))


def params_of(dtype: object) -> jaxmlp.Params:
    return jaxmlp.init(jax.random.key(5), NETWORK, dtype)


def blurred(batch: Batch, sigma: float, step: int = 0, seed: int = 0, clip: float = 0.5, B: float = 8.0) -> np.ndarray:
    """The private gradient as one vector."""
    at = np.uint32(seed), np.uint32(step)
    return flat(compiled(params_of(batch.inputs.dtype), batch, at, *map(np.float32, (clip, sigma, B))))


@jax.jit  # each operation compiled on its own would take longer than all in one program
def compiled(
    params: jaxmlp.Params, batch: Batch, at: tuple[jax.Array, jax.Array], *numbers: jax.Array
) -> jaxmlp.Params:
    return private_gradient(jaxmlp.backpropagate(params, batch, NETWORK), noise_key(*at), *numbers)


def flat(tree: object) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_without_noise_it_is_the_sum_of_gradients_clipped_one_by_one_over_the_expected_batch() -> None:
    with jax.enable_x64(True):
        batch, params = batch_of(13), params_of(jnp.float64)
        single = jax.grad(lambda p, x, y: jaxmlp.loss(p, Batch(x[None], y[None]), NETWORK))
        apiece = jax.vmap(single, in_axes=(None, 0, 0))(params, batch.inputs, batch.targets)
        g = np.concatenate([np.reshape(leaf, (13, -1)) for leaf in jax.tree.leaves(apiece)], axis=1)
        norms = np.linalg.norm(g, axis=1)
        assert norms.min() < 1.25 < norms.max()
        expected = (np.asarray(batch.weights) * np.minimum(1, 1.25 / norms)) @ g / 8
        np.testing.assert_allclose(blurred(batch, sigma=0.0, clip=1.25), expected, rtol=1e-9, atol=1e-15)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), clip=st.floats(0.01, 10), size=st.floats(0.01, 100))
def test_one_example_more_moves_the_sum_by_the_clip_at_most(seed: int, clip: float, size: float) -> None:
    with jax.enable_x64(True):
        batch, params = batch_of(6, seed), params_of(jnp.float64)
        batch = batch._replace(inputs=size * batch.inputs, weights=jnp.asarray([1.0, 0, 1, 1, 1, 1]))
        more = batch._replace(weights=jnp.ones(6))
        sums = [flat(clipped_sum(jaxmlp.backpropagate(params, b, NETWORK), clip)) for b in (batch, more)]
        assert 0 < np.linalg.norm(sums[1] - sums[0]) <= clip * (1 + 1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e20, 3e38])
def test_no_example_whatever_its_numbers_moves_the_private_gradient_by_more_than_the_clip(bad: float) -> None:
    batch = batch_of(6)._replace(weights=jnp.asarray([1.0, 1, 1, 1, 1, 0]))
    broken = batch._replace(inputs=batch.inputs.at[5].set(bad), weights=jnp.ones(6))
    apart = blurred(broken, sigma=0.0) - blurred(batch, sigma=0.0)
    assert np.linalg.norm(apart) <= 0.5 / 8 * (1 + 1e-5)


@pytest.mark.parametrize("bad", [1e20, 3e38])
def test_no_example_whatever_its_numbers_ends_a_private_run(bad: float) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 5)).astype(np.float32), rng.integers(0, 3, 120)
    x[7] = bad
    dataset = Dataset.from_arrays(x[:100], y[:100], x[100:], y[100:])
    network = Network((5, 4, 3), "tanh", "softmax", "cross_entropy")
    private = Experiment(network, Data(validation=0), train=Train(2, 20), privacy=Privacy(epsilon=8.0))
    run = jaxmlp.fit(private, dataset)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))
    assert all(np.isfinite(line.train_loss) for line in run.history)


def test_a_delta_that_would_tell_an_example_whole_is_refused() -> None:
    private = Experiment(Network((5, 3)), privacy=Privacy(epsilon=1.0, delta=0.01))
    with pytest.raises(ExperimentError, match=r"privacy.delta is 0.01, with 100 training examples: expected far less"):
        PrivateTraining.of(private, 100)


def test_the_noise_has_the_standard_deviation_that_was_asked_for() -> None:
    none, batch = blurred(batch_of(5), 0.0), batch_of(5)
    draws = jax.jit(jax.vmap(lambda step: noise_of(batch, step)))(jnp.arange(400, dtype=jnp.uint32))
    noise = np.asarray(draws) - none
    assert noise.shape == (400, none.size)
    spread = 0.5 * 3.0 / 8
    # 9,200 numbers: a standard deviation is known to 0.7 %, a mean to 1 %, of a parameter's to 3.5 % and 5 %
    assert abs(noise.std() / spread - 1) < 0.04
    assert abs(noise.mean()) < 0.06 * spread
    np.testing.assert_allclose(noise.std(axis=0), spread, rtol=0.2)
    correlations = np.corrcoef(noise.T) - np.eye(none.size)
    assert np.abs(correlations).max() < 0.3


def noise_of(batch: Batch, step: jax.Array) -> jax.Array:
    trace = jaxmlp.backpropagate(params_of(batch.inputs.dtype), batch, NETWORK)
    key = noise_key(jnp.uint32(0), step)
    gradient = private_gradient(trace, key, jnp.float32(0.5), jnp.float32(3.0), jnp.float32(8))
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])


def test_the_noise_is_a_function_of_seed_and_step_and_of_both() -> None:
    batch = batch_of(5)
    np.testing.assert_array_equal(blurred(batch, 1.0, step=3, seed=7), blurred(batch, 1.0, step=3, seed=7))
    noises = [blurred(batch, 1.0, step, seed) for step in range(3) for seed in range(3)]
    assert len({noise.tobytes() for noise in noises}) == 9


def test_no_noise_shares_its_key_with_the_initial_parameters() -> None:
    kernels = jax.random.key_data(jax.random.split(jax.random.key(3), 50))
    steps = jax.random.key_data(jax.vmap(lambda step: noise_key(jnp.uint32(3), step))(jnp.arange(50, dtype=jnp.uint32)))
    assert len({key.tobytes() for key in np.concatenate([kernels, steps])}) == 100


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 500), batch=st.integers(1, 500))
def test_a_batch_is_examples_once_at_weight_1_and_fill_at_weight_0(seed: int, count: int, batch: int) -> None:
    batch = min(batch, count)
    indices, weights = draw(seed, 1, count, batch)
    assert indices.shape == weights.shape == (max(1, round(count / batch)), capacity(count, batch))
    assert ((indices >= 0) & (indices < count)).all()
    for row, mask in zip(indices, weights, strict=True):
        drawn = row[mask > 0]
        assert len(set(drawn)) == drawn.size
        assert (mask == (np.arange(mask.size) < drawn.size)).all()
        assert not row[drawn.size :].any()
    np.testing.assert_array_equal(indices, draw(seed, 1, count, batch).indices)


def test_each_example_enters_each_batch_on_its_own_at_the_right_rate() -> None:
    count, batch, entered = 40, 4, []
    for epoch in range(1, 401):
        indices, weights = draw(0, epoch, count, batch)
        entered += [np.bincount(row[mask > 0], minlength=count) for row, mask in zip(indices, weights, strict=True)]
    entered = np.array(entered)  # 4,000 batches of 40
    sizes = entered.sum(axis=1)
    assert abs(entered.mean() - 0.1) < 0.003  # four standard deviations
    np.testing.assert_allclose(entered.mean(axis=0), 0.1, atol=0.024)  # five
    assert np.abs(np.corrcoef(entered.T) - np.eye(count)).max() < 0.09  # five and a half
    # independence again: sizes are binomial, and so neither fixed nor without empty and large ones
    assert abs(sizes.var() / (count * 0.1 * 0.9) - 1) < 0.15
    assert abs((sizes == 0).mean() / 0.9**40 - 1) < 0.5
    assert sizes.max() >= 10
    assert (entered[0] != entered[10]).any()


@pytest.mark.parametrize(("count", "batch"), [(60_000, 2048), (60_000, 32), (1000, 1), (1000, 999), (200, 16)])
def test_more_than_the_capacity_is_drawn_less_than_once_in_ten_to_the_twentieth(count: int, batch: int) -> None:
    q, most = batch / count, capacity(count, batch)
    ks = np.arange(most + 1, count + 1)
    logs = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in ks]
    logs += ks * math.log(q) + (count - ks) * math.log1p(-q)
    assert np.exp(logs).sum() < 1e-20


def test_a_whole_data_set_is_drawn_for_certain() -> None:
    indices, weights = draw(0, 1, 7, 7)
    np.testing.assert_array_equal(indices, [np.arange(7)])
    assert weights.all()


def test_a_draw_beyond_the_capacity_is_cut_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy, "capacity", lambda count, batch_size: 3)
    indices, weights = draw(0, 1, 1000, 50)
    assert indices.shape == (20, 3)
    assert weights.all()


@pytest.mark.parametrize(
    ("q", "sigma", "steps", "published"),
    [
        (0.01, 4.0, 10_000, 1.26),  # Abadi 2016, section 5.1: moments accountant
        (256 / 60_000, 1.1, 60 * 234, 3.01),  # the README of TensorFlow Privacy's tutorials, by RDP
    ],
)
def test_the_epsilon_is_below_what_looser_accountants_published(
    q: float, sigma: float, steps: int, published: float
) -> None:
    found = Steps(q, sigma, 1e-5).spent(steps)
    assert 0.7 * published < found < published


def test_a_single_full_batch_is_the_gaussian_mechanism() -> None:
    # Balle and Wang 2018, theorem 8: delta = normal(1/(2s) - es) - e^e normal(-1/(2s) - es)
    sigma = 2.0
    epsilon = Steps(1.0, sigma, 1e-5, grid=1e-4).spent(1)

    def normal(t: float) -> float:
        return math.erfc(-t / math.sqrt(2)) / 2

    a, b = 1 / (2 * sigma), epsilon * sigma
    assert normal(a - b) - math.exp(epsilon) * normal(-a - b) == pytest.approx(1e-5, rel=1e-3)


def test_every_step_spends_and_less_noise_spends_more() -> None:
    spent = [Steps(0.02, 1.5, 1e-5).spent(steps) for steps in (1, 10, 100, 1000)]
    assert spent == sorted(set(spent))
    assert Steps(0.02, 1.4, 1e-5).spent(100) > spent[2] > Steps(0.02, 1.6, 1e-5).spent(100)
    assert Steps(0.03, 1.5, 1e-5).spent(100) > spent[2]


@pytest.mark.parametrize(
    ("epsilon", "delta", "q", "steps"),
    [
        (0.5, 1e-5, 0.03, 900),
        (8.0, 1e-5, 0.03, 900),
        (2.0, 1e-3, 1.0, 20),
        (30.0, 1e-6, 0.001, 100),
        (0.05, 1e-5, 0.01, 50),
    ],
)
def test_the_calibrated_noise_spends_the_epsilon_asked_for_and_no_more(
    epsilon: float, delta: float, q: float, steps: int
) -> None:
    found = calibrate(epsilon, delta, q, steps)
    assert 0.995 * epsilon < found.spent(steps) <= epsilon
    fine = replace(found, grid=found.grid / 4)  # on which the bound is closer
    assert fine.spent(steps) <= epsilon
    assert replace(found, sigma=0.98 * found.sigma).spent(steps) > epsilon


def test_a_private_run_learns_in_one_program_and_spends_what_it_may(digits: Dataset, tmp_path: Path) -> None:
    privacy.train_private_epoch.for_cpu.clear_cache()
    run = jaxmlp.fit(PRIVATE, digits, workdir=tmp_path / "run")
    assert privacy.train_private_epoch.for_cpu._cache_size() == 1
    jaxmlp.fit(replace(PRIVATE, privacy=Privacy(epsilon=2.0, delta=1e-3, clip=0.25)), digits)
    assert privacy.train_private_epoch.for_cpu._cache_size() == 1
    assert run.result.test_accuracy > 0.8
    spent = [record.epsilon for record in run.history]
    assert spent == sorted(set(spent))
    assert 7.9 < spent[-1] <= 8
    assert run.result.epsilon == spent[-1]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epsilon"] for line in lines] == spent
    assert json.loads((tmp_path / "run" / "result.json").read_text())["epsilon"] == spent[-1]
    assert jaxmlp.load(tmp_path / "run").experiment == PRIVATE


def test_a_run_without_privacy_says_nothing_of_it_and_needs_no_accounting(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    ordinary = replace(PRIVATE, privacy=Privacy(), train=Train(epochs=1))
    run = jaxmlp.fit(ordinary, digits, workdir=tmp_path / "run")
    assert run.result.epsilon is run.history[0].epsilon is None
    assert "epsilon" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "epsilon" not in (tmp_path / "run" / "result.json").read_text()
    assert jaxmlp.load(tmp_path / "run").result == run.result


def test_a_seed_gives_the_same_private_run_and_privacy_changes_it(digits: Dataset) -> None:
    short = replace(PRIVATE, train=Train(epochs=2, batch_size=50))
    runs = [jaxmlp.fit(short, digits) for _ in range(2)]
    jax.tree.map(np.testing.assert_array_equal, runs[0].params, runs[1].params)
    other = jaxmlp.fit(replace(short, privacy=replace(short.privacy, epsilon=1.0)), digits)
    assert (flat(other.params) != flat(runs[0].params)).all()


@jax.jit
def pass_of(params: jaxmlp.Params, batch: Batch) -> jaxmlp.Trace:
    return jaxmlp.backpropagate(params, batch, PRIVATE.network)


def test_a_private_epoch_is_its_steps_one_by_one(digits: Dataset) -> None:
    private = privacy.PrivateTraining.of(PRIVATE, digits.train.size)
    assert private is not None
    optimizer = make(PRIVATE.optimizer)
    state = initial_state(PRIVATE)
    params, examples = state.params, on_device(digits.train)
    trained, cost = private.epoch(state, examples, 3, Recipe(PRIVATE.network, optimizer))
    params, (indices, weights) = initial_state(PRIVATE).params, draw(0, 3, 203, 50)
    losses, steps = 0.0, steps_of_epoch(203, 50)
    assert steps == 4
    for t in range(steps):
        members = indices[t][weights[t] > 0]
        batch = Batch(
            *map(jnp.asarray, (np.float32(digits.train.inputs[members] / 255), digits.train.targets[members]))
        )
        trace = pass_of(params, batch)
        numbers = (jnp.float32(n) for n in (0.5, private.steps.sigma, 50))
        gradient = private_gradient(trace, noise_key(jnp.uint32(0), jnp.uint32(2 * steps + t)), *numbers)
        params = jax.tree.map(lambda p, g: p - g, params, gradient)
        losses += float(trace.losses.sum())
    np.testing.assert_allclose(flat(trained.params), flat(params), rtol=1e-4, atol=1e-5)
    assert float(cost) == pytest.approx(losses / weights.sum(), rel=1e-5)


def test_the_missing_package_is_named_in_a_line(monkeypatch: pytest.MonkeyPatch, digits: Dataset) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(
        ExperimentError, match=r"needs the package dp-accounting .*: pip install dp-accounting"
    ) as raised:
        jaxmlp.fit(PRIVATE, digits)
    assert "\n" not in str(raised.value)


def test_an_epsilon_that_no_noise_reaches_is_refused_before_anything_is_written(
    digits: Dataset, tmp_path: Path
) -> None:
    strict = replace(PRIVATE, privacy=Privacy(epsilon=1e-9, delta=1e-12))
    with pytest.raises(
        ExperimentError, match=r"privacy.epsilon is 1e-09: no noise is enough for 16 steps.*larger epsilon"
    ):
        jaxmlp.fit(strict, digits, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_private_experiment_is_not_compared(digits: Dataset) -> None:
    with pytest.raises(
        ExperimentError, match=r"privacy.epsilon is 8, but the automatic gradient.*--privacy.epsilon None"
    ):
        jaxmlp.compare(PRIVATE, digits)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Privacy(epsilon=0.0), "privacy.epsilon is 0.0: expected a number above 0, up to 10000"),
        (lambda: Privacy(epsilon=-1), "privacy.epsilon is -1: expected a number above 0, up to 10000"),
        (lambda: Privacy(epsilon=math.inf), "privacy.epsilon is inf"),
        (lambda: Privacy(epsilon="2"), "privacy.epsilon is '2'"),
        (lambda: Privacy(delta=0.0), "privacy.delta is 0.0: expected a number between 0 and 1"),
        (lambda: Privacy(delta=1.0), "privacy.delta is 1.0: expected a number between 0 and 1"),
        (lambda: Privacy(clip=0.0), "privacy.clip is 0.0: expected a number from 1e-6 to 1e6"),
        (lambda: Privacy(clip=math.nan), "privacy.clip is nan"),
        (
            lambda: replace(PRIVATE, train=Train(gradient="auto")),
            "train.gradient is 'auto', but privacy.epsilon is 8: expected manual",
        ),
        (lambda: replace(PRIVATE, privacy=8.0), "privacy is 8.0: expected a jaxmlp.Privacy"),
    ],
)
def test_a_privacy_that_cannot_be_is_refused_in_a_line(make: object, message: str) -> None:
    with pytest.raises(ExperimentError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)
