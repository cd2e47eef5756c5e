"""What this machine can do at most: products of matrices, and bytes from memory.

    python -m benchmarks.machine

prints a line of JSON: `flops`, the best of JAX's and NumPy's product of two float32 matrices of 2048 x 2048 on all
cores (2 n^3 operations), and `bytes`, read and written by a copy of 512 MiB on as many threads as there are cores. The
best of several tries each, since only the best is a limit.
"""

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.options import options


def fastest(function: Callable[[], Any], tries: int = 7) -> float:
    """Seconds of the fastest of several calls, after one that doesn't count."""
    function()
    times = []
    for _ in range(tries):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def limits() -> dict[str, float]:
    """Operations and bytes a second."""
    n = 2048
    a = np.random.default_rng(0).random((n, n), np.float32)
    on_device, product = jnp.asarray(a), jax.jit(jnp.matmul)
    seconds = min(
        fastest(lambda: jax.block_until_ready(product(on_device, on_device))),
        fastest(lambda: a @ a),
    )
    cores = len(os.sched_getaffinity(0))
    source = np.ones((cores, (512 << 20) // cores // 8))
    target = np.zeros_like(source)
    with ThreadPoolExecutor(cores) as pool:
        copying = fastest(lambda: list(pool.map(np.copyto, target, source)))
    return {"flops": 2 * n**3 / seconds, "bytes": 2 * source.nbytes / copying}


if __name__ == "__main__":
    options(__doc__).parse_args()
    print(json.dumps(limits()))
