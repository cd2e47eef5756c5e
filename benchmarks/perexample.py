"""Per-example norms and the clipped gradient: from a trace, through vmap(grad), and by the libraries made for it.

    pip install jax-privacy                        # optional, as is optax's own aggregation, which comes with optax
    python -m benchmarks.perexample                # about 6 minutes on 2 cores

Each contestant is a compiled function of (parameters, batch), with the forward and the backward pass in it; a plain
gradient is what they are measured by. They take turns, so that a slow minute of the machine hits all alike. A turn is a
first call, which meets the memory as the one before has left it, and then as many as a fifth of a second holds; their
median is the turn's time. Who takes longer than 10 seconds has one turn, and who takes longer than a second no first
call. The medians of the turns and, turn by turn, of their ratios are reported. Scratch memory is what
XLA's plan of the compiled program says: `temp_size_in_bytes`. All norms, and all clipped sums, are compared beforehand.
"""

import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmlp
from benchmarks.compare import processor
from benchmarks.options import options
from jaxmlp import Batch, Network, Params, perexample

CASES = (
    (Network((784, 512, 512, 10), "relu", "softmax", "cross_entropy"), 1024),
    (Network((784, 16, 16, 10)), 32),
)
C = 1.0
Contestant = Callable[[Params, Batch], Any]


def gradients(params: Params, batch: Batch, network: Network) -> Params:
    """Every example's gradient by vmap(grad)."""

    def alone(x: jax.Array, y: jax.Array) -> Params:
        return jax.grad(jaxmlp.loss)(params, Batch(x[None], y[None]), network)

    return jax.vmap(alone)(batch.inputs, batch.targets)


def norms_by_autodiff(params: Params, batch: Batch, network: Network) -> jax.Array:
    return jax.vmap(optax.tree.norm)(gradients(params, batch, network)) ** 2


def clipped_by_autodiff(params: Params, batch: Batch, network: Network) -> Params:
    g = gradients(params, batch, network)
    factors = jnp.minimum(1, C / jax.vmap(optax.tree.norm)(g))
    return jax.tree.map(lambda leaf: jnp.tensordot(factors, leaf, 1), g)


def clipped_by_optax(params: Params, batch: Batch, network: Network) -> Params:
    """optax's DP aggregation without noise: it averages."""
    aggregate = optax.contrib.differentially_private_aggregate(C, noise_multiplier=0.0, key=0)
    mean, _ = aggregate.update(gradients(params, batch, network), aggregate.init(params))
    return jax.tree.map(lambda leaf: batch.targets.size * leaf, mean)


def clipped_by_jax_privacy(params: Params, batch: Batch, network: Network, at_a_time: int | None = None) -> Params:
    import jax_privacy

    def cost(params: Params, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jaxmlp.loss(params, Batch(*batch), network)

    return jax_privacy.clipped_grad(cost, l2_clip_norm=C, microbatch_size=at_a_time)(
        params, (batch.inputs, batch.targets)
    )


def contestants(network: Network) -> dict[str, Contestant | None]:
    """By name; None where a library is missing."""

    def squared_norms(params: Params, batch: Batch) -> jax.Array:
        return perexample.squared_norms(jaxmlp.backpropagate(params, batch, network))

    def clipped_sum(params: Params, batch: Batch) -> Params:
        return perexample.clipped_sum(jaxmlp.backpropagate(params, batch, network), C)

    def by_jax_privacy(at_a_time: int | None) -> Contestant | None:
        if not importlib.util.find_spec("jax_privacy"):
            return None
        return lambda params, batch: clipped_by_jax_privacy(params, batch, network, at_a_time)

    return {
        "plain gradient": lambda params, batch: jaxmlp.value_and_backprop(params, batch, network),
        "norms, trace": squared_norms,
        "norms, vmap(grad)": lambda params, batch: norms_by_autodiff(params, batch, network),
        "clipped, trace": clipped_sum,
        "clipped, vmap(grad)": lambda params, batch: clipped_by_autodiff(params, batch, network),
        "clipped, optax": lambda params, batch: clipped_by_optax(params, batch, network),
        "clipped, jax_privacy": by_jax_privacy(None),
        "clipped, jax_privacy, 16 at a time": by_jax_privacy(16),
    }


def one_turn(call: Callable[[], Any], warm: bool) -> float:
    """The median time of a call."""
    if warm:
        jax.block_until_ready(call())
    times: list[float] = []
    while sum(times) < 0.2:
        started = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measured(network: Network, batch_size: int, turns: int) -> dict[str, Any]:
    """Seconds of every turn, and scratch bytes, of every contestant that is there."""
    params = jaxmlp.init(jax.random.key(0), network)
    images = jaxmlp.load_data("mnist").train
    batch = Batch(jnp.float32(images.inputs[:batch_size]) / 255, jnp.asarray(images.targets[:batch_size], jnp.int32))
    programs = {
        name: jax.jit(function).lower(params, batch).compile()
        for name, function in contestants(network).items()
        if function
    }
    answers: dict[str, Any] = {}
    patience = {}
    for name, program in programs.items():
        started = time.perf_counter()
        answer = [np.asarray(leaf) for leaf in jax.tree.leaves(program(params, batch))]
        patience[name] = time.perf_counter() - started
        theirs = answers.setdefault(name.partition(",")[0], answer)
        for ours, same in zip(answer, theirs, strict=True):
            np.testing.assert_allclose(ours, same, rtol=1e-3, atol=1e-4 * np.abs(same).max())
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(turns):
        for name, program in programs.items():
            if turn == 0 or patience[name] <= 10:
                seconds[name].append(one_turn(lambda: program(params, batch), warm=patience[name] <= 1))  # noqa: B023
    scratch = {name: program.memory_analysis().temp_size_in_bytes for name, program in programs.items()}
    return {"network": str(network), "batch": batch_size, "seconds": seconds, "scratch_bytes": scratch}


def ratio(seconds: dict[str, list[float]], name: str, to: str) -> float:
    """The median over the turns of the ratio of two contestants' times."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=False))


def markdown(found: dict[str, Any]) -> str:
    seconds, scratch = found["seconds"], found["scratch_bytes"]
    lines = [
        f"{found['network']}, batch {found['batch']}\n",
        "| contestant | median | lowest to highest | of a plain gradient | scratch memory |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in contestants(Network((1, 1))):
        if name not in seconds:
            lines.append(f"| {name} | not installed | | | |")
            continue
        times = [1e3 * one for one in seconds[name]]
        spread = f"{min(times):.3g} to {max(times):.3g} ms" if len(times) > 1 else "one call"
        relative = ratio(seconds, name, "plain gradient")
        lines.append(
            f"| {name} | {statistics.median(times):.3g} ms | {spread} | {relative:.3g} | {scratch[name] / 1e6:.3g} MB |"
        )
    for kind in ("norms", "clipped"):
        ours, theirs = f"{kind}, trace", f"{kind}, vmap(grad)"
        times, memory = ratio(seconds, theirs, ours), scratch[theirs] / scratch[ours]
        lines.append(f"\n{kind}: {times:.3g} times faster than vmap(grad), in 1/{memory:.0f} of its scratch memory")
    return "\n".join(lines)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--turns", type=int, default=7, help="turns of each contestant")
    parser.add_argument(
        "--json", action="store_true", help="print everything as JSON, a case a line, instead of tables"
    )
    given = parser.parse_args()
    print(processor(), "jax", jax.__version__)
    for network, batch_size in CASES:
        found = measured(network, batch_size, given.turns)
        print(json.dumps(found) if given.json else f"\n{markdown(found)}", flush=True)


if __name__ == "__main__":
    main()
