"""What TensorBoard shows of a run: event files, written without TensorFlow by tensorboardX."""

import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxmlp.training.records import EpochRecord


@contextlib.contextmanager
def in_part(package: str) -> Iterator[None]:
    """Modules of the package are imported within as if its `__init__`, which imports all the others, were empty.

    tensorboardX's imports PyTorch where that is installed, which takes a second. Who imports the package afterwards
    gets the whole of it; no other thread is to do so meanwhile.
    """
    spec = None if package in sys.modules else importlib.util.find_spec(package)
    if spec is None:  # all of it is there already, or nothing is
        yield
        return
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        for name in [*sys.modules]:  # a copy, as other threads import, too
            if name.partition(".")[0] == package:
                del sys.modules[name]


with in_part("tensorboardX"):
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary

POINTS = 50
"""Of an epoch's losses step by step; each is the mean over as many steps."""
SECONDS = 2.0
"""From one flush to the next, which waits for the disk."""


class Events:
    """Writes an event file into `folder`; of those that were there, TensorBoard shows nothing any more.

    In the caller's thread, other than tensorboardX's SummaryWriter, so that a full disk is the caller's error.
    """

    def __init__(self, folder: Path) -> None:
        self._flushed = time.monotonic()
        folder.mkdir(exist_ok=True)
        prefix = str((folder / "events").absolute())  # tensorboardX takes s3: and gs: at the beginning for a protocol
        self._writer = EventsWriter(prefix, f".{os.getpid()}.{time.time_ns()}")
        self._writer.write_event(Event(step=1, wall_time=time.time(), session_log=SessionLog(status=SessionLog.START)))

    def add(self, record: EpochRecord, losses: Float[np.ndarray, " step"], step: int) -> None:
        """An epoch that ended with step `step` of the run; `losses` are its steps' own."""
        scalars = {
            "train": record.train_loss,
            "validation": record.validation_loss,
            "validation_accuracy": record.validation_accuracy,
            "images_per_second": record.images_per_second,
        }
        for name, value in scalars.items():
            if value is not None:
                self._scalar(f"epoch/{name}", value, step)
        for part in np.array_split(np.arange(losses.size), min(POINTS, losses.size)) if losses.size else ():
            self._scalar("step/train", float(losses[part].mean()), step - losses.size + 1 + int(part[-1]))
        if time.monotonic() - self._flushed >= SECONDS:
            self._flush()

    def _flush(self) -> None:
        self._writer.flush()
        self._flushed = time.monotonic()

    def _scalar(self, name: str, value: float, step: int) -> None:
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
        self._writer.write_event(Event(step=step, wall_time=time.time(), summary=summary))

    def close(self) -> None:
        """Writes what is left; where the disk is full, that has been said of more important files."""
        with contextlib.suppress(OSError):
            self._writer.close()
