"""A run: what training leaves behind, in memory and in its folder.

config.json               the experiment, the data set's name and sizes, the versions: what it takes to run it again
metrics.jsonl             a line an epoch
checkpoints/params.npz    the parameters after the last whole epoch: kernel_1, bias_1, kernel_2, ...
recorded/EPOCH.npz        what the epoch recorded, step by step and example by example, where `record` names anything
result.json               written last, so that only a finished run has one
"""

import errno
import io
import itertools
import json
import os
import platform
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Num

from jaxmlp.data.dataset import Dataset, as_inputs
from jaxmlp.errors import RunError
from jaxmlp.network import Layer, Network, Params, forward
from jaxmlp.training.config import Experiment
from jaxmlp.training.epoch import labels_of


@dataclass(frozen=True)
class EpochRecord:
    """A line of metrics.jsonl."""

    epoch: int
    train_loss: float
    """Mean over the epoch's examples, each as it was when its batch came up."""
    validation_loss: float | None
    """None without a validation split."""
    validation_accuracy: float | None
    """Share of validation examples labelled right; None without a split, or for regression."""
    seconds: float
    """Of training alone; the first epoch's include compilation."""
    images_per_second: float
    recorded: dict[str, Any] | None = None
    """What the experiment records, in short (see `recording.summary`); None, and not in the file, without."""
    epsilon: float | None = None
    """The privacy spent up to here; None, and absent from the file, where training is not private."""


@dataclass(frozen=True)
class Result:
    """result.json: the end of a run. Accuracies are None for regression."""

    test_accuracy: float | None
    test_loss: float
    validation_accuracy: float | None
    validation_loss: float | None
    epochs: int
    parameters: int
    train_seconds: float
    """Of training alone, compilation included."""
    wall_seconds: float
    """From reading the data to the test."""
    epsilon: float | None = None
    """The privacy spent; None, and absent from the file, where training is not private."""


@partial(jax.jit, static_argnames="network")
def outputs_for(params: Params, inputs: Num[Array, "N n_0"], *, network: Network) -> Float[Array, "N n_L"]:
    return forward(params, as_inputs(inputs), network)


@dataclass(frozen=True)
class Run:
    """A trained network with its experiment and history; `jaxmlp.fit` returns one, `jaxmlp.load` reads one back."""

    experiment: Experiment
    labelled: bool
    """Whether the targets were labels, and not wanted outputs (regression)."""
    params: Params = field(repr=False)
    """The parameters after the last epoch, as NumPy arrays."""
    history: tuple[EpochRecord, ...] = field(repr=False)
    result: Result | None
    """None where the run did not come to its end."""

    def outputs(self, inputs: Num[np.ndarray, "N ..."]) -> Float[np.ndarray, "N n_L"]:
        """The network's outputs a^L for inputs of shape (N, n_0), or (N, ...) with n_0 numbers an example.

        As in training, uint8 counts as grey levels from 0 to 255, other numbers are taken as they are.

        Raises:
            RunError: where an example has another number of features than the network has inputs.
        """
        inputs, n_0 = np.asarray(inputs), self.experiment.network.sizes[0]
        rows = inputs.reshape(inputs.shape[0], -1) if inputs.ndim > 1 and inputs.size else inputs
        if rows.ndim != 2 or rows.shape[1] != n_0:
            raise RunError(
                f"inputs have shape {inputs.shape}: expected (N, {n_0}), or (N, ...) with {n_0} in an example"
            )
        rows = rows if rows.dtype == np.uint8 else rows.astype(np.float32)
        params, rows = jax.device_put((self.params, rows))
        outputs: np.ndarray = jax.device_get(outputs_for(params, rows, network=self.experiment.network))
        return outputs

    def predict(self, inputs: Num[np.ndarray, "N ..."]) -> Int[np.ndarray, " N"]:
        """The label of each example, shape (N,). For inputs see `outputs`.

        Raises:
            RunError: as `outputs`, and for a regression, which knows no labels.
        """
        if not self.labelled:
            raise RunError("the run is a regression, whose targets were no labels: expected outputs(), not predict()")
        labels: np.ndarray = labels_of(self.outputs(inputs))
        return labels

    def probabilities(self, inputs: Num[np.ndarray, "N ..."]) -> Float[np.ndarray, "N classes"]:
        """The probability of each label, shape (N, classes), rows adding up to 1. For inputs see `outputs`.

        Softmax outputs are probabilities as they are. Sigmoid outputs estimate each label's on its own, by squared
        error as by cross-entropy, and are divided by their sum; a single one is the probability of label 1 of two.

        Raises:
            RunError: as `outputs`, and for other output activations, whose values are not probabilities.
        """
        output = self.experiment.network.output
        if not self.labelled or output not in ("softmax", "sigmoid"):
            kind = "" if self.labelled else ", the targets were no labels"
            raise RunError(f"network.output is {output!r}{kind}: expected softmax or sigmoid and labels; see outputs()")
        a = self.outputs(inputs)
        if output == "softmax":
            return a
        if a.shape[1] == 1:
            return np.concatenate([1 - a, a], axis=1)
        sums = a.sum(axis=1, keepdims=True)  # 0 where every output is: then nothing speaks for any label
        alike = np.full_like(a, 1 / a.shape[1])
        probabilities: np.ndarray = np.divide(a, sums, out=alike, where=sums > 0)
        return probabilities


