import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jaxmlp
import jaxmlp.flax as border
from jaxmlp import DataError, Layer, Network, NetworkError, Optimizer, Params
from jaxmlp.training.epoch import TrainState
from jaxmlp.training.optimizers import make

NETWORK = Network((5, 4, 6, 3), "tanh", "softmax", "cross_entropy")
PARAMS = jaxmlp.init(jax.random.key(0), NETWORK)
X = jax.random.normal(jax.random.key(1), (7, 5), jnp.float32)


class Linen(nn.Module):
    """As in Flax's documentation."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.tanh(nn.Dense(features=4)(x))
        x = nn.tanh(nn.Dense(features=6)(x))
        return nn.softmax(nn.Dense(features=3)(x))


class Nnx(nnx.Module):
    """As in Flax's documentation."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear1 = nnx.Linear(5, 4, rngs=rngs)
        self.linear2 = nnx.Linear(4, 6, rngs=rngs)
        self.linear3 = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.softmax(self.linear3(nnx.tanh(self.linear2(nnx.tanh(self.linear1(x))))))


def random_params(sizes: list[int], seed: int, dtype: str) -> Params:
    """Of every size of number, biases too."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape) * 10.0 ** rng.integers(-4, 5, shape), dtype)

    return tuple(Layer(draw(n, m), draw(m)) for n, m in itertools.pairwise(sizes))


def assert_exact(ours: Any, theirs: Any) -> None:
    """The same structure, types and bits."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


RANDOM = {
    "sizes": st.lists(st.integers(1, 9), min_size=2, max_size=12),  # Dense_10 comes before Dense_2 in the alphabet
    "seed": st.integers(0, 10_000),
    "dtype": st.sampled_from(["float16", "bfloat16", "float32"]),
}


def test_a_linen_stack_with_the_same_parameters_gives_the_same_outputs() -> None:
    theirs = Linen().apply(border.to_linen(PARAMS), X)
    np.testing.assert_allclose(jaxmlp.forward(PARAMS, X, NETWORK), theirs, rtol=1e-5)
    variables = Linen().init(jax.random.key(3), X)
    params = border.from_linen(variables, NETWORK)
    np.testing.assert_allclose(jaxmlp.forward(params, X, NETWORK), Linen().apply(variables, X), rtol=1e-5)
    assert_exact(border.to_linen(params), variables)


def test_an_nnx_stack_with_the_same_parameters_gives_the_same_outputs() -> None:
    model = Nnx(nnx.Rngs(0))
    layers = (model.linear1, model.linear2, model.linear3)
    theirs = model(X)
    np.testing.assert_allclose(jaxmlp.forward(border.from_nnx(layers, NETWORK), X, NETWORK), theirs, rtol=1e-5)
    model.linear1, model.linear2, model.linear3 = border.to_nnx(PARAMS)
    np.testing.assert_allclose(jaxmlp.forward(PARAMS, X, NETWORK), model(X), rtol=1e-5)


@settings(max_examples=10)
@given(**RANDOM)
def test_there_and_back_through_linen_is_exact(sizes: list[int], seed: int, dtype: str) -> None:
    params = random_params(sizes, seed, dtype)
    assert_exact(border.from_linen(border.to_linen(params), Network(tuple(sizes))), params)


@settings(max_examples=8)
@given(**RANDOM)
def test_there_and_back_through_nnx_is_exact(sizes: list[int], seed: int, dtype: str) -> None:
    params = random_params(sizes, seed, dtype)
    assert_exact(border.from_nnx(border.to_nnx(params), Network(tuple(sizes))), params)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(**RANDOM)
def test_there_and_back_through_a_file_is_exact_and_flax_reads_it(
    sizes: list[int], seed: int, dtype: str, tmp_path: Path
) -> None:
    params, file = random_params(sizes, seed, dtype), tmp_path / "params.msgpack"
    border.save(file, params)
    assert_exact(border.load(file, Network(tuple(sizes))), params)
    variables = border.to_linen(params)
    assert_exact(serialization.msgpack_restore(file.read_bytes()), variables)
    empty = jax.tree.map(jnp.zeros_like, variables)
    assert_exact(serialization.from_bytes(empty, file.read_bytes()), variables)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_file_that_flax_wrote_is_read(tmp_path: Path) -> None:
    variables = Linen().init(jax.random.key(3), X)
    (tmp_path / "theirs").write_bytes(serialization.to_bytes(variables))
    assert_exact(border.load(tmp_path / "theirs", NETWORK), border.from_linen(variables, NETWORK))


def test_what_a_run_learned_goes_through_a_file(digits: jaxmlp.Dataset, tmp_path: Path) -> None:
    network = Network((20, 6, 3))
    experiment = jaxmlp.Experiment(network, jaxmlp.Data(validation=0), train=jaxmlp.Train(epochs=1))
    run = jaxmlp.fit(experiment, digits)
    border.save(tmp_path / "run", run.params)
    assert_exact(border.load(tmp_path / "run", network), run.params)


