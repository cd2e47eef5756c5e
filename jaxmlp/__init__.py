"""Multilayer perceptrons in JAX, with a backward pass derived by hand.

Every public name is an attribute of this package and is imported when it is first used, so that `jaxmlp --help` need
not wait for JAX.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxmlp import perexample
    from jaxmlp.backprop import Trace, backprop, backpropagate, mean_gradient, value_and_backprop
    from jaxmlp.data.dataset import Dataset, Examples
    from jaxmlp.data.distortions import Distort
    from jaxmlp.data.sources import load_data
    from jaxmlp.errors import (
        DataError,
        DivergedError,
        ExperimentError,
        GradientError,
        JaxmlpError,
        NetworkError,
        OutOfMemoryError,
        RunError,
        StoppedError,
    )
    from jaxmlp.gradcheck.check import GradientCheck, check_gradients
    from jaxmlp.gradcheck.report import GradientReport
    from jaxmlp.network import Batch, Layer, Network, Params, forward, init, loss
    from jaxmlp.training.check import check_experiment
    from jaxmlp.training.compare import Comparison, compare
    from jaxmlp.training.config import Checkpoint, Data, Experiment, Optimizer, Privacy, Record, Schedule, Train
    from jaxmlp.training.fit import fit
    from jaxmlp.training.run import Run, load
    from jaxmlp.training.sweeps import sweep

_HOME = {
    "jaxmlp.backprop": ("Trace", "backprop", "backpropagate", "mean_gradient", "value_and_backprop"),
    "jaxmlp.data.dataset": ("Dataset", "Examples"),
    "jaxmlp.data.distortions": ("Distort",),
    "jaxmlp.data.sources": ("load_data",),
    "jaxmlp.errors": (
        "DataError",
        "DivergedError",
        "ExperimentError",
        "GradientError",
        "JaxmlpError",
        "NetworkError",
        "OutOfMemoryError",
        "RunError",
        "StoppedError",
    ),
    "jaxmlp.gradcheck.check": ("GradientCheck", "check_gradients"),
    "jaxmlp.gradcheck.report": ("GradientReport",),
    "jaxmlp.network": ("Batch", "Layer", "Network", "Params", "forward", "init", "loss"),
    "jaxmlp.training.check": ("check_experiment",),
    "jaxmlp.training.compare": ("Comparison", "compare"),
    "jaxmlp.training.config": (
        "Checkpoint",
        "Data",
        "Experiment",
        "Optimizer",
        "Privacy",
        "Record",
        "Schedule",
        "Train",
    ),
    "jaxmlp.training.fit": ("fit",),
    "jaxmlp.training.run": ("Run", "load"),
    "jaxmlp.training.sweeps": ("sweep",),
}
_MODULES = ("perexample",)
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Batch",
    "Checkpoint",
    "Comparison",
    "Data",
    "DataError",
    "Dataset",
    "Distort",
    "DivergedError",
    "Examples",
    "Experiment",
    "ExperimentError",
    "GradientCheck",
    "GradientError",
    "GradientReport",
    "JaxmlpError",
    "Layer",
    "Network",
    "NetworkError",
    "Optimizer",
    "OutOfMemoryError",
    "Params",
    "Privacy",
    "Record",
    "Run",
    "RunError",
    "Schedule",
    "StoppedError",
    "Trace",
    "Train",
    "backprop",
    "backpropagate",
    "check_experiment",
    "check_gradients",
    "compare",
    "fit",
    "forward",
    "init",
    "load",
    "load_data",
    "loss",
    "mean_gradient",
    "perexample",
    "sweep",
    "value_and_backprop",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"jaxmlp.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'jaxmlp' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])


class _Package(ModuleType):
    """Keeps `jaxmlp.backprop` the function.

    After loading the module of that name, the import system binds it to the package's attribute; whether a caller sees
    the function or the module must not depend on what was imported before.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "backprop" and isinstance(value, ModuleType):
            value = value.backprop
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
