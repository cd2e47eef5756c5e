"""Deliberate faults in a backward pass: what this check and `jax.test_util.check_grads` make of each.

    python benchmarks/gradcheck_faults.py

`check_grads` is called with its defaults, as its users call it, on the loss with the faulty gradient as a custom rule
(which has no forward mode). The faults are in tests/faults.py; the second network is the lesson's, with one
more layer, of tanh.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.test_util import check_grads

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from faults import EXAMPLES, FAULTS, NETWORK, Fault, example, faulty_backprop

from jaxmlp import Batch, GradientCheck, Network, Params, backprop, loss

NETWORKS = ((NETWORK, EXAMPLES), (Network((784, 16, 16, 16, 10), "tanh"), 32))


def passes_check_grads(params: Params, batch: Batch, network: Network, fault: Fault) -> bool:
    """Whether `check_grads(f, (params,), order=1, modes="rev")` accepts the faulty rule."""

    @jax.custom_vjp
    def ruled(params: Params) -> jax.Array:
        return loss(params, batch, network)

    ruled.defvjp(
        lambda params: (loss(params, batch, network), params),
        lambda params, c: (jax.tree.map(lambda g: g * c, faulty_backprop(params, batch, network, fault)),),
    )
    try:
        check_grads(ruled, (params,), order=1, modes="rev")
    except AssertionError:
        return False
    return True


def main() -> None:
    """Print the table and the counts."""
    for network, examples in NETWORKS:
        for x64 in (False, True):
            with jax.enable_x64(x64):
                count(network, examples, jnp.dtype(jnp.float64 if x64 else jnp.float32))


def count(network: Network, examples: int, dtype: jnp.dtype) -> None:
    """Every fault in one network and precision."""
    print(f"{network}, B = {examples}, {dtype.name}")
    check = GradientCheck(loss, backprop)
    counts = dict.fromkeys(("caught", "named", "let through by check_grads", "right ones refused by check_grads"), 0)
    for ragged in (False, True):
        params, batch = example(dtype, ragged, network, examples)
        assert check.of(lambda *args: faulty_backprop(*args, Fault(None)))(params, batch, network).passed
        counts["right ones refused by check_grads"] += not passes_check_grads(params, batch, network, Fault(None))
    for name, fault in FAULTS.items():
        params, batch = example(dtype, fault.ragged, network, examples)
        report = check.of(lambda *args, f=fault: faulty_backprop(*args, f))(params, batch, network)
        through = passes_check_grads(params, batch, network, fault)
        # the numbers in a cause are those of the smaller network
        named = fault.cause is not None and any(fault.cause.partition("(")[0] in cause for cause in report.causes)
        counts["caught"] += not report.passed
        counts["named"] += named
        counts["let through by check_grads"] += through
        print(
            f"  {name:48} {'MISSED' if report.passed else 'caught'} {'named' if named else '     '} "
            f"check_grads: {'passes' if through else 'fails '}  {'; '.join(report.causes)[:150]}",
            flush=True,
        )
    print(f"{len(FAULTS)} faults, {counts}", flush=True)


if __name__ == "__main__":
    main()