FILES = ("config.json", "metrics.jsonl", "result.json", "checkpoints", "recorded", "comparison.json")


class RunFolder:
    """Writes a run as it goes. Make one with `RunFolder.create`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def create(path: str | PathLike[str], experiment: Experiment, dataset: Dataset) -> "RunFolder":
        """A new run in the folder `path`, which is made where it doesn't exist.

        Raises:
            RunError: where the folder holds a run already (it is left as it is), or can't be written.
        """
        folder = RunFolder(Path(path))
        RunFolder.refuse_used(folder.path)
        config = {
            "experiment": experiment.as_dict(),
            "dataset": {
                "name": dataset.name,
                "labelled": dataset.labelled,
                "train": dataset.train.size,
                "test": dataset.test.size,
            },
            "versions": {"python": platform.python_version()}
            | {package: version(package) for package in ("jaxmlp", "jax", "jaxlib", "numpy", "optax")},
            "device": jax.devices()[0].device_kind,
        }
        with writing(folder.path):
            (folder.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            (folder.path / "metrics.jsonl").write_text("")
            write_whole(folder.path / "config.json", (json.dumps(config, indent=2, allow_nan=False) + "\n").encode())
        return folder

    @staticmethod
    def refuse_used(path: Path) -> None:
        """Raises a RunError where the folder holds a run, or files that a run would overwrite."""
        used = [name for name in FILES if (path / name).exists()]
        if used:
            state = f"{', '.join(used)}, perhaps of an unfinished run,"
            for name, what in (("comparison.json", "a comparison"), ("result.json", "a finished run")):
                state = what if name in used else state
            raise RunError(f"{path}: holds {state} already: expected a new folder; choose another, or remove it")

    def append(self, record: EpochRecord, params: Params, recording: dict[str, np.ndarray] | None = None) -> None:
        """Keeps an epoch: first its parameters and what it recorded, then its line."""
        with writing(self.path):
            save_params(self.path / "checkpoints" / "params.npz", params)
            if recording is not None:
                (self.path / "recorded").mkdir(exist_ok=True)
                write_arrays(self.path / "recorded" / f"{record.epoch}.npz", recording)
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(as_json(record), allow_nan=False) + "\n")

    def finish(self, result: Result) -> None:
        with writing(self.path):
            write_whole(
                self.path / "result.json", (json.dumps(as_json(result), indent=2, allow_nan=False) + "\n").encode()
            )


def as_json(record: EpochRecord | Result) -> dict[str, Any]:
    """A record as its file has it: without what only private or recorded training has, where it is neither."""
    return {name: x for name, x in asdict(record).items() if x is not None or name not in ("epsilon", "recorded")}


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns the system's errors into a RunError that names the folder."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunError(f"{folder}: can't be written: {reason}") from error


def probe(folder: Path) -> None:
    """Raises the OSError that making the folder or a file in it would, and makes nothing."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that at every instant it is whole: the old one or the new one."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an NPZ file, whole at every instant."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_whole(path, content.getvalue())


def save_params(path: Path, params: Params) -> None:
    """Writes the parameters to an NPZ file: kernel_1, bias_1, kernel_2, ..."""
    arrays = {
        f"{name}_{l}": np.asarray(array)
        for l, layer in enumerate(jax.device_get(params), start=1)
        for name, array in layer._asdict().items()
    }
    write_arrays(path, arrays)


def load_params(path: Path, network: Network) -> Params:
    """Reads what `save_params` wrote.

    Raises:
        RunError: where the file is missing, damaged, or holds other arrays than the network's.
    """
    layers = []
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            for l, (n_in, n_out) in enumerate(itertools.pairwise(network.sizes), start=1):
                layer = Layer(file[f"kernel_{l}"], file[f"bias_{l}"])
                shapes = layer.kernel.shape, layer.bias.shape
                if shapes != ((n_in, n_out), (n_out,)) or layer.kernel.dtype.kind != "f":
                    raise RunError(f"{path}: layer {l} has shapes {shapes}: expected {((n_in, n_out), (n_out,))}")
                layers.append(layer)
    except FileNotFoundError as error:
        raise RunError(f"{path}: no such file: expected the parameters; did the first epoch end?") from error
    except RunError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(f"{path}: can't be read as the parameters of {network}: {error}") from error
    return tuple(layers)


def load(path: str | PathLike[str]) -> Run:
    """The run in a folder.

    Raises:
        RunError: where the folder holds none, or a damaged one.
    """
    folder = Path(path)
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text())
        experiment, labelled = Experiment.from_dict(config["experiment"]), bool(config["dataset"]["labelled"])
        file = folder / "metrics.jsonl"
        history = tuple(EpochRecord(**json.loads(line)) for line in file.read_text().splitlines())
        file = folder / "result.json"
        result = Result(**json.loads(file.read_text())) if file.exists() else None
    except FileNotFoundError as error:
        raise RunError(f"{error.filename}: no such file: expected the folder of a run") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file}: the run can't be read: {error}") from error
    return Run(
        experiment, labelled, load_params(folder / "checkpoints" / "params.npz", experiment.network), history, result
    )
