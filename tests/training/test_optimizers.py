import itertools
import math
from collections.abc import Iterator
from functools import partial
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmlp
from jaxmlp import Batch, Data, Dataset, Experiment, ExperimentError, Layer, Network, Optimizer, Params, Train
from jaxmlp.data.dataset import Examples, on_device
from jaxmlp.training.batches import in_order, order_of
from jaxmlp.training.config import Schedule
from jaxmlp.training.epoch import (
    Part,
    Recipe,
    TrainState,
    flip,
    initial_state,
    limited,
    train_epoch,
    train_steps,
    updated,
)
from jaxmlp.training.fit import divided
from jaxmlp.training.optimizers import ELEMENTWISE, OTHERWISE, known, make, numbers_of, rate, takes_schedule

NETWORK = Network((20, 3))  # whose matrix is held transposed while training
LONG = ((20, 4), (8, 64))  # so are these


def test_sgd_steps_against_the_gradient_by_the_learning_rate() -> None:
    optimizer, params = make(Optimizer("sgd", 0.5)), jnp.array([1.0, 2.0])
    updates, _ = optimizer.update(jnp.array([4.0, -2.0]), optimizer.init(params), params)
    np.testing.assert_allclose(updates, [-2, 1])


@pytest.mark.usefixtures("optax_promotes")
def test_adams_first_step_is_the_learning_rate_in_every_direction() -> None:
    optimizer, params = make(Optimizer("adam", 0.5)), jnp.array([1.0, 2.0])
    updates, _ = optimizer.update(jnp.array([4.0, -0.01]), optimizer.init(params), params)
    np.testing.assert_allclose(updates, [-0.5, 0.5], rtol=1e-5)


def by_optax(name: str, **settings: Any) -> optax.GradientTransformation:
    maker = getattr(optax, name) if hasattr(optax, name) else getattr(optax.contrib, name)
    made: optax.GradientTransformation = maker(0.01, **settings)
    return made


@jax.jit
def gradient_at(params: Params, batch: Batch) -> Params:
    return jaxmlp.backprop(params, batch, NETWORK)


def assert_close(ours: Any, theirs: Any, rtol: float = 1e-3) -> None:
    """Leaf by leaf, to a share of the leaf's largest number."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(np.abs(b).max()))


SETTINGS: dict[str, dict[str, float]] = {
    "adafactor": {"min_dim_size_to_factor": 4},
    "galore": {"rank": 2, "update_proj_gap": 2},
}
"""So small that a small network shows what they are."""


@pytest.fixture
def little_compiled() -> Iterator[None]:
    """Programs that run once need not be fast."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.own_precision
@pytest.mark.usefixtures("optax_promotes", "little_compiled")
@pytest.mark.parametrize("name", known())
def test_every_optimizer_trains_as_in_a_plain_loop_of_optaxs(name: str, digits: Dataset) -> None:
    chosen = SETTINGS.get(name, {})
    optimizer = Optimizer(name, 0.01, tuple((key, float(value)) for key, value in chosen.items()))
    experiment = Experiment(NETWORK, Data(validation=0), optimizer, train=Train(batch_size=64))
    train = digits.train.take(slice(192))
    recipe, state = Recipe.of(experiment, digits.shape, 3), initial_state(experiment)
    order = order_of(0, 1, 192, 64)
    batches = in_order(on_device(train), jax.device_put(order))
    trained = train_epoch(state, batches, 192, recipe=recipe)
    assert bool(trained.sound)

    plain, params = by_optax(name, **chosen), state.params
    its_state, update = plain.init(params), jax.jit(plain.update)
    for rows in order:
        batch = Batch(jnp.asarray(train.inputs[rows], jnp.float32) / 255, jnp.asarray(train.targets[rows]))
        updates, its_state = update(gradient_at(params, batch), its_state, params)
        params = optax.apply_updates(params, updates)
    moved = max(float(jnp.abs(a.kernel - b.kernel).max()) for a, b in zip(params, state.params, strict=True))
    assert moved > 0
    for a, b in zip(jax.tree.leaves(trained.state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-2 * moved)


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_elementwise_optimizer_does_not_care_which_way_a_matrix_lies(name: str) -> None:
    keys = jax.random.split(jax.random.key(0), 2 * len(LONG))
    params, gradient = (
        [jax.random.normal(k, s) for k, s in zip(half, LONG, strict=True)] for half in (keys[:2], keys[2:])
    )
    optimizer = make(Optimizer(name, 0.1))
    update = jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p)[0])
    there, here = update(flip(gradient), flip(params)), update(gradient, params)
    assert_close(flip(there), here, 1e-5)


