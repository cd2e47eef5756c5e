"""The `jaxmlp` command: a function a subcommand. Each imports what it needs, so that `--help` need not wait for JAX."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from jaxmlp.errors import ExperimentError, JaxmlpError

if TYPE_CHECKING:
    from jaxmlp.training.config import Experiment


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        order = "; options come after EXPERIMENT" if "EXPERIMENT" in message or "unrecognized" in message else ""
        self.exit(2, f"{self.prog}: {message}{order}; see {self.prog} --help\n")


def parser() -> Parser:
    top = Parser(prog="jaxmlp", description="Train multilayer perceptrons with a backward pass derived by hand.")
    commands = top.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)

    train = commands.add_parser(
        "train",
        help="train an experiment's network",
        usage="jaxmlp train EXPERIMENT [--workdir DIR] [--FIELD VALUE ...]",
        description="Train an experiment's network, and keep the run in a folder.",
        epilog="jaxmlp train EXPERIMENT --help lists every field with its meaning and the file's value.",
    )
    train.add_argument("experiment", metavar="EXPERIMENT", type=Path, help="such as experiments/lesson.py")
    rest = train.add_argument(
        "rest", nargs=argparse.REMAINDER, metavar="...", help="--workdir DIR, and fields to override"
    )
    rest.required = False  # argparse would name it among the missing
    train.set_defaults(run=lambda given: run_train(given.experiment, given.rest))

    devices = commands.add_parser("devices", help="list the devices that JAX sees")
    devices.set_defaults(run=lambda given: run_devices())
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0; 2 for what a person can put right; 130 after Ctrl-C."""
    given = parser().parse_args(arguments)
    try:
        given.run(given)
    except JaxmlpError as error:
        print(f"jaxmlp: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("jaxmlp: interrupted", file=sys.stderr)
        return 130
    return 0


def run_train(path: Path, arguments: Sequence[str]) -> None:
    from rich.console import Console

    from jaxmlp.training.devices import visible
    from jaxmlp.training.files import read_experiment
    from jaxmlp.training.fit import fit, load_for
    from jaxmlp.training.run import RunFolder
    from jaxmlp.views.progress import Progress
    from jaxmlp.views.tables import heading, result_table

    experiment, about = read_experiment(path)
    experiment, workdir = override(experiment, arguments, prog=f"jaxmlp train {path}", about=about)
    folder = workdir or unused(Path("runs") / path.stem)
    RunFolder.refuse_used(folder)  # before the data are read
    dataset, device = load_for(experiment), visible()[0]

    console = Console()
    console.print(heading(experiment, dataset, device), soft_wrap=True, highlight=False)
    with Progress(experiment.train.epochs, console) as progress:
        try:
            run = fit(experiment, dataset, workdir=folder, report=progress)
        except KeyboardInterrupt:
            kept = f"; {folder} keeps the run up to there" if progress.epoch else ""
            console.print(
                f"interrupted after {progress.epoch} of {experiment.train.epochs} epochs{kept}",
                soft_wrap=True,
                highlight=False,
            )
            raise
    assert run.result is not None
    console.print(result_table(run.result, folder))


def run_devices() -> None:
    from rich.console import Console

    from jaxmlp.training.devices import visible
    from jaxmlp.views.tables import device_table

    Console().print(device_table(visible()))


def unused(folder: Path) -> Path:
    """`folder`, or the first of folder-2, folder-3, ... that doesn't exist."""
    candidate, n = folder, 1
    while candidate.exists():
        n += 1
        candidate = folder.with_name(f"{folder.name}-{n}")
    return candidate


def override(
    experiment: "Experiment", arguments: Sequence[str], prog: str, about: str
) -> tuple["Experiment", Path | None]:
    """The experiment with the fields that the command line sets, and the folder that it names.

    Raises:
        ExperimentError: for an unknown field, or a value that the field can't have.
        SystemExit: after --help.
    """
    import contextlib
    import io
    from dataclasses import dataclass
    from typing import Annotated

    import tyro

    from jaxmlp.training.config import Experiment

    @dataclass(frozen=True)
    class Settings:
        experiment: Annotated[Experiment, tyro.conf.arg(name="")]
        workdir: Path | None = None
        """The run's folder; by default runs/ and the experiment's name."""

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            settings = tyro.cli(Settings, default=Settings(experiment), args=arguments, prog=prog, description=about)
    except SystemExit as end:
        if not end.code:
            raise
        raise ExperimentError(f"{_message(complaint.getvalue())}; {prog} --help lists every field") from None
    return settings.experiment, settings.workdir


def _message(box: str) -> str:
    """The message inside the box that tyro draws: a title, the message over several lines, a rule, and help."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", box).partition("\n")[2]
    sections = [
        " ".join(part.replace("│", " ").split()) for part in re.split(r"^[\s│╰╯─-]+$", plain, flags=re.MULTILINE)
    ]
    message, *help_ = [section for section in sections if section] or [box]
    message = re.sub(r"^Error parsing experiment[.\w]*: ", "", message).rstrip(".")
    near = re.search(r"^Perhaps you meant: (--[\w.-]+)", help_[0]) if help_ else None
    return f"{message}; did you mean {near[1]}?" if near else message
