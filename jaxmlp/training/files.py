"""Experiment files: Python files that define `experiment()`."""

import importlib.util
import sys
import traceback
from pathlib import Path

from jaxmlp.errors import ExperimentError, JaxmlpError
from jaxmlp.training.config import Experiment


def read_experiment(path: Path) -> tuple[Experiment, str]:
    """What the file's `experiment()` returns, and the file's docstring.

    Raises:
        ExperimentError: where the file is missing, fails, defines no `experiment`, or that returns something else.
    """
    if not path.is_file():
        found = "not a file" if path.exists() else "no such file"
        raise ExperimentError(f"{path}: {found}: expected an experiment file such as experiments/lesson.py")
    name = f"jaxmlp experiment {path.stem}"  # a name that nothing else has
    spec = importlib.util.spec_from_loader(name, importlib.machinery.SourceFileLoader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses, for one, look a class's module up
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)  # as for a script, so that the file may import its neighbours
    try:
        spec.loader.exec_module(module)
        function = getattr(module, "experiment", None)
        if not callable(function):
            raise ExperimentError(f"{path}: defines no function experiment(): expected one that returns an Experiment")
        experiment = function()
    except ExperimentError as error:
        raise error if str(error).startswith(str(path)) else ExperimentError(f"{path}: {error}") from error
    except JaxmlpError as error:
        raise ExperimentError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ExperimentError(f"{path}{_line(path, error)}: {type(error).__name__}: {_first_line(error)}") from error
    finally:
        sys.path.remove(folder)
    if not isinstance(experiment, Experiment):
        raise ExperimentError(f"{path}: experiment() returns {_kind(experiment)}: expected a jaxmlp.Experiment")
    return experiment, (module.__doc__ or "").strip()


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _first_line(error: BaseException) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error).partition("\n")[0]


def _line(path: Path, error: BaseException) -> str:
    """Where in the file the error arose, as ", line 12"."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""
