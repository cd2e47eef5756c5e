"""The optimizer that an experiment names: optax's, with schedule, clipping and weight decay. optax does the work."""

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array

from jaxmlp.errors import ExperimentError

if TYPE_CHECKING:
    from jaxmlp.training.config import Optimizer, Schedule

EVERY_TIME = 2**31 - 1
"""So many updates in a row that are not finite are left out."""

REFUSED = {
    "asks more of a step than the gradient": ("lbfgs", "polyak_sgd", "momo", "momo_adam", "sophia"),
    "has no learning rate in the others' meaning": ("cocob", "dog", "dowg"),
    "holds other parameters than the ones to use": ("schedule_free_adamw", "schedule_free_sgd"),
    "draws keys of its own": ("noisy_sgd", "dpsgd"),
    "is here as optimistic_adam_v2": ("optimistic_adam",),
}
"""Those of optax's that can't be used as the others are, by the reason."""
ELEMENTWISE = (
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "amsgrad",
    "lion",
    "radam",
    "rmsprop",
    "sgd",
    "sign_sgd",
)
"""Those that treat every number alone, so that they may be given matrices transposed."""
DECOUPLED = ("acprop", "adamaxw", "adamw", "adan", "ademamix", "galore", "lion", "muon", "simplified_ademamix")
"""Those whose own weight decay is as `decay` has it, and leaves biases alone."""
OTHERWISE = ("dadapt_adamw", "madgrad", "prodigy")
"""Those whose steps are not of the learning rate's size, or go from where they began: theirs is as they have it."""
OWN_MASK = ("mask", "weight_decay_mask")


@cache
def known() -> Mapping[str, Callable[..., optax.GradientTransformation]]:
    """optax's optimizers by name: its functions whose first parameter is a learning rate, all others optional."""
    found = {}
    for module in (optax.contrib, optax):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            first, *others = [*inspect.signature(function).parameters.values(), None]
            if (
                first is None
                or first.name != "learning_rate"
                or name in {*chain(*REFUSED.values())}
                or name.startswith(("_", "scale_by"))
            ):
                continue
            if all(other is None or other.default is not inspect.Parameter.empty for other in others):
                found[name] = function
    return dict(sorted(found.items()))


@cache
def numbers_of(name: str) -> dict[str, Any]:
    """The parameters of an optimizer that are numbers, with their defaults."""
    found = {}
    for parameter in inspect.signature(known()[name]).parameters.values():
        if parameter.name in ("learning_rate", "weight_decay") or parameter.name.endswith(("mask", "_numbers")):
            continue
        if isinstance(parameter.default, int | float) or "Numeric" in str(parameter.annotation) or optional(parameter):
            found[parameter.name] = parameter.default
    return found


def optional(parameter: inspect.Parameter) -> bool:
    """Whether a parameter may be left out or be a number, such as sgd's momentum."""
    return parameter.default is None and any(kind in str(parameter.annotation) for kind in ("float", "int", "Scalar"))


