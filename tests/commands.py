"""The command in a process that has been forked, where all that it takes has been imported."""

import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from jaxmlp.cli import main

PRELOADED = ["jaxmlp.training.fit", "jaxmlp.training.sweeps", "orbax.checkpoint", "tensorboardX", "tyro"]


class Ended(NamedTuple):
    """What a command left."""

    returncode: int | None
    stdout: str
    stderr: str


def forked_command(place: Path, *arguments: str) -> Ended:
    """Runs the command in a folder, in a process of its own that was forked before JAX had started anything."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as said:
        streams = [Path(said, name) for name in ("stdout", "stderr")]
        process = server.Process(target=run_at, args=(place, arguments, streams, {**os.environ}))
        process.start()
        process.join(60)
        process.kill()
        return Ended(process.exitcode, *(stream.read_text() for stream in streams))


def run_at(place: Path, arguments: tuple[str, ...], streams: list[Path], environment: dict[str, str]) -> None:
    os.chdir(place)
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams, start=1):
        with stream.open("wb") as file:
            os.dup2(file.fileno(), number)
    raise SystemExit(main(arguments))
