"""The contestants of benchmarks/compare.py: one training loop each, written as its library's documentation writes it.

    python -m benchmarks.contestants NAME TASK

trains `TASK`, a line of JSON, in a process of its own and answers on the standard output, a line of JSON each: what the
process that started it asks for on the standard input. Nothing is imported that the contestant doesn't need.
"""

import gzip
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MNIST = Path(__file__).parents[1] / "jaxmlp" / "data" / "mnist"


class Task(NamedTuple):
    """What all contestants of a cell train alike: gradient descent on sigmoid + squared error, or relu + softmax."""

    sizes: tuple[int, ...]
    batch: int
    relu: bool
    rate: float
    examples: int
    """Of the 60,000, so many are trained on in a turn, in an order drawn anew."""
    threads: int


class Trainer(NamedTuple):
    """What a contestant does."""

    epoch: Callable[[int], None]
    """Trains one turn, whose number seeds its order, and waits for its end."""
    accuracy: Callable[[], float]
    """On the 10,000 test images."""


def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The training images (uint8, 784 in a row), their labels, the test images, their labels."""
    read = [gzip.decompress((MNIST / f"{name}.gz").read_bytes()) for name in (
        "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
    )]  # fmt: skip
    x, y, x_test, y_test = (np.frombuffer(raw, np.uint8, offset=16 if i % 2 == 0 else 8) for i, raw in enumerate(read))
    return x.reshape(-1, 784), y.astype(np.int32), x_test.reshape(-1, 784), y_test.astype(np.int32)


def scaled() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same with images in float32 from 0 to 1."""
    x, y, x_test, y_test = arrays()
    return np.float32(x) / np.float32(255), y, np.float32(x_test) / np.float32(255), y_test


def jaxmlp(task: Task, gradient: str) -> Trainer:
    """This package, by the epochs that `jaxmlp.fit` trains."""
    import jaxmlp
    from jaxmlp.training.epoch import evaluate, initial_state, portions
    from jaxmlp.training.fit import NONE, Training

    dataset = jaxmlp.load_data("mnist")
    names = ("relu", "softmax", "cross_entropy") if task.relu else ("sigmoid", "sigmoid", "squared_error")
    network = jaxmlp.Network(task.sizes, *names)
    train = jaxmlp.Train(epochs=10**9, batch_size=task.batch, gradient=gradient)
    experiment = jaxmlp.Experiment(network, optimizer=jaxmlp.Optimizer("sgd", task.rate), train=train)
    state, test, done = initial_state(experiment), None, 0
    examples = dataset.train.take(slice(task.examples))
    training = Training(experiment, examples, state.params, np.arange(task.examples), None, dataset.shape)

    def epoch(turn: int) -> None:  # one after the other, whatever the turn, as each is put in order during the last
        nonlocal state, done
        done += 1
        for part in training.epoch(state, done, NONE):
            state = part.state

    def accuracy() -> float:
        nonlocal test
        test = test or portions(dataset.test)
        _, found = evaluate(state.params, test, network=network)
        assert found is not None
        return found

    return Trainer(epoch, accuracy)


def scan(task: Task) -> Trainer:
    """JAX alone: an epoch in one compiled `lax.scan` over `jax.grad`, data on the device, parameters donated."""
    from functools import partial

    import jax
    import jax.numpy as jnp

    x, y, x_test, y_test = map(jnp.asarray, scaled())
    rng, rate = np.random.default_rng(0), task.rate
    params = [
        (jnp.float32(rng.normal(0, (1 + task.relu) ** 0.5 / n**0.5, (n, m))), jnp.zeros(m))
        for n, m in itertools.pairwise(task.sizes)
    ]

    def outputs(params: Any, a: Any) -> Any:
        for l, (kernel, bias) in enumerate(params, start=1):
            z = a @ kernel + bias
            hidden = jax.nn.relu if l < len(params) else lambda z: z
            a = hidden(z) if task.relu else jax.nn.sigmoid(z)
        return a

    def cost(params: Any, x: Any, y: Any) -> Any:
        found, wanted = outputs(params, x), jax.nn.one_hot(y, 10)
        each = -wanted * jax.nn.log_softmax(found) if task.relu else (found - wanted) ** 2
        return each.sum(axis=-1).mean()

    @partial(jax.jit, donate_argnums=0)
    def train(params: Any, x: Any, y: Any, order: Any) -> Any:
        def step(params: Any, chosen: Any) -> Any:
            gradient = jax.grad(cost)(params, x[chosen], y[chosen])
            return jax.tree.map(lambda p, g: p - rate * g, params, gradient), None

        return jax.lax.scan(step, params, order)[0]

    predict = jax.jit(lambda params, images: outputs(params, images).argmax(-1))

    def epoch(turn: int) -> None:
        nonlocal params
        order = np.random.default_rng(turn).permutation(task.examples)
        full = task.examples - task.examples % task.batch
        params = train(params, x, y, order[:full].reshape(-1, task.batch))
        if full < task.examples:
            params = train(params, x, y, order[None, full:])
        jax.block_until_ready(params)

    return Trainer(epoch, lambda: float(np.mean(predict(params, x_test) == y_test)))