def refuse_unknown(optimizer: "Optimizer") -> None:
    """Raises an ExperimentError for an optimizer that optax hasn't, or parameters that the optimizer hasn't."""
    if optimizer.name not in known():
        near = difflib.get_close_matches(str(optimizer.name), known(), 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        for reason, names in REFUSED.items():
            hint = f", which {reason}" if optimizer.name in names else hint
        raise ExperimentError(f"optimizer.name is {optimizer.name!r}{hint}: expected one of {', '.join(known())}")
    numbers = numbers_of(optimizer.name)
    for name, _ in optimizer.parameters:
        if name not in numbers:
            hint = "; weight decay is optimizer.weight_decay" if name == "weight_decay" else ""
            some = ", ".join(f"{key} ({value})" for key, value in numbers.items()) or "none: it has no others"
            raise ExperimentError(f"optimizer.parameters has {name!r}: expected {optimizer.name}'s: {some}{hint}")


@cache
def takes_schedule(name: str) -> bool:
    """Whether an optimizer's learning rate may change: rprop's, for one, is but the first step's size."""
    annotation = str(inspect.signature(known()[name]).parameters["learning_rate"].annotation)
    return "Callable" in annotation or "Schedule" in annotation


def rate(optimizer: "Optimizer", schedule: "Schedule", steps: int, epochs: int) -> Callable[[Any], Any]:
    """The learning rate, a function of the number of updates made.

    With f the share of the schedule that has passed since the warm-up:
    cosine: end + (1 - end) (1 + cos(pi f)) / 2; exponential: factor^epochs; step: factor^floor(epochs / every).
    """
    peak, warm = optimizer.learning_rate, round(schedule.warmup * steps)
    if schedule.warmup < epochs:  # by rounding it might take all updates
        warm = min(warm, steps * epochs - 1)
    match schedule.name:
        case "cosine":
            after: Any = optax.cosine_decay_schedule(peak, max(1, steps * epochs - warm), alpha=schedule.end)
        case "exponential":
            after = optax.exponential_decay(peak, steps, schedule.factor)
        case "step":
            every = max(1, round(steps * schedule.every))
            after = optax.exponential_decay(peak, every, schedule.factor, staircase=True)
        case _:
            after = optax.constant_schedule(peak)
    growing = optax.linear_schedule(0.0, peak, warm)
    found: Callable[[Any], Any] = optax.join_schedules([growing, after], [warm]) if warm else after
    return found


def kernels(tree: Any) -> Any:
    """Which leaves of a pytree of parameters are kernels, and not biases: those that decay."""
    return jax.tree.map(lambda leaf: leaf.ndim == 2, tree)


@cache
def make(
    optimizer: "Optimizer", schedule: "Schedule | None" = None, steps: int = 1, epochs: int = 1
) -> optax.GradientTransformation:
    """The optimizer as a pair of pure functions, for `epochs` epochs of `steps` steps.

    Equal settings give the same object, lest a program compile twice. The state counts steps where the schedule is not
    constant; its structure depends on neither number.

    Raises:
        ExperimentError: for what `refuse_unknown` refuses, or optax does.

    >>> from jaxmlp import Optimizer
    >>> make(Optimizer("sgd", learning_rate=0.5)) is make(Optimizer("sgd", learning_rate=0.5))
    True
    """
    refuse_unknown(optimizer)
    maker = known()[optimizer.name]
    changes = schedule is not None and (schedule.name != "constant" or schedule.warmup > 0)
    scheduled = rate(optimizer, schedule, steps, epochs) if schedule is not None and changes else None
    own = inspect.signature(maker).parameters
    settings: dict[str, Any] = {name: natural(own[name], value) for name, value in optimizer.parameters}
    settings |= {name: kernels for name in OWN_MASK if name in own}
    decays = optimizer.name in (*DECOUPLED, *OTHERWISE)
    if "weight_decay" in own and optimizer.weight_decay is not None:
        settings["weight_decay"] = optimizer.weight_decay if decays else 0.0
    try:
        parts = [maker(scheduled or optimizer.learning_rate, **settings)]
    except (ValueError, TypeError) as error:
        raise ExperimentError(f"optimizer.parameters: optax's {optimizer.name} refuses them: {error}") from error
    if optimizer.weight_decay and not decays:
        parts.append(decay(optimizer.weight_decay, scheduled or optax.constant_schedule(optimizer.learning_rate)))
    if optimizer.clip_norm is not None:
        parts.insert(0, optax.clip_by_global_norm(optimizer.clip_norm))
    made = parts[0] if len(parts) == 1 else optax.chain(*parts)
    return optax.apply_if_finite(made, EVERY_TIME) if optimizer.nonfinite == "skip" else made


def natural(parameter: inspect.Parameter, value: float) -> Any:
    """A number as the parameter's default is one: 1 is True for a switch, 2.0 a whole number for a count."""
    kind = type(parameter.default)
    whole = kind is int or (parameter.default is None and "int" in str(parameter.annotation))
    return bool(value) if kind is bool else int(value) if whole and value == math.floor(value) else value


def decay(weight_decay: float, learning_rate: Callable[[Any], Any]) -> optax.GradientTransformation:
    """Decoupled weight decay (Loshchilov 2019): kernels lose learning_rate weight_decay of themselves a step.

    Older versions of optax's `add_decayed_weights` know no schedules.
    """

    def init(params: Any) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: optax.ScaleByScheduleState, params: Any) -> tuple[Any, optax.ScaleByScheduleState]:
        amount = weight_decay * learning_rate(state.count)

        def smaller(change: Array, param: Array, is_kernel: bool) -> Array:
            return change - jnp.asarray(amount, param.dtype) * param if is_kernel else change

        return jax.tree.map(smaller, updates, params, kernels(params)), optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformation(init, update)
