"""Where numbers ceased to be finite."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxmlp.backprop import backpropagate
from jaxmlp.network import Batch, Params, masks, propagate
from jaxmlp.training.config import Experiment
from jaxmlp.training.epoch import GRADIENTS


def first_fault(
    params: Params, batch: Batch, after: Params, experiment: Experiment, key: Key[Array, ""] | None = None
) -> str:
    """What is not finite first, in the order in which a step computes it: as the subject of a sentence, with its verb.

    `after` are the parameters after the step, and `key` is dropout's.
    """
    z, a = propagate(params, batch.inputs, experiment.network, masks(key, batch.inputs, experiment.network))
    forward = [(f"[{l}].kernel", l, "the weighted inputs by", array) for l, array in enumerate(z)]
    forward += [(f"[{l}].kernel", l, "the activations after", array) for l, array in enumerate(a[1:])]
    trace = backpropagate(params, batch, experiment.network, key)
    backward = [(f"[{l}].bias", l, "the examples' gradients of", D) for l, D in reversed([*enumerate(trace.deltas)])]
    _, gradient = GRADIENTS[experiment.train.gradient](params, batch, experiment.network, key)
    computed = [
        *sorted(forward, key=lambda one: one[1]),
        ("", -1, "the losses", trace.losses),
        *backward,
        *(of_leaves("the gradient of", gradient)),
        *(of_leaves("after the update", after)),
    ]
    for leaf, l, what, array in computed:
        if not bool(jax.device_get(jnp.all(jnp.isfinite(array)))):
            return f"{what} {leaf} (layer {l + 1}) are" if leaf else f"{what} are"
    return "the loss is"


def of_leaves(what: str, params: Params) -> list[tuple[str, int, str, Array]]:
    return [
        (f"[{l}].{name}", l, what, array) for l, layer in enumerate(params) for name, array in layer._asdict().items()
    ]
