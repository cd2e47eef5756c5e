"""Compiling for the device at hand."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import jax

from jaxmlp.training.devices import on_cpu


class Program:
    """`jax.jit` of a function that no other jitted one calls; for a CPU, with LLVM at optimization level 1.

    That takes 0.8 of the time to compile that XLA's own level 3 takes; the kernels are as fast, and for batches of 10
    faster (docs/speed.md). Which device it is for is asked when it is called: an import starts no backend.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self.for_cpu = jax.jit(function, compiler_options={"xla_backend_optimization_level": 1}, **options)
        self.for_others = jax.jit(function, **options)
        update_wrapper(self, function)

    @property
    def jitted(self) -> Any:
        """What `jax.jit` gives, for the default device."""
        return self.for_cpu if on_cpu() else self.for_others

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self.jitted(*args, **named)
