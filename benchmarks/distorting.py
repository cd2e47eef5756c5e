"""What distortions cost: the time to distort 1,024 images of 28 x 28, beside the gradient that they are for.

    python -m benchmarks.distorting

Prints, as Markdown, medians of 30 turns. Simard's elastic distortions are a random number a pixel and direction, two
products of matrices, and four reads a pixel.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import jax
import numpy as np

import jaxmlp
from benchmarks.options import turns_given
from jaxmlp import Batch, Distort, Network
from jaxmlp.data.distortions import distorted

TURNS = 30
DISTORTIONS = {
    "shift, rotation, scaling, shear": Distort(shift=1.5, rotation=15.0, scaling=0.15, shear=0.2),
    "elastic": Distort(alpha=34.0, sigma=4.0),
    "all of them": Distort(shift=1.5, rotation=15.0, scaling=0.15, shear=0.2, alpha=34.0, sigma=4.0),
}


def main() -> None:
    """Each distortion and the gradient of Simard's network, in turns."""
    turns = turns_given(__doc__, TURNS)
    network = Network((784, 800, 10), "relu", "softmax", "cross_entropy")
    images = jax.device_put(np.float32(jaxmlp.load_data("mnist").train.inputs[:1024] / 255))
    params, batch = jaxmlp.init(jax.random.key(0), network), Batch(images, jax.numpy.zeros(1024, int))
    gradient = jax.jit(partial(jaxmlp.backprop, network=network))
    work: dict[str, Callable[[], object]] = {"gradient of 784-800-10": partial(gradient, params, batch)}
    for name, distort in DISTORTIONS.items():
        function = jax.jit(partial(distorted, shape=(28, 28), distort=distort))
        work[name] = partial(function, jax.random.key(1), images)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(1 + turns):
        for name, do in work.items():
            begun = time.perf_counter()
            jax.block_until_ready(do())
            seconds[name].append(time.perf_counter() - begun)
    print("| of 1,024 images | milliseconds |\n| --- | --- |")
    for name, found in seconds.items():
        print(f"| {name} | {1e3 * statistics.median(found[1:]):.1f} |")


if __name__ == "__main__":
    main()