@pytest.mark.usefixtures("optax_promotes")
def test_an_update_of_every_quantity_sees_matrices_upright_where_the_optimizer_looks_at_them() -> None:
    """The step of private and of recorded training too."""
    experiment = Experiment(NETWORK, optimizer=Optimizer("muon", 0.1))
    recipe, state = Recipe.of(experiment, (20,), 1), initial_state(experiment)
    gradient = jax.tree.map(lambda p: jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), state.params)
    after = flip(jax.jit(updated, static_argnums=2)(flip(state), flip(gradient), recipe))
    updates, its_state = jax.jit(recipe.optimizer.update)(gradient, state.optimizer, state.params)
    assert_close(after, TrainState(optax.apply_updates(state.params, updates), its_state), 1e-5)


def test_a_learning_rate_that_cannot_change_has_no_schedule() -> None:
    assert not takes_schedule("rprop")
    assert takes_schedule("adam")
    for schedule in SCHEDULES[1:]:
        with pytest.raises(
            ExperimentError, match="but optax gives rprop one learning rate for all steps: expected con"
        ):
            Experiment(NETWORK, optimizer=Optimizer("rprop"), schedule=schedule)
    Experiment(NETWORK, optimizer=Optimizer("rprop"))


def test_adam_and_its_like_are_known_and_what_needs_more_is_not() -> None:
    assert {"sgd", "adam", "adamw", "rmsprop", "lion", "muon", "adagrad", "lamb", "sm3", "radam"} <= {*known()}
    assert not {"lbfgs", "polyak_sgd", "sam", "noisy_sgd", "dpsgd", "schedule_free_sgd", "chain"} & {*known()}


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize(
    ("name", "parameters", "same"),
    [
        ("sgd", {"momentum": 0.9}, optax.sgd(0.1, momentum=0.9)),
        ("sgd", {"momentum": 0.9, "nesterov": 1}, optax.sgd(0.1, momentum=0.9, nesterov=True)),
        ("sgd", {"momentum": 0.9, "nesterov": 0}, optax.sgd(0.1, momentum=0.9)),
        ("adam", {"b1": 0.5, "b2": 0.9, "eps": 1e-3}, optax.adam(0.1, b1=0.5, b2=0.9, eps=1e-3)),
        ("adam", {"nesterov": 1}, optax.nadam(0.1)),
        ("muon", {"ns_steps": 3}, optax.contrib.muon(0.1, ns_steps=3)),
    ],
)
def test_parameters_go_by_optaxs_names(name: str, parameters: dict, same: optax.GradientTransformation) -> None:
    params = [jax.random.normal(jax.random.key(0), (3, 3)), jnp.ones(3)]
    results = []
    for optimizer in (
        make(Optimizer(name, 0.1, tuple((key, float(value)) for key, value in parameters.items()))),
        same,
    ):
        state, at = optimizer.init(params), params
        for k in range(3):
            gradient = jax.tree.map(lambda p, k=k: jnp.sin(p + k), at)
            updates, state = optimizer.update(gradient, state, at)
            at = optax.apply_updates(at, updates)
        results.append(at)
    assert_close(*results, 1e-5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "adamm"}, r"name is 'adamm' \(did you mean adam\?\): expected one of .*adam, adamax, .*sgd, "),
        (
            {"name": "lbfgs"},
            "name is 'lbfgs', which asks more of a step than the gradient: expected one of acprop, ",
        ),
        ({"name": "make_something"}, "expected one of"),
        ({"parameters": (("b1", 0.9),)}, r"optimizer.parameters has 'b1': expected sgd's: momentum \(None\), nesterov"),
        ({"name": "adam", "parameters": (("beta1", 0.9),)}, r"has 'beta1': expected adam's: b1 \(0.9\), b2 \(0.999\)"),
        ({"name": "sign_sgd", "parameters": (("b1", 0.9),)}, "expected sign_sgd's: none: it has no others"),
        (
            {"name": "adamw", "parameters": (("weight_decay", 0.1),)},
            "has 'weight_decay': expected adamw's: .*; weight decay is optimizer.weight_decay",
        ),
        ({"parameters": (("momentum", 0.9), ("momentum", 0.8))}, "expected each name once, and finite numbers"),
        ({"parameters": (("momentum", math.nan),)}, "expected each name once, and finite numbers"),
        ({"parameters": {"momentum": math.nan}}, "optimizer.parameters is momentum nan: expected each name once"),
        ({"parameters": (("momentum",),)}, "expected pairs of a name and a number, such as"),
        ({"parameters": (("momentum", "much"),)}, "expected pairs of a name and a number, such as"),
        ({"parameters": 3}, "expected pairs of a name and a number, such as"),
        ({"weight_decay": -1.0}, "optimizer.weight_decay is -1.0: expected a finite number of 0 or more, or None"),
        ({"clip_norm": math.inf}, "optimizer.clip_norm is inf: expected a finite number of 0 or more, or None"),
        ({"clip_norm": 0.0}, "optimizer.clip_norm is 0.0: expected a finite number above 0, or None"),
        ({"max_norm": 0.0}, "optimizer.max_norm is 0.0: expected a finite number above 0, or None"),
    ],
)
def test_what_optax_has_not_is_one_clear_line(settings: dict, message: str) -> None:
    with pytest.raises(ExperimentError, match=message) as caught:
        Optimizer(**settings)
    assert "\n" not in str(caught.value)


