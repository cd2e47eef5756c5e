"""Data sets of TensorFlow Datasets kept as arrays, so that a second start needs no package of theirs.

A file a version, `CACHE/mnist/3.0.1.npz` or `CACHE/emnist/letters/3.1.0.npz`: an uncompressed NPZ file of the four
arrays and a note about them. It is written whole. NumPy checks its checksums when it is read. It holds no pickles.
"""

import contextlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlp.data.dataset import Numbers
from jaxmlp.data.npz import NAMES, read_arrays
from jaxmlp.errors import DataError

VERSION = re.compile(r"\d+\.\d+\.\d+")
ABANDONED = 3600
"""Seconds after which a file that was not written to its end will not be, such as of a process that was killed."""
FORM = 1
"""Of the files; one of another form is made again."""

log = logging.getLogger("jaxmlp")


@dataclass(frozen=True)
class Note:
    """What is known of a data set without its arrays.

    Attributes:
        train: Training examples.
        test: Test examples.
        shape: Of an example.
        classes: How many.
        names: What the classes are called; none where they are numbers.
        stamp: Of the folder that it was read from: see jaxmlp.data.tfds.stamp.
    """

    train: int | None
    test: int | None
    shape: tuple[int, ...] | None
    classes: int | None
    names: tuple[str, ...] = ()
    stamp: tuple[int, ...] = ()


def expanded(path: str) -> Path:
    """The path with a home folder for its ~.

    Raises:
        DataError: where there is none.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: no such home folder: expected one, or a path without ~") from error


def home() -> Path:
    """The folder of all that is kept, in $XDG_CACHE_HOME or ~/.cache."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if Path(given).is_absolute() else expanded("~/.cache")  # as the XDG specification asks
    return base / "jaxmlp" / "tfds"


def newest(versions: Iterable[str]) -> str | None:
    """The highest version, or None where there is none.

    >>> newest(["3.0.1", "10.0.0", "9.9.9"])
    '10.0.0'
    """
    return max(versions, key=ordered, default=None)


def ordered(version: str) -> list[int]:
    """The key by which versions are in order."""
    return [*map(int, version.split("."))]


def kept(name: str) -> dict[str, Path]:
    """The file of each version that is kept of a data set, named with its config, if it has one."""
    files = (home() / name).glob("*.npz")
    return {path.stem: path for path in files if VERSION.fullmatch(path.stem)}


def file_of(name: str, version: str) -> Path:
    """Where a version of a data set is kept."""
    return home() / name / f"{version}.npz"


def read_note(path: Path) -> Note:
    """The note in a file that is kept.

    Raises:
        DataError: where it can't be read.
    """
    [content] = read_arrays(path, ["note"])
    try:
        fields: dict[str, Any] = json.loads(content.tobytes())
        if fields.pop("form") != FORM:
            raise ValueError("another form")
        whole: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        }
        return Note(**whole)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: its note can't be read ({error}): expected what jaxmlp wrote") from error


def read(path: Path) -> tuple[Note, list[Numbers]]:
    """The note and the four arrays in a file that is kept.

    Raises:
        DataError: where it is damaged.
    """
    note, arrays = read_note(path), read_arrays(path, NAMES)
    counts = [len(array) if array.ndim else 0 for array in arrays]
    if counts != [note.train, note.train, note.test, note.test] or arrays[0].shape[1:] != note.shape:
        raise DataError(f"{path}: its arrays are not those of its note: expected what jaxmlp wrote")
    return note, arrays


def keep(path: Path, note: Note, arrays: list[Numbers]) -> None:
    """Writes a file so that at every instant it is whole. Where that can't be, says so and goes on: it is a cache."""
    content = np.frombuffer(json.dumps({"form": FORM, **asdict(note)}).encode(), np.uint8)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob("*.part"):
            with contextlib.suppress(OSError):  # another process may take it away, too
                if time.time() - left.stat().st_mtime > ABANDONED:
                    left.unlink()
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            part = Path(file.name)
            np.savez(file, allow_pickle=False, note=content, **dict(zip(NAMES, arrays, strict=True)))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink()
        log.warning(
            "jaxmlp: %s: can't be kept (%s); the next start takes as long as this one", path, error.strerror or error
        )


def default_config(name: str) -> str | None:
    """The config that a data set has where none is named, as `keep_default` kept it."""
    try:
        config = (home() / name / "default_config").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return config if re.fullmatch(r"\w[\w.+-]*", config) else None


def keep_default(name: str, config: str) -> None:
    """Keeps which config a data set has where none is named."""
    with contextlib.suppress(OSError):
        (home() / name).mkdir(parents=True, exist_ok=True)
        (home() / name / "default_config").write_text(config)
