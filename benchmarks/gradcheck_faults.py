"""Deliberate faults in a backward pass: what this check and `jax.test_util.check_grads` make of each.

    python benchmarks/gradcheck_faults.py

`check_grads` is called with its defaults, as its users call it, on the loss with the faulty gradient as a custom rule.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.test_util import check_grads

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from faults import FAULTS, NETWORK, Fault, cost, example, faulty_backprop

from jaxmlp import Params, check_gradients


def passes_check_grads(fault: Fault, dtype: jnp.dtype) -> bool:
    """Whether `check_grads(f, (params,), order=1, modes="rev")` accepts the faulty rule."""
    params, batch = example(dtype, fault.ragged)

    @jax.custom_vjp
    def ruled(params: Params) -> jax.Array:
        return cost(params, batch)

    ruled.defvjp(
        lambda params: (cost(params, batch), params),
        lambda params, c: (jax.tree.map(lambda g: g * c, faulty_backprop(params, batch, NETWORK, fault)),),
    )
    try:
        check_grads(ruled, (params,), order=1, modes="rev")
    except AssertionError:
        return False
    return True


def main() -> None:
    """Print the table and the counts."""
    counts = dict.fromkeys(("caught", "named", "let through by check_grads"), 0)
    runs = 0
    for x64 in (False, True):
        with jax.enable_x64(x64):
            dtype = jnp.dtype(jnp.float64 if x64 else jnp.float32)
            rights = [passes_check_grads(Fault(None), dtype), check_right(dtype)]
            print(f"{dtype.name}: the right gradient passes check_grads: {rights[0]}, check_gradients: {rights[1]}")
            here = dict.fromkeys(counts, 0)
            for name, fault in FAULTS.items():
                params, batch = example(dtype, fault.ragged)
                report = check_gradients(cost, lambda p, b, f=fault: faulty_backprop(p, b, NETWORK, f), params, batch)
                through = passes_check_grads(fault, dtype)
                named = fault.cause is not None and any(fault.cause in cause for cause in report.causes)
                here["caught"] += not report.passed
                here["named"] += named
                here["let through by check_grads"] += through
                print(
                    f"  {name:48} {'MISSED' if report.passed else 'caught'} {'named ' if named else '      '} "
                    f"check_grads: {'passes' if through else 'fails '}  {'; '.join(report.causes)[:150]}"
                )
            print(f"{dtype.name}: {len(FAULTS)} faults, {here}")
            runs += len(FAULTS)
            for key, count in here.items():
                counts[key] += count
    print(f"both: {runs} runs, {counts}")


def check_right(dtype: jnp.dtype) -> bool:
    """Whether the right gradient passes this check, plain and ragged."""
    return all(
        check_gradients(cost, lambda p, b: faulty_backprop(p, b, NETWORK, Fault(None)), *example(dtype, ragged)).passed
        for ragged in (False, True)
    )


if __name__ == "__main__":
    main()