def test_parameters_are_numbers() -> None:
    for name in known():
        numbers = numbers_of(name)
        assert all(value is None or isinstance(value, int | float) for value in numbers.values()), numbers
        assert not {"learning_rate", "weight_decay"} & {*numbers}


STEPS, EPOCHS = 10, 6


def at(schedule: Schedule, step: int) -> float:
    return float(rate(Optimizer("sgd", 0.5), schedule, STEPS, EPOCHS)(jnp.int32(step)))


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize("warmup", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("name", ["constant", "cosine", "exponential", "step"])
def test_a_schedule_is_its_formula(name: str, warmup: float) -> None:
    schedule = Schedule(name, warmup, factor=0.8, every=1.5, end=0.1)
    warm = round(warmup * STEPS)
    for step in (0, 1, 4, 5, 14, 15, 16, 20, 37, 50, 59, 60):
        done = step - warm
        if done < 0:
            expected = step / warm
        elif name == "cosine":
            expected = 0.1 + 0.9 * (1 + math.cos(math.pi * done / (STEPS * EPOCHS - warm))) / 2
        else:
            powers = {"constant": 0, "exponential": done / STEPS, "step": done // 15}
            expected = 0.8 ** powers[name]
        assert at(schedule, step) == pytest.approx(0.5 * expected, rel=1e-5), step


@pytest.mark.usefixtures("optax_promotes")
def test_a_schedule_that_is_all_warmup_or_shorter_than_a_step_is_one_all_the_same() -> None:
    assert at(Schedule("cosine", warmup=60.0), 300) == pytest.approx(0.25)
    assert at(Schedule("step", factor=0.5, every=0.01), 3) == pytest.approx(0.5 / 8)


@pytest.mark.parametrize(("warmup", "epochs"), [(0.6, 1), (2.6, 3)])
def test_a_warmup_of_fewer_epochs_ends_before_the_last_update(warmup: float, epochs: int) -> None:
    of = rate(Optimizer(learning_rate=0.5), Schedule(warmup=warmup), 1, epochs)
    assert float(of(epochs - 1)) == 0.5


SCHEDULES = [Schedule(), Schedule(warmup=1.0), *(Schedule(name) for name in ("cosine", "exponential", "step"))]


@pytest.mark.parametrize(
    "optimizer",
    [
        Optimizer("sgd"),
        Optimizer("sgd", weight_decay=0.1, clip_norm=1.0),
        Optimizer("adamw", nonfinite="skip"),
        Optimizer("muon"),
        Optimizer("adafactor", weight_decay=0.1),
    ],
)
def test_the_state_is_the_same_however_long_the_schedule(optimizer: Optimizer) -> None:
    """What is made before the data are known fits what trains on them."""
    params = jax.eval_shape(partial(jaxmlp.init, network=NETWORK), jax.random.key(0))
    for schedule in [*SCHEDULES, Schedule(warmup=0.01)]:
        states = [jax.eval_shape(make(optimizer, schedule, *size).init, params) for size in ((1, 1), (10, 6))]
        assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
        assert jax.tree.leaves(states[0]) == jax.tree.leaves(states[1])


@pytest.mark.own_precision
@pytest.mark.usefixtures("optax_promotes")
def test_a_run_follows_its_schedule(digits: Dataset) -> None:
    """A step goes on by the rate of its number, also in later epochs."""
    experiment = Experiment(
        Network((20, 3)),
        Data(validation=3),
        Optimizer("sgd", 0.5),
        Train(epochs=2, batch_size=100),
        schedule=Schedule("step", factor=0.1, every=1.0),
    )
    run = jaxmlp.fit(experiment, digits)
    params, train = initial_state(experiment).params, divided(experiment, digits).dataset.train
    for epoch in (1, 2):
        for rows in order_of(0, epoch, 200, 100):
            batch = Batch(jnp.asarray(train.inputs[rows], jnp.float32) / 255, jnp.asarray(train.targets[rows]))
            gradient = jaxmlp.backprop(params, batch, experiment.network)
            params = jax.tree.map(lambda p, g, eta=0.5 * 0.1 ** (epoch - 1): p - eta * g, params, gradient)
    assert_close(run.params, params, 1e-4)


PARAMS = (Layer(jnp.array([[3.0, 0.0], [0.0, 4.0]]), jnp.array([12.0, 0.0])),)  # of norm 13


@settings(max_examples=20)
@given(most=st.floats(0.1, 30))
def test_a_gradient_is_clipped_to_the_norm_over_all_layers(most: float) -> None:
    optimizer = make(Optimizer("sgd", 1.0, clip_norm=most))
    updates, _ = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
    assert_close(updates, jax.tree.map(lambda g: -g * min(1, most / 13), PARAMS), 1e-5)


DECAYING = [name for name in known() if "weight_decay" in signature(known()[name]).parameters and name not in OTHERWISE]


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop", *DECAYING])
def test_kernels_decay_by_the_learning_rate_and_biases_do_not(name: str) -> None:
    still = jax.tree.map(jnp.zeros_like, PARAMS)
    optimizer = make(Optimizer(name, 0.5, weight_decay=0.1), Schedule(warmup=2.0), steps=1, epochs=4)
    state = optimizer.init(PARAMS)
    for eta in (0.0, 0.25, 0.5, 0.5):
        updates, state = optimizer.update(still, state, PARAMS)
        np.testing.assert_allclose(updates[0].kernel, -eta * 0.1 * PARAMS[0].kernel, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(updates[0].bias, [0, 0], atol=1e-7)


@pytest.mark.usefixtures("optax_promotes")
def test_the_default_decay_is_the_optimizers_own_and_0_is_none() -> None:
    still = jax.tree.map(jnp.zeros_like, PARAMS)
    for weight_decay, own in ((None, 1e-4), (0.0, 0)):
        optimizer = make(Optimizer("adamw", 1.0, weight_decay=weight_decay))
        updates, _ = optimizer.update(still, optimizer.init(PARAMS), PARAMS)
        np.testing.assert_allclose(updates[0].kernel, -own * PARAMS[0].kernel, rtol=1e-5)


@settings(max_examples=20)
@given(most=st.floats(0.01, 100), seed=st.integers(0, 100))
def test_units_incoming_weights_are_scaled_down_to_the_norm_and_small_ones_left_alone(most: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel = (rng.normal(size=(5, 4)) * 10.0 ** rng.integers(-2, 3, 4)).astype(np.float32)
    kernel[:, 0] = 0
    (layer,) = limited((Layer(jnp.asarray(kernel), jnp.full(4, 1e6)),), most)
    for unit in range(4):
        before, after = kernel[:, unit], np.asarray(layer.kernel[:, unit])
        norm = np.linalg.norm(before.astype(np.float64))
        if norm <= most * (1 - 1e-6):
            np.testing.assert_array_equal(after, before)
        else:
            np.testing.assert_allclose(after, before * min(1, most / norm), rtol=1e-5)
    np.testing.assert_array_equal(layer.bias, np.full(4, 1e6))


@pytest.mark.own_precision
@pytest.mark.parametrize("sizes", [(20, 4, 3), (20, 64, 8, 3)])
def test_the_norm_holds_after_every_step(sizes: tuple[int, ...], digits: Dataset) -> None:
    experiment = Experiment(Network(sizes), Data(validation=0), Optimizer("sgd", 5.0, max_norm=0.8))
    recipe, state = Recipe.of(experiment, digits.shape, 7), initial_state(experiment)
    batches = in_order(on_device(digits.train), jax.device_put(order_of(0, 1, 203, 32)))
    losses = jnp.zeros(7, jnp.float32)
    for first, last in itertools.pairwise(range(8)):
        rest, part = Examples(*(array[first:] for array in batches)), Part.of(first, last, 0, 0, 203)
        state, losses, _ = train_steps(state, losses, rest, part, recipe=recipe)
        norms = [np.linalg.norm(layer.kernel, axis=0) for layer in state.params]
        assert all((norm <= 0.8 * (1 + 1e-6)).all() for norm in norms)
    assert any((norm > 0.8 * (1 - 1e-6)).any() for norm in norms)  # some reach it
