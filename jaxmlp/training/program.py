"""Compiling for the device at hand."""

from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any

import jax


class Program:
    """`jax.jit` of a function; on a CPU, with LLVM at optimization level 1.

    That takes 0.8 of the time to compile that its own level 3 takes; the kernels are as fast, and for batches of 10
    faster (docs/speed.md). Which device it is for is asked when it is first called: an import starts no backend.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self.function, self.options = function, options
        update_wrapper(self, function)

    @cached_property
    def jitted(self) -> Any:
        """What `jax.jit` gives."""
        level = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
        return jax.jit(self.function, compiler_options=level, **self.options)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self.jitted(*args, **named)