def test_every_damaged_file_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "params.msgpack"
    small = Network((2, 1))
    border.save(file, jaxmlp.init(jax.random.key(0), small))
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:n] for n in range(len(whole))] + [whole + b"\0"]
    for _ in range(400):
        content = bytearray(whole)
        content[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(content))
    refused: list[str] = []
    for content in damaged:
        file.write_bytes(content)
        try:
            params = border.load(file, small)
        except (DataError, NetworkError) as error:
            refused.append(str(error))
        else:  # a bit of a number
            assert [leaf.shape for leaf in jax.tree.leaves(params)] == [(2, 1), (1,)]
    assert len(refused) > len(whole)
    for message in refused:
        assert message.startswith(f"{file}: ")
        assert "\n" not in message


def test_a_file_that_is_not_there_or_can_not_be_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: can't be read: No such file or directory"):
        border.load(tmp_path / "nowhere", NETWORK)
    (tmp_path / "file").touch()
    for name in ("file/params", "n" * 253, ""):
        with pytest.raises(DataError, match="can't be written: "):
            border.save(tmp_path / name if name else "", PARAMS)
    (tmp_path / "file").unlink()
    with pytest.raises(DataError, match="params: can't be written: No such file or directory"):
        border.save(tmp_path / "nowhere" / "params", PARAMS)
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder: can't be written: Is a directory"):
        border.save(tmp_path / "folder", PARAMS)
    assert os.listdir(tmp_path) == ["folder"]  # noqa: PTH208


def altered(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    variables = jax.tree.map(np.asarray, border.to_linen(PARAMS))
    change(variables["params"])
    return variables


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (border.to_linen(PARAMS)["params"], "variables has Dense_0, Dense_1, Dense_2: expected params"),
        ([], "variables is a list: expected a dictionary of params"),
        ({"params": {}}, r"variables\['params'\] has nothing: expected Dense_0, Dense_1, Dense_2"),
        (altered(lambda p: p.pop("Dense_1")), "has Dense_0, Dense_2: expected Dense_0, Dense_1, Dense_2"),
        (altered(lambda p: p.update(Dense_3=p["Dense_2"])), "Dense_3: expected Dense_0, Dense_1, Dense_2"),
        (altered(lambda p: p["Dense_1"].pop("bias")), "Dense_1 of the variables has kernel: expected kernel, bias"),
        (altered(lambda p: p.update(Dense_1=3)), "Dense_1 of the variables is a int: expected a dictionary"),
        (
            altered(lambda p: p["Dense_1"].update(kernel=np.zeros((6, 4)))),
            r"the kernel of Dense_1 has shape \(6, 4\): expected \(4, 6\), as of 5-4-6-3",
        ),
        (altered(lambda p: p["Dense_1"].update(bias=0.0)), r"the bias of Dense_1 is a float: expected \(6,\)"),
        (altered(lambda p: p["Dense_2"].update(bias=np.arange(3))), "the bias of Dense_2 is int64: expected a float"),
    ],
)
def test_variables_that_do_not_fit_are_refused(variables: Any, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        border.from_linen(variables, NETWORK)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_parameters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"params is a str: expected a tuple of Layers, such as a run's .params"):
        border.save(tmp_path / "file", "run")
    assert not [*tmp_path.iterdir()]


@pytest.mark.usefixtures("unchecked")
def test_modules_that_do_not_fit_are_refused() -> None:
    first, second, third = border.to_nnx(PARAMS)
    with pytest.raises(NetworkError, match="2 layers are given: expected 3, those of 5-4-6-3"):
        border.from_nnx((first, second), NETWORK)
    with pytest.raises(NetworkError, match=r"the kernel of layers\[0\] has shape \(4, 6\): expected \(5, 4\)"):
        border.from_nnx((second, first, third), NETWORK)
    with pytest.raises(NetworkError, match=r"layers\[2\] is a custom_jvp: expected an nnx.Linear"):
        border.from_nnx((first, second, nnx.relu), NETWORK)
    unbiased = nnx.Linear(4, 6, use_bias=False, rngs=nnx.Rngs(0))
    with pytest.raises(NetworkError, match=r"the bias of layers\[1\] is a NoneType: expected \(6,\)"):
        border.from_nnx((first, unbiased, third), NETWORK)


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize(
    "optimizer",
    [
        Optimizer("sgd", 0.1, (("momentum", 0.9),)),
        Optimizer("adamw", 0.01, nonfinite="skip"),
        Optimizer("adam", 0.01, weight_decay=0.1, clip_norm=1.0),
    ],
    ids=["momentum", "adamw", "chained"],
)
def test_a_training_state_goes_through_flaxs_serialization(optimizer: Optimizer) -> None:
    optax_s = make(optimizer)
    start = TrainState(PARAMS, optax_s.init(PARAMS))
    gradient = jax.tree.map(jnp.ones_like, PARAMS)
    updates, state = optax_s.update(gradient, start.optimizer, start.params)
    moved = TrainState(optax.apply_updates(PARAMS, updates), state)
    assert_exact(serialization.from_bytes(start, serialization.to_bytes(moved)), moved)
    as_dict = serialization.to_state_dict(moved)
    assert as_dict["params"]["2"]["bias"].shape == (3,)
    assert_exact(serialization.from_state_dict(start, as_dict), moved)


def test_importing_the_package_and_training_imports_no_flax() -> None:
    code = "import sys, jaxmlp.training.fit, jaxmlp.training.run; print('flax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
