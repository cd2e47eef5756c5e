"""The time of an epoch of the lesson's network, side by side with NumPy written by hand and a PyTorch loop.

    pip install torch      # optional
    python benchmarks/epoch.py

784-16-16-10, sigmoid, squared error, batches of 32, all 60,000 training images, shuffled anew every epoch. The
contestants take turns, an epoch each, in one process; the first two turns (compilation, warm-up) don't count. Images
are bytes in memory for jaxmlp, which converts each batch inside the compiled step, and float32 for the others.
"""

import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

import jaxmlp
from jaxmlp.data.dataset import on_device
from jaxmlp.training.epoch import TrainState, order_of, train_epoch
from jaxmlp.training.optimizers import make

SIZES, BATCH, RATE, TURNS = (784, 16, 16, 10), 32, 0.7, 12
NETWORK = jaxmlp.Network(SIZES)
Contestant = Callable[[int], float]


def ours(dataset: jaxmlp.Dataset, gradient: str) -> Contestant:
    """jaxmlp's compiled epoch."""
    optimizer = make(jaxmlp.Optimizer("sgd", RATE))
    params = jaxmlp.init(jax.random.key(0), NETWORK)
    state, examples = TrainState(params, optimizer.init(params)), on_device(dataset.train)

    def epoch(turn: int) -> float:
        nonlocal state
        order = jax.device_put(order_of(0, turn, dataset.train.size, BATCH))
        state, cost = train_epoch(state, examples, order, network=NETWORK, optimizer=optimizer, gradient=gradient)
        return float(cost)

    return epoch


def by_hand(dataset: jaxmlp.Dataset) -> Contestant:
    """NumPy, a batch at a time."""
    x, y = np.float32(dataset.train.inputs) / np.float32(255), np.eye(10, dtype=np.float32)[dataset.train.targets]
    params = [[np.array(leaf) for leaf in layer] for layer in jaxmlp.init(jax.random.key(0), NETWORK)]

    def epoch(turn: int) -> float:
        order, total = np.random.default_rng([0, turn]).permutation(len(x)), 0.0
        for first in range(0, len(x), BATCH):
            chosen = order[first : first + BATCH]
            activations = [x[chosen]]
            for kernel, bias in params:
                activations.append(1 / (1 + np.exp(-(activations[-1] @ kernel + bias))))
            a = activations[-1]
            e = a - y[chosen]
            total += float((e * e).sum())
            delta = (2 / len(chosen)) * e * a * (1 - a)
            for (kernel, bias), a in zip(params[::-1], activations[-2::-1], strict=True):
                before = delta @ kernel.T * a * (1 - a) if a is not activations[0] else None
                kernel -= np.float32(RATE) * (a.T @ delta)
                bias -= np.float32(RATE) * delta.sum(axis=0)
                delta = before
        return total / len(x)

    return epoch


def torch_loop(dataset: jaxmlp.Dataset) -> Contestant:
    """PyTorch, eager, with indexing in place of a DataLoader, which would be slower."""
    import torch

    x, y = torch.tensor(np.float32(dataset.train.inputs) / 255), torch.eye(10)[dataset.train.targets]
    layers = [part for n, m in itertools.pairwise(SIZES) for part in (torch.nn.Linear(n, m), torch.nn.Sigmoid())]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), RATE)

    def epoch(turn: int) -> float:
        total = torch.zeros(())
        for chosen in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            cost = ((model(x[chosen]) - y[chosen]) ** 2).sum() / len(chosen)
            cost.backward()
            optimizer.step()
            total += cost.detach() * len(chosen)
        return float(total) / len(x)

    return epoch


def main() -> None:
    """Prints the median, the lowest and the highest time of each contestant's turns."""
    dataset = jaxmlp.load_data("mnist")
    contestants = {
        "jaxmlp, manual": ours(dataset, "manual"),
        "jaxmlp, auto": ours(dataset, "auto"),
        "NumPy by hand": by_hand(dataset),
    }
    if importlib.util.find_spec("torch"):
        contestants["PyTorch"] = torch_loop(dataset)
    else:
        print("PyTorch is not installed")
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    costs = {}
    for turn in range(1, TURNS + 3):
        for name, epoch in contestants.items():
            started = time.perf_counter()
            costs[name] = epoch(turn)
            if turn > 2:
                seconds[name].append(time.perf_counter() - started)
    print("| contestant | an epoch, median | lowest to highest | cost of the last |\n| --- | --- | --- | --- |")
    for name, times in seconds.items():
        spread = f"{min(times):.3f} to {max(times):.3f} s"
        print(f"| {name} | {statistics.median(times):.3f} s | {spread} | {costs[name]:.4f} |")


if __name__ == "__main__":
    main()
