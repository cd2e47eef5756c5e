"""Experiment files: Python files that define `experiment()`, and for a sweep also `sweep(experiment)`."""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jaxmlp.errors import ExperimentError, JaxmlpError
from jaxmlp.training.config import Experiment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxmlp.training.run import Run


@dataclass(frozen=True)
class ExperimentFile:
    """What an experiment file defines.

    Attributes:
        about: Its docstring.
    """

    path: Path
    experiment: Experiment
    about: str
    module: ModuleType

    def sweep(self, experiment: Experiment) -> tuple[Experiment, ...]:
        """The runs that the file's `sweep` makes of an experiment: its own, or one with other settings.

        Raises:
            ExperimentError: where the file defines no `sweep`, or that fails or returns something else.
        """
        expected = "expected one that returns experiments; jaxmlp train runs one"
        with blamed(self.path):
            found = called(self.module, "sweep", expected)(experiment)
            if not isinstance(found, Iterable):
                raise ExperimentError(f"sweep() returns {_kind(found)}: expected a list of jaxmlp.Experiments")
            experiments = tuple(found)
            for i, one in enumerate(experiments):
                if not isinstance(one, Experiment):
                    raise ExperimentError(f"in what sweep() returns, [{i}] is {_kind(one)}: expected Experiments")
            if not experiments:
                raise ExperimentError("sweep() returns no experiments: expected at least one")
        return experiments

    @property
    def draws(self) -> bool:
        """Whether it defines `figure`."""
        figure = getattr(self.module, "figure", None)
        return inspect.isfunction(figure) and figure.__module__ == self.module.__name__

    def figure(self, runs: Sequence["Run"]) -> "Figure":
        """What the file's `figure` draws of the runs of its sweep.

        Raises:
            ExperimentError: where that fails or returns something else.
        """
        from matplotlib.figure import Figure

        with blamed(self.path):
            figure = called(self.module, "figure", "expected one that draws the runs")(list(runs))
        if not isinstance(figure, Figure):
            raise ExperimentError(f"{self.path}: figure() returns {_kind(figure)}: expected a matplotlib Figure")
        return figure


def read_experiment(path: Path) -> ExperimentFile:
    """What the file defines; its `experiment()` is called.

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
    with blamed(path):
        spec.loader.exec_module(module)
        experiment = called(module, "experiment", "expected one that returns an Experiment")()
    if not isinstance(experiment, Experiment):
        raise ExperimentError(f"{path}: experiment() returns {_kind(experiment)}: expected a jaxmlp.Experiment")
    return ExperimentFile(path, experiment, (module.__doc__ or "").strip(), module)


def called(module: ModuleType, name: str, expected: str) -> Callable[..., Any]:
    function: Callable[..., Any] | None = getattr(module, name, None)
    home = getattr(function, "__module__", None) or ""  # jaxmlp's own come with `from jaxmlp import *`
    if not callable(function) or home.partition(".")[0] == "jaxmlp":
        raise ExperimentError(f"defines no function {name}(): {expected}")
    return function


@contextmanager
def blamed(path: Path) -> Iterator[None]:
    """Runs the file's code, as a script's: it may import its neighbours. Its errors become a line that names the file.

    Raises:
        ExperimentError: for whatever is raised.
    """
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    try:
        yield
    except ExperimentError as error:
        raise error if str(error).startswith(str(path)) else ExperimentError(f"{path}: {error}") from error
    except JaxmlpError as error:
        raise ExperimentError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ExperimentError(f"{path}{_line(path, error)}: {type(error).__name__}: {_first_line(error)}") from error
    finally:
        sys.path.remove(folder)


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _first_line(error: BaseException) -> str:
    return f"{error.msg}: expected a Python file" if isinstance(error, SyntaxError) else str(error).partition("\n")[0]


def _line(path: Path, error: BaseException) -> str:
    """Where in the file the error arose, as ", line 12"."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""
