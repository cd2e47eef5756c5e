"""Random networks with a right gradient: does the check raise a false alarm, and who errs more in float32?

    python benchmarks/gradcheck_false_alarms.py --networks 1440 --jobs 2

1,440 networks cover every activation x loss x depth of 0, 1, 2 and 5 hidden layers x kind of targets, in mixed order,
twice; sizes, batches, parameters and data are random, as is the output activation where the loss leaves a choice. Every
network is checked in float32 and in float64. Two in a row share their sizes and functions, hence compiled programs.
"""

import argparse
import itertools
import math
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxmlp
from jaxmlp.activations import ACTIVATIONS
from jaxmlp.losses import FUSED, LOSSES

KINDS = ("labels", "dense", "weighted")
GRID = list(itertools.product(ACTIVATIONS, [*LOSSES, *FUSED], (0, 1, 2, 5), KINDS))
SHARING = 2


def draw(group: int, rng: np.random.Generator) -> tuple[jaxmlp.Network, int, str]:
    """A network, a batch size and a kind of targets; sizes are spread evenly over their logarithms, from 1 to 300."""
    activation, loss, hidden, kind = GRID[np.random.default_rng(0).permutation(len(GRID))[group % len(GRID)]]
    *sizes, examples = (int(n) for n in np.exp(rng.uniform(0, math.log(301), hidden + 3)))
    sizes[-1] = max(sizes[-1], 2)  # a softmax of one output is refused
    output = FUSED[loss][0] if loss in FUSED else str(rng.choice(list(ACTIVATIONS)))
    return jaxmlp.Network(tuple(sizes), activation, output, loss), examples, kind


def fill(
    rng: np.random.Generator, network: jaxmlp.Network, examples: int, kind: str, dtype: type
) -> tuple[jaxmlp.Params, jaxmlp.Batch]:
    """Parameters and a batch."""

    def array(x: np.ndarray) -> jax.Array:
        return jnp.asarray(x.astype(dtype))

    spread = math.exp(rng.uniform(-1, 1))
    params = tuple(
        jaxmlp.Layer(array(spread * rng.normal(size=(m, n)) / math.sqrt(m)), array(0.5 * rng.normal(size=n)))
        for m, n in itertools.pairwise(network.sizes)
    )
    labels = jnp.asarray(rng.integers(0, max(network.sizes[-1], 2), examples).astype(np.int32))
    dense = array(rng.uniform(size=(examples, network.sizes[-1])))
    weights = array(rng.integers(0, 3, examples) + np.eye(1, examples)[0]) if kind == "weighted" else None
    return params, jaxmlp.Batch(
        array(rng.uniform(size=(examples, network.sizes[0]))), labels if kind == "labels" else dense, weights
    )


def check(group: int) -> list[tuple[str, str, bool, bool, float, float, str]]:
    """Of SHARING networks in both precisions: (name, dtype, passed, kinks, float32 error ratio, seconds, report)."""
    rng = np.random.default_rng(group)
    network, examples, kind = draw(group, rng)
    checked: Callable[..., jaxmlp.GradientReport] = jaxmlp.GradientCheck(jaxmlp.loss, jaxmlp.backprop)
    rows = []
    for _ in range(SHARING):
        seed = int(rng.integers(2**32))
        for dtype in (np.float32, np.float64):
            with jax.enable_x64(dtype == np.float64):
                params, batch = fill(np.random.default_rng(seed), network, examples, kind, dtype)
                start = time.perf_counter()
                report = checked(params, batch, network)
                seconds = time.perf_counter() - start
            rounding = [leaf.rounding for leaf in report.leaves if leaf.rounding is not None]
            manual, automatic = (math.hypot(*(getattr(r, who) for r in rounding)) for who in ("manual", "automatic"))
            ratio = manual / automatic if automatic > 0 else math.nan
            name = f"group {group}: {network}, B = {examples}, {kind}"
            kinks = any(leaf.kinks for leaf in report.leaves)
            rows.append((name, np.dtype(dtype).name, report.passed, kinks, ratio, seconds, str(report)))
    jax.clear_caches()
    return rows


def main() -> None:
    """Print every false alarm and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=SHARING * len(GRID))
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    counts, ratios = Counter(), []
    groups = range(math.ceil(options.networks / SHARING))
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for done, rows in enumerate(pool.imap_unordered(check, groups), start=1):
            for name, dtype, passed, kinks, ratio, _, report in rows:
                counts[f"{dtype} checked"] += 1
                counts[f"{dtype} at a kink"] += kinks
                counts[f"{dtype} false alarms"] += not passed
                if not passed:
                    print(f"FALSE ALARM {name}\n{report}", flush=True)
                if math.isfinite(ratio):
                    ratios.append(ratio)
            if done % 25 == 0:
                print(done * SHARING, "networks", dict(counts), f"median ratio {np.median(ratios):.3f}", flush=True)
    print(dict(counts))
    quartiles = np.quantile(ratios, [0.25, 0.5, 0.75, 1])
    print("float32 error, hand-derived over jax.grad: quartiles and largest", quartiles.round(3).tolist())


if __name__ == "__main__":
    main()
