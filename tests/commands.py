"""The command in a process that has been forked."""

import os
from pathlib import Path

from jaxmlp.cli import main


def run_at(place: Path, arguments: tuple[str, ...]) -> None:
    """Runs the command in a folder, which is to have its standard error as a file, and ends the process."""
    os.chdir(place)
    with Path("stderr").open("wb") as errors, Path(os.devnull).open("wb") as nowhere:
        os.dup2(errors.fileno(), 2)
        os.dup2(nowhere.fileno(), 1)
    raise SystemExit(main(arguments))