def flax(task: Task) -> Trainer:
    """Flax linen and optax: a jitted train_step, called from a Python loop."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import linen as nn
    from flax.training.train_state import TrainState

    x, y, x_test, y_test = scaled()

    class MLP(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for n in task.sizes[1:-1]:
                x = nn.Dense(n)(x)
                x = nn.relu(x) if task.relu else nn.sigmoid(x)
            x = nn.Dense(task.sizes[-1])(x)
            return x if task.relu else nn.sigmoid(x)

    model = MLP()
    params = model.init(jax.random.key(0), jnp.ones((1, 784)))["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.sgd(task.rate))

    @jax.jit
    def train_step(state: Any, images: Any, labels: Any) -> Any:
        def loss_fn(params: Any) -> Any:
            outputs = state.apply_fn({"params": params}, images)
            if task.relu:
                return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()
            return jnp.sum((outputs - jax.nn.one_hot(labels, 10)) ** 2, axis=-1).mean()

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    predict = jax.jit(lambda params, images: model.apply({"params": params}, images).argmax(-1))

    def epoch(turn: int) -> None:
        nonlocal state
        order = np.random.default_rng(turn).permutation(task.examples)
        for first in range(0, task.examples, task.batch):
            chosen = order[first : first + task.batch]
            state, _ = train_step(state, x[chosen], y[chosen])
        jax.block_until_ready(state.params)

    return Trainer(epoch, lambda: float(np.mean(np.asarray(predict(state.params, x_test)) == y_test)))


def pytorch(task: Task, compiled: bool) -> Trainer:
    """PyTorch: indexing in place of a DataLoader, which would be slower."""
    import torch

    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    x, y, x_test, y_test = (torch.from_numpy(array) for array in scaled())
    y, one_hot = y.long(), torch.eye(10)
    layers: list[Any] = []
    for n, m in itertools.pairwise(task.sizes):
        layers += [torch.nn.Linear(n, m), torch.nn.ReLU() if task.relu else torch.nn.Sigmoid()]
    model: Any = torch.nn.Sequential(*(layers[:-1] if task.relu else layers))
    optimizer = torch.optim.SGD(model.parameters(), task.rate)
    run = torch.compile(model) if compiled else model

    def epoch(turn: int) -> None:
        model.train()
        order = torch.from_numpy(np.random.default_rng(turn).permutation(task.examples))
        for chosen in order.split(task.batch):
            optimizer.zero_grad()
            outputs = run(x[chosen])
            if task.relu:
                cost = torch.nn.functional.cross_entropy(outputs, y[chosen])
            else:
                cost = ((outputs - one_hot[y[chosen]]) ** 2).sum() / len(chosen)
            cost.backward()
            optimizer.step()

    def accuracy() -> float:
        with torch.no_grad():
            return float((model(x_test).argmax(-1) == y_test).float().mean())

    return Trainer(epoch, accuracy)


def sklearn(task: Task) -> Trainer:
    """scikit-learn's MLPClassifier, which knows no squared error: softmax and cross-entropy in its place.

    An epoch is a `fit` of its own, which looks at all its data first: up to 1.3 of an epoch's time among many of one
    `fit` (784-16-16-10, batches of 1,024), about the same elsewhere.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore", ConvergenceWarning)  # after one epoch, each time
    x, y, x_test, y_test = scaled()
    order = np.random.RandomState(0)  # of a number, it would begin each epoch in the same order
    model = MLPClassifier(
        task.sizes[1:-1], activation="relu" if task.relu else "logistic", solver="sgd", learning_rate_init=task.rate,
        batch_size=task.batch, alpha=0.0, momentum=0.0, nesterovs_momentum=False, max_iter=1, warm_start=True,
        random_state=order, tol=0.0,
    )  # fmt: skip

    def epoch(turn: int) -> None:
        model.fit(x[: task.examples], y[: task.examples])

    return Trainer(epoch, lambda: float(model.score(x_test, y_test)))


