"""Compiling for the device at hand."""

import os
from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Any

import jax

from jaxmlp.devices import on_cpu

CPU_OPTIONS = {
    "xla_backend_optimization_level": 1,
    "xla_cpu_copy_insertion_use_region_analysis": True,
}
"""LLVM at level 1 in place of 3: 0.8 of the time to compile, and kernels as fast, or faster in batches of 10. Matrices
updated where they are, once all has read them, and not beside a copy that each step makes: 0.96 of an epoch's time at
784-512-512-10 and 784-2048-2048-10 in batches of 128 (docs/speed.md)."""


RUN_ONCE = CPU_OPTIONS | {"xla_cpu_use_fusion_emitters": False}
"""Kernels made the older way, for a program that runs once: 0.65 to 0.75 of the time to compile what draws the first
parameters, 0.08 to 0.18 s less, and up to 0.06 s more to run; the same to the last bit."""

ON_ONE_CORE = {"xla_disable_hlo_passes": "cpu-parallel-task-assigner"}
"""No kernel shared among cores: for a program whose products are not shared, as waking a core for the rest takes longer
than it saves: 0.79 of an epoch's time at 784-100-10 in batches of 10 (docs/speed.md)."""


def unsaid(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of XLA's options that the variable XLA_FLAGS doesn't have: what a user asks for goes first."""
    said = {flag.removeprefix("--").partition("=")[0] for flag in os.environ.get("XLA_FLAGS", "").split()}
    return {name: value for name, value in options.items() if name not in said}


class Program:
    """`jax.jit` of a function that no other jitted one calls; for a CPU, with options such as `CPU_OPTIONS`.

    An option that the variable XLA_FLAGS has, when the program is made, is as it says there. Which device it is for is
    asked when it is called: an import starts no backend. `small` says of its arguments whether all that it computes is
    to stay on one core.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        small: Callable[..., bool] = lambda *args, **named: False,
        cpu_options: Mapping[str, Any] = CPU_OPTIONS,
        **options: Any,
    ) -> None:
        self.small = small
        self.for_cpu = jax.jit(function, compiler_options=unsaid(cpu_options), **options)
        self.for_one_core = jax.jit(function, compiler_options=unsaid({**cpu_options, **ON_ONE_CORE}), **options)
        self.for_others = jax.jit(function, **options)
        update_wrapper(self, function)

    def jitted(self, *args: Any, **named: Any) -> Any:
        """What `jax.jit` gives, for the default device and such arguments."""
        if not on_cpu():
            return self.for_others
        return self.for_one_core if self.small(*args, **named) else self.for_cpu

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self.jitted(*args, **named)(*args, **named)
