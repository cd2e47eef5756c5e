"""A run: what training leaves behind, in memory and in its folder.

config.json           the experiment, the data set's name and sizes, versions and devices: what it takes to run it again
metrics.jsonl         a line an epoch
losses.f32            the mean loss of every step, as float32 numbers; of private and recorded training, nothing
checkpoints/          see checkpoints.py
tensorboard/          the same curves for TensorBoard
recorded/EPOCH.npz    what the epoch recorded, step by step and example by example, where `record` names anything
result.json           written last, so that only a finished run has one
stopped.json          why it ended, where it came to no end
lock                  held by the process that trains there
"""

import contextlib
import errno
import fcntl
import io
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from threading import Thread
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Num
from numpy.typing import ArrayLike

from jaxmlp.data.dataset import Dataset, Scale, as_array, as_inputs
from jaxmlp.errors import DataError, RunError
from jaxmlp.network import Network, Params, forward, init
from jaxmlp.training.checkpoints import Saver, Snapshot, flush, newest, path_of, restore
from jaxmlp.training.config import Experiment
from jaxmlp.training.epoch import TrainState, labels_of
from jaxmlp.training.optimizers import make
from jaxmlp.training.program import Program
from jaxmlp.training.records import EpochRecord, Result, as_json, from_json, history_of


@partial(Program, static_argnames="network")
def outputs_for(params: Params, inputs: Num[Array, "N n_0"], *, network: Network) -> Float[Array, "N n_L"]:
    return forward(params, as_inputs(inputs), network)


def as_numbers(given: ArrayLike) -> Num[np.ndarray, "..."]:
    """What is given as an array of real numbers, or a RunError."""
    try:
        array = as_array(given, "inputs")
    except DataError as error:
        raise RunError(str(error)) from error
    if array.dtype == object:  # as of a table whose columns have several types
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            array = array.astype(np.float64)
    if not np.can_cast(array.dtype, np.float64, "same_kind"):
        raise RunError(f"inputs have type {array.dtype}: expected real numbers")
    return array


@dataclass(frozen=True, eq=False)
class Run:
    """A trained network with its experiment and history; `jaxmlp.fit` returns one, `jaxmlp.load` reads one back.

    Attributes:
        experiment: What was trained, and how.
        labelled: Whether the targets were labels, and not wanted outputs (regression).
        params: The parameters after the last epoch, as NumPy arrays.
        history: A record of every epoch.
        result: How it ended, with the test; None where the run did not come to its end.
        scale: How the inputs were standardised, if they were.
    """

    experiment: Experiment
    labelled: bool
    params: Params = field(repr=False)
    history: tuple[EpochRecord, ...] = field(repr=False)
    result: Result | None
    scale: Scale | None = field(default=None, repr=False)

    def outputs(self, inputs: ArrayLike) -> Float[np.ndarray, "N n_L"]:
        """The network's outputs a^L for inputs of shape (N, n_0), or (N, ...) with n_0 numbers an example.

        As in training, uint8 counts as grey levels from 0 to 255, other numbers are taken as they are; and where the
        experiment standardises, all are, with the mean and deviation of what was trained on.

        Raises:
            RunError: where an example has another number of features than the network has inputs, or not all of them
                are real numbers, finite in float32.
        """
        inputs, n_0 = as_numbers(inputs), self.experiment.network.sizes[0]
        rows = inputs.reshape(inputs.shape[0], -1) if inputs.ndim > 1 and inputs.size else inputs
        if rows.ndim != 2 or rows.shape[1] != n_0:
            raise RunError(
                f"inputs have shape {inputs.shape}: expected (N, {n_0}), or (N, ...) with {n_0} in an example"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            if self.scale is not None:
                rows = self.scale(rows)
            rows = rows if rows.dtype == np.uint8 else rows.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1)) if rows.dtype != np.uint8 else np.zeros(0)
        if bad.size:
            raise RunError(
                f"inputs[{bad[0]}] has a number that is not finite in float32 ({bad.size:,} such of {len(rows):,}): "
                "expected finite numbers"
            )
        params, rows = jax.device_put((self.params, rows))
        outputs: np.ndarray = jax.device_get(outputs_for(params, rows, network=self.experiment.network))
        return outputs

    def predict(self, inputs: ArrayLike) -> Int[np.ndarray, " N"]:
        """The label of each example, shape (N,). For inputs see `outputs`.

        Raises:
            RunError: as `outputs`, and for a regression, which knows no labels.
        """
        if not self.labelled:
            raise RunError("the run is a regression, whose targets were no labels: expected outputs(), not predict()")
        labels: np.ndarray = labels_of(self.outputs(inputs))
        return labels

    def probabilities(self, inputs: ArrayLike) -> Float[np.ndarray, "N classes"]:
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