def keras(task: Task) -> Trainer:
    """Keras on JAX: compile and fit."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    keras.utils.set_random_seed(0)
    x, y, x_test, y_test = scaled()
    hidden, output = ("relu", "softmax") if task.relu else ("sigmoid", "sigmoid")
    layers = [keras.layers.Dense(n, activation=hidden) for n in task.sizes[1:-1]]
    model = keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10, activation=output)])
    # its mean squared error is a mean over the 10 outputs, too: ten times the rate makes the same step
    rate, loss = (task.rate, "sparse_categorical_crossentropy") if task.relu else (10 * task.rate, "mean_squared_error")
    model.compile(optimizer=keras.optimizers.SGD(rate), loss=loss)
    targets = y if task.relu else np.eye(10, dtype=np.float32)[y]
    x, targets = x[: task.examples], targets[: task.examples]

    def epoch(turn: int) -> None:
        model.fit(x, targets, batch_size=task.batch, epochs=1, shuffle=True, verbose=0)

    def accuracy() -> float:
        return float(np.mean(model.predict(x_test, batch_size=1000, verbose=0).argmax(-1) == y_test))

    return Trainer(epoch, accuracy)


def numpy(task: Task) -> Trainer:
    """NumPy, a batch at a time, written by hand."""
    x, y, x_test, y_test = scaled()
    wanted, rng = np.eye(10, dtype=np.float32)[y], np.random.default_rng(0)
    params = [
        [np.float32(rng.normal(0, (1 + task.relu) ** 0.5 / n**0.5, (n, m))), np.zeros(m, np.float32)]
        for n, m in itertools.pairwise(task.sizes)
    ]
    rate = np.float32(task.rate)

    def forward(x: np.ndarray) -> list[np.ndarray]:
        a = [x]
        for l, (kernel, bias) in enumerate(params, start=1):
            z = a[-1] @ kernel
            z += bias
            if not task.relu:
                a.append(1 / (1 + np.exp(-z)))
            elif l < len(params):
                a.append(np.maximum(z, 0, out=z))
            else:
                e = np.exp(z - z.max(axis=1, keepdims=True))
                a.append(e / e.sum(axis=1, keepdims=True))
        return a

    def epoch(turn: int) -> None:
        order = np.random.default_rng(turn).permutation(task.examples)
        for first in range(0, task.examples, task.batch):
            chosen = order[first : first + task.batch]
            a = forward(x[chosen])
            delta = (a[-1] - wanted[chosen]) * np.float32((1 if task.relu else 2) / len(chosen))
            if not task.relu:
                delta *= a[-1] * (1 - a[-1])
            for l in reversed(range(len(params))):
                kernel, bias = params[l]
                before = delta @ kernel.T if l else None
                kernel -= rate * (a[l].T @ delta)
                bias -= rate * delta.sum(axis=0)
                if before is not None:
                    delta = before * ((a[l] > 0) if task.relu else a[l] * (1 - a[l]))

    return Trainer(epoch, lambda: float(np.mean(forward(x_test)[-1].argmax(-1) == y_test)))


CONTESTANTS: dict[str, tuple[str | None, Callable[[Task], Trainer]]] = {
    "jaxmlp manual": (None, lambda task: jaxmlp(task, "manual")),
    "jaxmlp auto": (None, lambda task: jaxmlp(task, "auto")),
    "NumPy by hand": (None, numpy),
    "JAX scan": (None, scan),
    "Flax + optax": ("flax", flax),
    "PyTorch": ("torch", lambda task: pytorch(task, compiled=False)),
    "PyTorch compiled": ("torch", lambda task: pytorch(task, compiled=True)),
    "scikit-learn": ("sklearn", sklearn),
    "Keras on JAX": ("keras", keras),
}
"""Each with the module that must be installed for it."""


def main() -> None:
    """Answers the lines `{"train": TURN, "least": SECONDS}` and `{"until": ACCURACY, "most": EPOCHS}`.

    The first trains as many epochs as begin in so many seconds, and answers how long one takes: one alone may be so
    short that it is over before caches and threads have woken from the turns of others.
    """
    name, task = sys.argv[1], Task(**json.loads(sys.argv[2]))
    task = task._replace(sizes=tuple(task.sizes))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    trainer = CONTESTANTS[name][1](task)
    for line in sys.stdin:
        asked, found = json.loads(line), {}
        if "train" in asked:
            started, epochs, seconds = time.perf_counter(), 0, 0.0
            while not epochs or seconds < asked["least"]:
                trainer.epoch(asked["train"] + epochs)
                epochs, seconds = epochs + 1, time.perf_counter() - started
            found["seconds"] = seconds / epochs
        else:
            for epoch in range(1, asked["most"] + 1):
                trainer.epoch(epoch)
                found |= {"epochs": epoch, "accuracy": trainer.accuracy()}
                if found["accuracy"] >= asked["until"]:
                    break
        found["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
