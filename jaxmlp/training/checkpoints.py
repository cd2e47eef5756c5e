"""Checkpoints: where a run stands, kept so that at every instant one of them is whole.

    checkpoints/STEP/            STEP is the number of steps since the start
        state/                   the parameters and the optimizer's state, written by Orbax
        place.json               what has been said of the epochs that have ended, how long it took, whose it is
        digests.json             the sha256 of every other file

A checkpoint is written under another name, flushed to the disk, and takes its own name when it is whole; only then do
older ones go. There is nothing in it but numbers and text, and restoring one runs no code that it brings along.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxmlp.errors import RunError
from jaxmlp.training.config import Experiment
from jaxmlp.training.epoch import TrainState
from jaxmlp.training.records import EpochRecord, as_json, best, history_of

PART, ASIDE = ".part", "damaged-"
log = logging.getLogger("jaxmlp")


class DamagedError(RunError):
    """A checkpoint that is not as it was written."""


@dataclass(frozen=True)
class Snapshot:
    """Where training stands: all that it takes to go on as if nothing had happened.

    The order of the examples and all keys are functions of the experiment's seed, the epoch and the step.

    Attributes:
        state: NumPy arrays.
        epoch: The one being trained, from 1.
        losses: The mean losses of its steps so far.
        steps: Those since the start of the run.
        seconds: Spent on the epoch so far.
        wall_seconds: Spent on the run so far.
        history: Of the epochs before.
    """

    state: TrainState
    epoch: int
    losses: Float[np.ndarray, " step"]
    steps: int
    seconds: float
    wall_seconds: float
    history: tuple[EpochRecord, ...]

    @property
    def best(self) -> int | None:
        """Steps at the end of the best epoch by validation; None where there is none."""
        chosen = best(self.history)
        return None if chosen is None else (self.steps - self.losses.size) // len(self.history) * chosen


def host_copy(state: TrainState) -> TrainState:
    """The state as NumPy arrays of their own."""
    copy: TrainState = jax.tree.map(np.array, jax.device_get(state))
    return copy


def digest_of(experiment: Experiment) -> str:
    """Of the settings that decide how a run goes: all but how it is kept."""
    settings = {name: value for name, value in experiment.as_dict().items() if name != "checkpoint"}
    if settings["data"]["examples"] is None:  # runs from before there was such a setting have the digest without
        del settings["data"]["examples"]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def layout_of(state: TrainState) -> list[list[Any]]:
    """Each leaf's name, shape and type."""
    return [
        [jax.tree_util.keystr(path), [*leaf.shape], str(leaf.dtype)] for path, leaf in jax.tree.leaves_with_path(state)
    ]


def path_of(folder: Path, steps: int) -> Path:
    """Where the checkpoint is that was made so many steps after the start."""
    return folder / f"{steps:012}"


def write(folder: Path, snapshot: Snapshot, experiment: Experiment) -> None:
    """Writes a checkpoint into `folder`, where it appears when it is whole and on the disk.

    What was there before is left as it is, also where this can't be written: OSError, or whatever Orbax raises.
    """
    path = path_of(folder, snapshot.steps)
    if path.exists():  # the same, since training is deterministic
        return
    part = folder / (path.name + PART)
    shutil.rmtree(part, ignore_errors=True)
    try:
        folder.mkdir(exist_ok=True)
        part.mkdir()
        made = part.stat().st_ino
        arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(snapshot.state))}
        if snapshot.losses.size:  # Orbax takes no empty arrays
            arrays["losses"] = snapshot.losses
        checkpointer().save((part / "state").absolute(), arrays)
        if part.stat().st_ino != made:  # the run's folder was taken away meanwhile, and Orbax made it anew
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        place = {
            "experiment": digest_of(experiment),
            "leaves": layout_of(snapshot.state),
            "seconds": snapshot.seconds,
            "wall_seconds": snapshot.wall_seconds,
            "history": [as_json(record) for record in snapshot.history],
        }
        (part / "place.json").write_text(json.dumps(place, allow_nan=False))
        (part / "digests.json").write_text(json.dumps(digests(part)))
        for flushed in (*part.rglob("*"), part):
            flush(flushed)
        part.rename(path)
        flush(folder)
        flush(folder.parent)  # in which `folder` may be new
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        for left in (folder, folder.parent):
            with contextlib.suppress(OSError):  # unless there is anything in it
                left.rmdir()
        raise