FILES = ("config.json", "metrics.jsonl", "result.json", "checkpoints", "recorded", "comparison.json", "losses.f32")


log = logging.getLogger("jaxmlp")


def import_ahead() -> None:
    """Begins to import what a run's keeping needs, half a second in which data can be read and XLA can compile.

    A process that ends sooner, with an error, waits for it.
    """

    def slow_one() -> None:
        with contextlib.suppress(Exception):  # an interpreter that ends; other reasons come again with the need
            import_module("orbax.checkpoint")

    Thread(target=slow_one).start()  # no daemon: the interpreter is not to end under an import


class RunFolder:
    """Keeps a run as it goes, and lets nobody else write there meanwhile. Made by `RunFolder.open`; to be closed."""

    def __init__(self, path: Path, experiment: Experiment, lock: int) -> None:
        self.path, self.experiment, self._lock = path, experiment, lock
        self.saver = Saver(path / "checkpoints", experiment, partial(refuse_lost, path, lock))
        self._events: Any = None

    @staticmethod
    def open(
        path: str | PathLike[str],
        experiment: Experiment,
        dataset: Dataset,
        checksum: str,
        scale: Scale | None,
        resume: bool,
    ) -> "RunFolder":
        """A new run in the folder `path`, which is made where it doesn't exist; or the run that is there, to go on.

        `dataset` is what is trained on, `checksum` that of the whole that it was cut from.

        Raises:
            RunError: where somebody else trains there; where the folder holds a run already (it is left as it is) and
                `resume` isn't set, or holds one of other settings; or where it can't be written.
        """
        path = Path(path)
        RunFolder.refuse_used(path, resume=resume)
        settings = {
            "experiment": experiment.as_dict(),
            "dataset": {
                "name": dataset.name,
                "labelled": dataset.labelled,
                "train": dataset.train.size,
                "test": dataset.test.size,
                CHECKSUM: checksum,
            }
            | ({} if scale is None else {name: array.tolist() for name, array in scale._asdict().items()}),
        }
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            lock = locked(path)
        try:
            if resume and (path / "config.json").exists():
                refuse_other_settings(path, settings)
            else:
                RunFolder.refuse_used(path, ours=True)  # once more: another process may have been here
                with writing(path):
                    write_json(path / "config.json", settings | {"environment": environment()})
            return RunFolder(path, experiment, lock)
        except BaseException:
            os.close(lock)
            raise

    @staticmethod
    def refuse_used(path: Path, *, resume: bool = False, ours: bool = False, sweep: bool = False) -> None:
        """Raises a RunError where the folder holds a run, but one to `resume`, or files that a run would overwrite.

        So it does where runs have folders of their own in there, unless it is for a `sweep`. It is `ours` where we have
        locked it.
        """
        if resume and (path / "config.json").exists():
            return
        used = [name for name in FILES if (path / name).exists()]
        if used and not ours and is_locked(path):
            raise RunError(trained_by_another(path))
        if used:
            lost = "" if "config.json" in used else " whose config.json is gone"
            state = f"{', '.join(used)}, perhaps of an unfinished run{lost},"
            for name, what in (("comparison.json", "a comparison"), ("result.json", "a finished run")):
                state = what if name in used else state
            resumable = "config.json" in used and not {"comparison.json", "result.json"} & {*used}
            hint = "resume it (--resume), " if resumable else ""
            raise RunError(f"{path}: holds {state} already: expected a new folder; {hint}choose another, or remove it")
        theirs = (one.with_name(name) for one in path.glob("*/config.json") for name in FILES[1:])
        if not sweep and any(file.exists() for file in theirs):
            raise RunError(f"{path}: holds runs in folders of their own: expected a new folder; choose another")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with writing(self.path):
            refuse_lost(self.path, self._lock)
            yield

    def newest(self, like: TrainState) -> Snapshot | None:
        """The newest whole checkpoint; None where there is none. See `checkpoints.newest`."""
        with writing(self.path):
            return newest(self.path / "checkpoints", like, self.experiment, aside=True)

    def ended(self) -> Run | None:
        """The run, if it has come to its end; None too where its last checkpoint or its lines are not whole."""
        if not (self.path / "result.json").exists():
            return None
        with contextlib.suppress(RunError):
            run, lines = load(self.path), read(self.path).history
            if len(run.history) == len(lines) == self.experiment.train.epochs:
                return run
        return None

    @property
    def begun(self) -> bool:
        """Whether an epoch has ended here before."""
        left = [self.path / name for name in ("metrics.jsonl", "losses.f32", "result.json")]
        return any(file.exists() and file.stat().st_size > 0 for file in left)

    def begin(self, history: tuple[EpochRecord, ...], steps: int) -> None:
        """Goes back to the end of `history`, `steps` after the start, from where a killed run may have gone on.

        TensorBoard's events are written anew: it doesn't show those that were there any more.
        """
        from jaxmlp.training.events import Events

        with self._writing():
            lines = "".join(json.dumps(as_json(record), allow_nan=False) + "\n" for record in history)
            write_whole(self.path / "metrics.jsonl", lines.encode())
            losses = read_losses(self.path)[:steps]
            kept = self.experiment.privacy.epsilon is None and not self.experiment.record.quantities
            if kept and losses.size < steps:
                log.warning("jaxmlp: %s: losses of steps are missing: NaN takes their place", self.path / "losses.f32")
                losses = np.append(losses, np.full(steps - losses.size, np.nan, np.float32))
            write_whole(self.path / "losses.f32", losses.tobytes())
            for ending in ("stopped.json", "result.json"):
                (self.path / ending).unlink(missing_ok=True)
            self._events = Events(self.path / "tensorboard")
            for record, part in zip(history, np.array_split(losses, max(1, len(history))), strict=False):
                self._events.add(record, part, steps // len(history) * record.epoch)

    def append(
        self,
        record: EpochRecord,
        losses: Float[np.ndarray, " step"],
        steps: int,
        recording: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Keeps an epoch: first what it recorded, last its line. It ended `steps` after the start."""
        with self._writing():
            if recording is not None:
                (self.path / "recorded").mkdir(exist_ok=True)
                write_arrays(self.path / "recorded" / f"{record.epoch}.npz", recording)
            append_whole(self.path / "losses.f32", losses.tobytes())
            append_whole(self.path / "metrics.jsonl", (json.dumps(as_json(record), allow_nan=False) + "\n").encode())
            self._events.add(record, losses, steps)

    def stopped(self, kind: str, message: str) -> None:
        """Keeps why the run ended before its end; not where nothing can be kept any more."""
        with contextlib.suppress(RunError), self._writing():
            write_json(self.path / "stopped.json", {"kind": kind, "message": message})

    def finish(self, result: Result) -> None:
        """Keeps the end, when all checkpoints are on the disk."""
        self.saver.wait()
        with self._writing():
            write_json(self.path / "result.json", as_json(result))

    def close(self) -> None:
        """Lets others write there again."""
        self.saver.end()
        if self._events is not None:
            self._events.close()
        os.close(self._lock)


def locked(folder: Path) -> int:
    """A lock on the folder, which ends with its file descriptor or with the process, however that dies.

    Raises:
        RunError: where another process holds it.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        for patience in reversed(range(10)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if patience:  # somebody may only be looking whether it is locked
                    time.sleep(0.05)
                    continue
                raise RunError(trained_by_another(folder)) from None
        refuse_lost(folder, descriptor)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def refuse_lost(folder: Path, lock: int) -> None:
    """Raises an OSError where the folder's lock is another file than that descriptor's.

    The folder, or its lock, was taken away, and what is there now may be somebody else's.
    """
    try:
        same = os.path.samestat((folder / "lock").stat(), os.fstat(lock))
    except FileNotFoundError:
        same = False
    if not same:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))


def trained_by_another(folder: Path) -> str:
    holder = (folder / "lock").read_text(errors="replace").strip()
    return (
        f"{folder}: process {holder or 'unknown'} is training there: expected no other; wait for it, or choose another "
        "folder"
    )


def is_locked(folder: Path) -> bool:
    """Whether a process is training there."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def refuse_other_settings(path: Path, settings: dict[str, Any]) -> None:
    """Raises a RunError where the run in the folder is of other settings, or can't be read."""
    try:
        there = json.loads((path / "config.json").read_text())
        kept = {name: there[name] for name in settings}
        kept["experiment"] = Experiment.from_dict(kept["experiment"]).as_dict()
        kept["dataset"] = {CHECKSUM: settings["dataset"][CHECKSUM], **kept["dataset"]}
    except UNREADABLE as error:
        raise RunError(f"{path / 'config.json'}: the run can't be read: {reason_of(error)}") from error
    ours, theirs = flat(json.loads(json.dumps(settings))), flat(json.loads(json.dumps(kept)))
    other = [
        f"{name.removeprefix('experiment.')} was {theirs.get(name)}, and is {ours.get(name)}"
        for name in {**theirs, **ours}
        if ours.get(name) != theirs.get(name) and not name.startswith("experiment.checkpoint.")
    ]
    if other:
        raise RunError(
            f"{path}: {'; '.join(other)}: expected the settings that the run began with; choose another folder for "
            "others, by --workdir"
        )


CHECKSUM = "checksum"
"""Runs from before there was one have none in their config.json."""
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a file of a run may raise, whatever stands in it."""


def reason_of(error: BaseException) -> str:
    """Why a file of a run can't be read, in a line."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    if isinstance(error, json.JSONDecodeError):
        return f"it is no whole JSON: {error}"
    if isinstance(error, TypeError | AttributeError):
        return "it isn't laid out as a run's is"
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else " ".join(str(error).split())


def flat(settings: Any, name: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    if not isinstance(settings, dict):
        return {name: settings}
    parts = (flat(value, f"{name}.{key}".removeprefix(".")) for key, value in settings.items())
    return {key: value for part in parts for key, value in part.items()}


def environment() -> dict[str, Any]:
    """What else the run may depend on."""
    packages = ("jaxmlp", "jax", "jaxlib", "numpy", "optax", "orbax-checkpoint")
    return {
        "versions": {"python": platform.python_version()} | {package: version(package) for package in packages},
        "devices": [device.device_kind for device in jax.devices()],
        "machine": platform.platform(),
        "git": git_revision(),
        "command": sys.argv,
    }


def git_revision() -> str | None:
    """The commit of the current folder, with + where files differ from it; None where there is none."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns the system's errors into a RunError that names the folder."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        in_the_way = "; a file is where a folder is to be" * isinstance(error, FileExistsError | NotADirectoryError)
        raise RunError(f"{folder}: can't be written: {reason}{in_the_way}") from error


def probe(folder: Path) -> None:
    """Raises the OSError that making the folder or a file in it would, and makes nothing."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that at every instant, and after a power failure, it is whole: the old one or the new one."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as file:  # a new file, and no link that somebody laid there
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        part.unlink(missing_ok=True)
        raise
    part.replace(path)
    flush(path.parent)


def append_whole(path: Path, line: bytes) -> None:
    """Appends all of the line, or nothing: on a full disk a part of it might fit.

    The file must be there: that it has gone is an error.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
    try:
        size = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an NPZ file, whole at every instant."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_whole(path, content.getvalue())


def shape_of_state(experiment: Experiment) -> TrainState:
    """The structure, shapes and types of the experiment's training state, without its numbers."""

    def state() -> TrainState:
        params = init(jax.random.key(0), experiment.network)
        return TrainState(params, make(experiment.optimizer, experiment.schedule).init(params))

    shape: TrainState = jax.eval_shape(state)
    return shape


@dataclass(frozen=True)
class Kept:
    """What a run's folder says of it, but for its parameters.

    Attributes:
        stopped: Its `kind`, such as diverged, and the `message`, where it ended before its end and could say so.
        data: What config.json says of the data set: its name, sizes and checksum.
    """

    experiment: Experiment
    labelled: bool
    environment: dict[str, Any]
    history: tuple[EpochRecord, ...]
    result: Result | None
    stopped: dict[str, str] = field(default_factory=dict)
    scale: Scale | None = None
    data: dict[str, Any] = field(default_factory=dict)


def read(path: str | PathLike[str]) -> Kept:
    """What the folder says.

    Raises:
        RunError: where the folder holds no run, or a damaged one.
    """
    folder = Path(path)
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text())
        experiment, labelled = Experiment.from_dict(config["experiment"]), bool(config["dataset"]["labelled"])
        scale = scale_in(config["dataset"], experiment)
        surroundings = dict(config.get("environment", {}))
        file = folder / "metrics.jsonl"  # not there before the first epoch begins
        history = history_of(file.read_bytes().splitlines() if file.exists() else [])
        file = folder / "result.json"
        result = from_json(Result, json.loads(file.read_text())) if file.exists() else None
        file = folder / "stopped.json"
        stopped = {name: str(value) for name, value in json.loads(file.read_text()).items()} if file.exists() else {}
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "holds a comparison, not a run" if (folder / "comparison.json").exists() else f"no {file.name} in there"
        if any(folder.glob("*/config.json")):
            what = f"holds runs, which `jaxmlp runs {shlex.quote(str(folder))}` lists, and is none"
        what = what if folder.is_dir() else "is a file" if folder.exists() else "no such folder"
        raise RunError(f"{folder}: {what}: expected the folder of a run") from error
    except UNREADABLE as error:
        mendable = file.name != "config.json" and not isinstance(error, OSError)
        mended = "; --resume mends it" if mendable else ""
        raise RunError(f"{file}: the run can't be read: {reason_of(error)}{mended}") from error
    return Kept(experiment, labelled, surroundings, history, result, stopped, scale, dict(config["dataset"]))


def scale_in(dataset: dict[str, Any], experiment: Experiment) -> Scale | None:
    """How config.json says that inputs were standardised."""
    if not experiment.data.standardize:
        return None
    mean, deviation = (np.asarray(dataset[name], np.float32) for name in ("mean", "deviation"))
    if not mean.shape == deviation.shape == experiment.network.sizes[:1]:
        raise ValueError(f"dataset.mean has shape {mean.shape}: expected {experiment.network.sizes[:1]}")
    return Scale(mean, deviation)


def read_losses(folder: Path) -> Float[np.ndarray, " steps"]:
    """The mean loss of every step of the epochs that have ended; of none, where the run has kept none."""
    file = folder / "losses.f32"
    return np.fromfile(file, np.float32) if file.exists() else np.zeros(0, np.float32)


def load(path: str | PathLike[str], *, best: bool = False) -> Run:
    """The run in a folder, with the parameters of its newest checkpoint; or as it was at its best epoch by validation.

    The latter has that epoch's history, and no result.

    Raises:
        RunError: where the folder holds none, or a damaged one, or no epoch has been validated.
    """
    kept, folder = read(path), Path(path) / "checkpoints"
    like = shape_of_state(kept.experiment)
    snapshot = newest(folder, like, kept.experiment, aside=False)
    if snapshot is None:
        none = kept.stopped.get("message", "no epoch has ended yet")
        why = "they are damaged or gone, and --resume trains anew" if kept.history else none
        raise RunError(f"{folder}: no checkpoint is whole: {why}")
    if kept.result is not None and len(snapshot.history) != kept.result.epochs:
        log.warning("jaxmlp: %s: its last checkpoint is gone; --resume trains it again", path)
    if not best:
        return Run(kept.experiment, kept.labelled, snapshot.state.params, snapshot.history, kept.result, kept.scale)
    if snapshot.best is None:
        raise RunError(f"{path}: no epoch has been validated: expected best=False")
    snapshot = restore(path_of(folder, snapshot.best), like, kept.experiment)
    return Run(kept.experiment, kept.labelled, snapshot.state.params, snapshot.history, None, kept.scale)