def checkpointer() -> Any:
    """Orbax's, imported when it is first needed, since that takes a third of a second."""
    import orbax.checkpoint

    logging.getLogger("absl").setLevel(logging.CRITICAL + 1)  # it logs what it raises too, with tracebacks
    return orbax.checkpoint.PyTreeCheckpointer()


def digests(path: Path) -> dict[str, str]:
    """The sha256 of every file below but digests.json, by its name from there."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file != path / "digests.json")
    return {file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def flush(path: Path) -> None:
    """Has the system write a file, or a folder's list of files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_place(path: Path) -> dict[str, Any]:
    """What a checkpoint's place.json says.

    Raises:
        DamagedError: where any file of the checkpoint is not as it was written.
    """
    try:
        expected = dict(json.loads((path / "digests.json").read_text()))
        found = digests(path)
        place = dict(json.loads((path / "place.json").read_text()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DamagedError(f"{path}: the checkpoint is damaged: {reason(error)}") from error
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if wrong:
        raise DamagedError(f"{path}: the checkpoint is damaged: {wrong[0]} is not what was written")
    return place


def restore(path: Path, like: TrainState, experiment: Experiment) -> Snapshot:
    """The checkpoint at `path`, whose state is to have the structure, shapes and types of `like`.

    Raises:
        DamagedError: where it is damaged.
        RunError: where it doesn't fit `like` or the experiment.
    """
    import orbax.checkpoint  # noqa: F401  (before the files are looked at, which may be retired meanwhile)

    place, layout = read_place(path), layout_of(like)
    try:
        for found, expected in zip_longest(place["leaves"], layout):
            if found != expected:
                raise RunError(f"{path}: the checkpoint has {found}: expected {expected}")
        if place["experiment"] != digest_of(experiment):
            raise RunError(f"{path}: the checkpoint is of other settings")
        history = history_of(place["history"])
        arrays = checkpointer().restore((path / "state").absolute())
        leaves = [np.asarray(arrays[str(i)]) for i in range(len(layout))]
        state: TrainState = jax.tree.unflatten(jax.tree.structure(like), leaves)
        if layout_of(state) != layout:
            raise RunError(f"{path}: the checkpoint has {layout_of(state)}: expected {layout}")
        snapshot = Snapshot(
            state=state,
            epoch=len(history) + 1,
            losses=np.asarray(arrays.get("losses", np.zeros(0, np.float32))),
            steps=int(path.name),
            seconds=float(place["seconds"]),
            wall_seconds=float(place["wall_seconds"]),
            history=history,
        )
        before = snapshot.steps - snapshot.losses.size  # those of the epochs that have ended
        if snapshot.losses.dtype != np.float32 or snapshot.losses.ndim != 1 or before < len(history):
            raise RunError(f"{path}: the checkpoint has {before:,} steps in {len(history)} epochs: expected more")
        if len(history) > experiment.train.epochs:
            most = experiment.train.epochs
            raise RunError(f"{path}: the checkpoint has {len(history)} epochs: expected {most} at most")
        return snapshot
    except RunError:
        raise
    except Exception as error:  # of whatever kind Orbax raises, for files that are as they were written
        raise RunError(f"{path}: the checkpoint can't be restored: {reason(error)}") from error


def kept(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, from the oldest to the newest."""
    return sorted(path for path in folder.glob("*") if path.name.isdecimal() and path.is_dir())


def newest(folder: Path, like: TrainState, experiment: Experiment, aside: bool) -> Snapshot | None:
    """The newest checkpoint that is as it was written; of damaged ones there is a warning. None where there is none.

    With `aside` those are renamed, so that nobody looks at them again, and what a killed process left is cleared away.

    Raises:
        RunError: where it doesn't fit the experiment.
        OSError: where something can't be renamed.
    """
    for part in folder.glob(f"*{PART}") if aside else ():
        shutil.rmtree(part, ignore_errors=True)
    damaged = 0
    seen: set[Path] = set()
    while new := [path for path in kept(folder) if path not in seen]:
        path = new[-1]
        seen.add(path)
        try:
            return restore(path, like, experiment)
        except RunError as error:
            if not path.exists():  # retired meanwhile, by the process that trains
                continue
            if not isinstance(error, DamagedError):
                raise
            damaged += 1
            log.warning("jaxmlp: %s; it is %s", error, "set aside" if aside else "left out")
            if aside:
                set_aside(path)
    if damaged:
        log.warning("jaxmlp: %s: no checkpoint is whole", folder)
    return None


def set_aside(path: Path) -> None:
    target, n = path.with_name(ASIDE + path.name), 1
    while target.exists():
        n += 1
        target = path.with_name(f"{ASIDE}{path.name}-{n}")
    path.rename(target)


def retire(folder: Path, keep: int, spared: int | None) -> None:
    """Removes all but the newest `keep` checkpoints and the one that was made `spared` steps after the start."""
    for path in kept(folder)[:-keep]:
        if spared is None or path != path_of(folder, spared):
            gone = path.with_name(path.name + PART)
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


REST = 4
"""Times as long as writing took, the writer rests: it competes with the training for the processor."""


class Saver:
    """Writes checkpoints in a thread of its own while training goes on.

    Of the snapshots that come while it writes or rests, the newest is written, and the best one by validation.
    """

    def __init__(self, folder: Path, experiment: Experiment, ready: Callable[[], None] = lambda: None) -> None:
        """`ready` raises an OSError where the folder is not to be written into any more."""
        self.folder, self.experiment, self._ready = folder, experiment, ready
        self._changed = Condition()
        self._waiting: dict[str, Snapshot] = {}
        self._busy, self._ended, self._hurried = False, False, False
        self._error: BaseException | None = None
        self._thread = Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()

    def save(self, snapshot: Snapshot) -> None:
        """Has the snapshot written, soon.

        Raises:
            RunError: where an earlier one could not be written.
        """
        with self._changed:
            self._raise()
            self._waiting["newest"] = snapshot
            if snapshot.steps == snapshot.best:
                self._waiting["best"] = snapshot
            self._changed.notify_all()

    def wait(self) -> None:
        """Until all that was given is on the disk.

        Raises:
            RunError: where it could not be written.
        """
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not (self._waiting or self._busy) or self._error is not None)
            self._hurried = False
            self._raise()

    def end(self) -> None:
        """Ends the thread once it has written all that it was given."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _raise(self) -> None:
        if isinstance(self._error, MemoryError):
            raise self._error
        if self._error is not None:
            raise RunError(f"{self.folder}: can't be written: {reason(self._error)}") from self._error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return
                begun = time.perf_counter()
                snapshots = sorted({id(s): s for s in self._waiting.values()}.values(), key=lambda s: s.steps)
                self._waiting, self._busy = {}, True
            try:
                self._ready()
                for name in ("metrics.jsonl", "losses.f32"):  # what the checkpoint relies on comes first
                    flush(self.folder.parent / name)
                for snapshot in snapshots:
                    write(self.folder, snapshot, self.experiment)
                    retire(self.folder, self.experiment.checkpoint.keep, snapshot.best)
            except BaseException as error:  # of whatever kind Orbax raises; this thread is to live on
                with self._changed:
                    self._error = error
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                pause = REST * (time.perf_counter() - begun)
                self._changed.wait_for(lambda: self._hurried or self._ended, timeout=pause)


KNOWN = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT, errno.EIO)]


def reason(error: BaseException) -> str:
    """Why the system refused, in its own words where they are known."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    text = " ".join(str(error).split()) or type(error).__name__
    return next((known for known in KNOWN if known in text), text)
