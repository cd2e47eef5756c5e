"""The `jaxmlp` command: a function a subcommand. Each imports what it needs, so that `--help` need not wait for JAX."""

import argparse
import atexit
import contextlib
import difflib
import gc
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jaxmlp.errors import ExperimentError, JaxmlpError, StoppedError
from jaxmlp.interrupts import Interrupts

if TYPE_CHECKING:
    from jaxmlp.data.dataset import Dataset
    from jaxmlp.training.check import Checked
    from jaxmlp.training.compare import Pair
    from jaxmlp.training.config import Experiment
    from jaxmlp.training.files import ExperimentFile
    from jaxmlp.training.records import EpochRecord
    from jaxmlp.training.sweeps import Swept
    from jaxmlp.views.terminal import Terminal


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        misplaced = "EXPERIMENT" in message or "unrecognized arguments: -" in message
        order = "; options come after EXPERIMENT" if misplaced else ""
        self.exit(2, f"{self.prog}: {message}{order}; see {self.prog} --help\n")


def parser() -> Parser:
    from importlib.metadata import version

    top = Parser(prog="jaxmlp", description="Train multilayer perceptrons with a backward pass derived by hand.")
    top.add_argument("--version", action="version", version=f"jaxmlp {version('jaxmlp')}")
    commands = top.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)

    for name, option, run, about in (
        ("train", "--workdir DIR] [--resume", run_train, "train an experiment's network, and keep the run in a folder"),
        ("check", "--json FILE", run_check, "check the hand-derived gradient on an experiment's network and data"),
        (
            "compare",
            "--workdir DIR",
            run_compare,
            "train with the hand-derived and the automatic gradient, side by side",
        ),
        ("sweep", "--workdir DIR", run_sweep, "train the many runs that an experiment's file asks for, and draw them"),
    ):
        command = commands.add_parser(
            name,
            help=about,
            usage=f"jaxmlp {name} EXPERIMENT [{option}] [--FIELD VALUE ...]",
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=f"jaxmlp {name} EXPERIMENT --help lists every field with its meaning and the file's value.",
        )
        command.add_argument("experiment", metavar="EXPERIMENT", type=Path, help="such as experiments/lesson.py")
        rest = command.add_argument(
            "rest", nargs=argparse.REMAINDER, metavar="...", help="options and fields to override"
        )
        rest.required = False  # argparse would name it among the missing
        command.set_defaults(run=lambda given, interrupts, run=run: run(given.experiment, given.rest, interrupts))

    diagnose = commands.add_parser(
        "diagnose",
        help="say what stands out in a run that recorded, and draw a page of it",
        description="Says in words what stands out in a run that recorded, and draws RUN/diagnosis.png.",
    )
    diagnose.add_argument("folder", metavar="RUN", type=Path, help="a run's folder, such as runs/lesson")
    diagnose.set_defaults(run=lambda given, interrupts: run_diagnose(given.folder))

    runs = commands.add_parser(
        "runs",
        help="list runs, with the settings in which they differ and their results",
        description="Lists the runs in a folder, with the settings in which they differ and their results.",
    )
    runs.add_argument("folder", metavar="DIR", type=Path, nargs="?", default=Path("runs"), help="by default runs/")
    runs.set_defaults(run=lambda given, interrupts: run_runs(given.folder))

    show = commands.add_parser(
        "show",
        help="show a run: its settings, how it stands, its curves",
        description="Shows a run: its settings, how it stands, its curves; and draws RUN/curves.png.",
    )
    show.add_argument("folder", metavar="RUN", type=Path, help="a run's folder, such as runs/lesson")
    show.set_defaults(run=lambda given, interrupts: run_show(given.folder))

    data = commands.add_parser(
        "data",
        help="list the data sets that are there, or show some, with a picture of their images",
        description="Lists the data sets that are in the package, in the standard folder of TensorFlow Datasets and in "
        "the cache; or shows those that are named, and draws their first images, a class a row.",
    )
    data.add_argument(
        "sources", metavar="SOURCE", nargs="*", help="as data.source has it: mnist, idx:DIR, npz:FILE, tfds:NAME"
    )
    data.add_argument(
        "--png", metavar="FILE", type=Path, help="for the picture of a single SOURCE; by default its name and .png"
    )
    data.set_defaults(run=lambda given, interrupts: run_data(given.sources, given.png))

    devices = commands.add_parser("devices", help="list the devices that JAX sees")
    devices.set_defaults(run=lambda given, interrupts: run_devices())
    return top


def command() -> NoReturn:
    """The program `jaxmlp`: runs `main` on its arguments, and ends the process.

    When all that is to be done at the end is done, the process ends at once: to take the interpreter apart takes a
    tenth of a second, and may crash under threads of libraries in C++.
    """
    status: int | None = None

    def end() -> None:
        with contextlib.suppress(OSError, ValueError):  # of a full disk the interpreter's own end tells
            if status is not None:
                for stream in filter(None, (sys.stdout, sys.stderr)):
                    stream.flush()
                os._exit(status)

    atexit.register(end)  # the first to be registered is the last to be called
    status = main()
    sys.exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status.

    That is 0; 1 for a failed check or a diverged run; 2 for what a person can put right; 130 after Ctrl-C, 143 after
    SIGTERM.
    """
    interrupts = Interrupts()  # before anything else, and for good
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # for terminals and pipes that know few characters
    gc.disable()  # until `started`
    sys.unraisablehook = unless_closed(sys.unraisablehook)
    try:
        given = parser().parse_args(arguments)
        status: int = given.run(given, interrupts)
    except StoppedError as error:
        print(f"jaxmlp: {error}", file=sys.stderr)
        return interrupts.status
    except JaxmlpError as error:
        print(f"jaxmlp: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # of what is printed without a Terminal, such as --help
        from jaxmlp.views.terminal import BROKEN_PIPE

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end
        return BROKEN_PIPE
    except MemoryError as error:  # before or after the training, which says more
        print(f"jaxmlp: out of memory{f': {error}' if str(error) else ''}", file=sys.stderr)
        return 2
    except OSError as error:  # without a file's name, it is the output's
        print(f"jaxmlp: {'' if error.filename else 'the output: '}{error}", file=sys.stderr)
        return 2
    finally:
        gc.enable()
    return status


def unless_closed(hook: Callable[[Any], object]) -> Callable[[Any], object]:
    """`hook`, but for a closed event loop: where a file of a checkpoint can't be written, Orbax closes the loop of all.

    Another that is written a moment later has Python print a traceback of it, before the error's own line.
    """

    def filtered(found: Any) -> None:
        if str(found.exc_value) != "Event loop is closed":
            hook(found)

    return filtered


def started() -> None:
    """To be called when what a command needs has been imported and read.

    All that stays to the end. Looking through it for garbage again and again took 0.3 s of a start.
    """
    gc.freeze()
    gc.enable()


def run_train(path: Path, arguments: Sequence[str], interrupts: Interrupts) -> int:
    import logging

    from jaxmlp.devices import visible
    from jaxmlp.training.fit import fit, load_for
    from jaxmlp.training.run import RunFolder, import_ahead
    from jaxmlp.views.progress import Progress, stopping
    from jaxmlp.views.tables import heading, result_table
    from jaxmlp.views.terminal import Terminal

    own = {
        "workdir": (str | None, None, "The run's folder; by default runs/ and the experiment's name."),
        "resume": (bool, False, "Go on with the run in that folder, where there is one."),
    }
    _, experiment, given = override("train", path, arguments, own)
    fresh = Path("runs") / path.stem
    workdir = chosen(given.workdir)
    if workdir is not None or given.resume:
        RunFolder.refuse_used(workdir or fresh, resume=given.resume)  # before the data are read
    import_ahead()
    device, dataset = visible()[0], load_for(experiment)
    folder = workdir or (fresh if given.resume else claimed(fresh))

    say_log_lines(logging.INFO)
    console = Terminal()
    console.print(heading(experiment, dataset, device), soft_wrap=True, highlight=False, markup=False)
    progress = Progress(experiment.train.epochs, console)
    started()

    def report(record: "EpochRecord") -> None:
        interrupts.saving = stopping  # from now on there is something to save
        progress(record)

    def stop() -> bool:
        interrupts.saving = stopping
        return interrupts.heard()

    with unless_empty(folder), progress:
        run = fit(
            experiment,
            dataset,
            workdir=folder,
            resume=given.resume,
            report=interrupts.unbroken(report),
            stop=stop,
        )
    interrupts.saving = None
    assert run.result is not None
    console.print(result_table(run.result, experiment.train.gradient, folder))
    return 0


def run_check(path: Path, arguments: Sequence[str], interrupts: Interrupts) -> int:
    import errno
    import json

    from jaxmlp.devices import visible
    from jaxmlp.gradcheck.report import LEGEND
    from jaxmlp.training.check import CHECKED, check_experiment
    from jaxmlp.training.fit import load_for
    from jaxmlp.training.run import probe, write_whole, writing
    from jaxmlp.views.gradients import show_report
    from jaxmlp.views.tables import heading
    from jaxmlp.views.terminal import Terminal

    own = {"json": (Path | None, None, "A file for the reports; by default none is written.")}
    _, experiment, given = override("check", path, arguments, own)
    file = None if given.json is None else expanded(given.json)
    if file is not None:
        with writing(file):  # before the work, not after it
            probe(file.parent)
            if file.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    device, dataset = visible()[0], load_for(experiment)

    console = Terminal()
    console.print(heading(experiment, dataset, device), soft_wrap=True, highlight=False, markup=False)
    if experiment.train.batch_size > CHECKED:
        console.print(f"of a batch, {CHECKED:,} examples are checked", highlight=False)
    status = console.status("starting ...")

    def parting() -> str:
        status.stop()
        return ""

    def show(checked: "Checked") -> None:
        show_report(console, checked.report, checked.when)

    interrupts.parting = parting
    started()
    with status:  # for minutes, where the network is large, on terminals alone
        checks = check_experiment(
            experiment,
            dataset,
            starting=lambda what: status.update(f"{what} ..."),
            report=interrupts.unbroken(show),
        )
    if file is not None:
        reports = [{"when": checked.when, **checked.report.as_dict()} for checked in checks]
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            content = {"experiment": experiment.as_dict(), "checks": reports}
            write_whole(file, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    console.print(LEGEND, soft_wrap=True, highlight=False, style="dim")
    failed = sum(not checked.report.passed for checked in checks)
    console.print(f"{len(checks) - failed} of {len(checks)} checks passed", style="bold red" if failed else "green")
    return 1 if failed else 0


def run_compare(path: Path, arguments: Sequence[str], interrupts: Interrupts) -> int:
    import json
    from dataclasses import asdict

    from jaxmlp.devices import visible
    from jaxmlp.training.compare import compare
    from jaxmlp.training.fit import load_for
    from jaxmlp.training.run import RunFolder, probe, write_whole, writing
    from jaxmlp.views.comparison import comparison_table, describe_pair
    from jaxmlp.views.plots import comparison_figure, png
    from jaxmlp.views.tables import heading
    from jaxmlp.views.terminal import Terminal

    meaning = "The folder for comparison.json and comparison.png; by default runs/, the experiment's name and -compare."
    _, experiment, given = override("compare", path, arguments, {"workdir": (str | None, None, meaning)})
    workdir = chosen(given.workdir)
    if workdir is not None:
        RunFolder.refuse_used(workdir)
    with writing(workdir or Path("runs")):  # before the work, not after it
        probe(workdir or Path("runs"))
    device, dataset = visible()[0], load_for(experiment)

    console = Terminal()
    console.print(heading(experiment, dataset, device), soft_wrap=True, highlight=False, markup=False)

    def show(pair: "Pair") -> None:
        console.print(describe_pair(pair, experiment.train.epochs), soft_wrap=True, highlight=False)

    started()
    comparison = compare(experiment, dataset, report=interrupts.unbroken(show))
    folder = workdir or claimed(Path("runs") / f"{path.stem}-compare")
    data = {"experiment": experiment.as_dict(), "epochs": [asdict(pair) for pair in comparison.epochs]}
    data |= {"leaves": comparison.leaves, "drift": comparison.drift.tolist()}
    data |= {"step_seconds": comparison.step_seconds.tolist()}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "comparison.json", (json.dumps(data, allow_nan=False) + "\n").encode())
        write_whole(folder / "comparison.png", png(comparison_figure(comparison, str(experiment.network))))
    console.print(comparison_table(comparison))
    console.print(f"{folder / 'comparison.png'} shows it", soft_wrap=True, highlight=False, markup=False)
    return 0


def run_sweep(path: Path, arguments: Sequence[str], interrupts: Interrupts) -> int:
    import logging
    import shlex

    from rich.markup import escape

    from jaxmlp.devices import visible
    from jaxmlp.errors import DivergedError
    from jaxmlp.training.files import blamed
    from jaxmlp.training.run import RunFolder, write_whole, writing
    from jaxmlp.training.sweeps import overruled, sweep
    from jaxmlp.views.plots import png
    from jaxmlp.views.progress import stopping
    from jaxmlp.views.sweeps import describe_swept
    from jaxmlp.views.terminal import Terminal

    meaning = "The folder for the runs' folders and sweep.png; by default runs/, the file's name and -sweep."
    file, experiment, given = override("sweep", path, arguments, {"workdir": (str | None, None, meaning)})
    experiments = file.sweep(experiment)
    options = [name.partition("=")[0][2:] for name in arguments if re.match(r"--\w+\.", name)]
    fields = [name.replace(".no-", ".").replace("-", "_") for name in options]  # --data.no-standardize sets it too
    lost = overruled(fields, experiment, file.experiment, file.sweep)
    if lost:
        them = "it" if len(lost) == 1 else "them"
        raise ExperimentError(f"{', '.join(lost)}: {path} sets {them} for each run of its sweep: expected other fields")
    folder = chosen(given.workdir) or Path("runs") / f"{path.stem}-sweep"
    RunFolder.refuse_used(folder, sweep=True)

    device, console, count, at, where = visible()[0], Terminal(), len(experiments), "", ""
    say_log_lines(logging.WARNING)
    about = f"{count} run{'s' * (count > 1)}, in {folder}, on {device.platform}:{device.id} ({device.device_kind})"
    status = console.status("reading the data ...")
    started()

    def starting(number: int, name: str) -> None:
        nonlocal at, where
        if number == 1:
            console.print(about, soft_wrap=True, highlight=False, markup=False)
        at, where = f"{number}/{count} {name}", "in"
        status.update(escape(at))

    def report(record: "EpochRecord") -> None:
        interrupts.saving = stopping  # from now on there is something to save
        status.update(escape(f"{at}  epoch {record.epoch}"))

    def ended(swept: "Swept") -> None:
        nonlocal where
        where = "after"
        console.print(describe_swept(swept, count), soft_wrap=True, highlight=False, markup=False)

    def parting() -> str:
        status.stop()
        return ""

    def stop() -> bool:
        interrupts.saving = stopping
        return interrupts.heard()

    interrupts.parting = parting
    try:
        with status:
            runs = sweep(
                experiments,
                workdir=folder,
                starting=starting,
                report=interrupts.unbroken(report),
                ended=interrupts.unbroken(ended),
                stop=stop,
            )
    except StoppedError:
        raise StoppedError(f"interrupted {where} run {at}; the same command goes on from there") from None
    interrupts.saving = None
    if not runs:
        raise DivergedError(f"{'the run' if count == 1 else f'all {count} runs'} diverged: there is nothing to draw")
    console.print(f"jaxmlp runs {shlex.quote(str(folder))} lists them", soft_wrap=True, highlight=False, markup=False)
    if file.draws:
        with blamed(path):
            page = png(file.figure(runs))
        with writing(folder):
            write_whole(folder / "sweep.png", page)
        console.print(f"{folder / 'sweep.png'} shows them", soft_wrap=True, highlight=False, markup=False)
    return 0 if len(runs) == count else 1


def say_log_lines(level: int) -> None:
    """Has the package's log lines of that level and above said as they are.

    A library may give the root logger a form of its own.
    """
    import logging

    log = logging.getLogger("jaxmlp")
    log.propagate = False
    log.addHandler(logging.StreamHandler())
    log.setLevel(level)


def run_diagnose(folder: Path) -> int:

    from jaxmlp.training.diagnosis import findings, read_figures, verdict
    from jaxmlp.training.run import write_whole, writing
    from jaxmlp.views.diagnosis import diagnosis_figure
    from jaxmlp.views.plots import png
    from jaxmlp.views.terminal import Terminal

    figures = read_figures(folder)
    lines = list(findings(figures).values())
    page, console = (
        png(diagnosis_figure(figures, lines, f"{folder.resolve().name}: {figures.run.experiment.network}")),
        Terminal(),
    )
    with writing(folder):
        write_whole(folder / "diagnosis.png", page)
    for line in verdict(figures, lines):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.print(f"{folder / 'diagnosis.png'} shows it", soft_wrap=True, highlight=False, markup=False)
    return 0


def run_runs(folder: Path) -> int:
    from jaxmlp.errors import RunError
    from jaxmlp.training.run import is_locked, read
    from jaxmlp.views.runs import runs_table
    from jaxmlp.views.terminal import ANY, Terminal

    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise RunError(f"{folder}: {what}: expected one with runs in it")
    found, unreadable = {}, []
    for path in sorted((path.parent for path in folder.rglob("config.json")), key=natural):
        try:
            found[str(path.relative_to(folder))] = read(path), is_locked(path)
        except RunError as error:
            unreadable.append(str(error))
    if not found:
        raise RunError(
            " | ".join(unreadable) or f"{folder}: no run in there: expected folders that `jaxmlp train` made"
        )
    if [*found] == ["."]:
        found = {folder.resolve().name: found["."]}
    table, console = runs_table(found), Terminal()
    if console.measure(table, options=console.options.update(max_width=ANY)).maximum > console.width:
        table = runs_table(found, narrow=True)
    console.print(table)
    for line in unreadable:
        print(f"jaxmlp: {line}", file=sys.stderr)
    return 0


def natural(path: Path) -> list[str | float]:
    """By which paths sort as people would: batch_size=10 before batch_size=100, 0.03 before 0.1."""
    parts = re.split(r"(\d+(?:\.\d+)?)", str(path))
    return [float(part) if i % 2 else part for i, part in enumerate(parts)]


def run_show(folder: Path) -> int:

    from jaxmlp.training.run import is_locked, read, read_losses, write_whole, writing
    from jaxmlp.views.plots import png
    from jaxmlp.views.runs import run_figure, run_table, terminal_curves
    from jaxmlp.views.terminal import Terminal

    kept, console = read(folder), Terminal()
    console.print(run_table(kept, is_locked(folder), folder))
    if not kept.history:
        console.print("no epoch has ended yet")
        return 0
    console.print(terminal_curves(kept.history, min(console.width, 100)), highlight=False, markup=False, soft_wrap=True)
    title = f"{folder.resolve().name}: {kept.experiment.network}"
    page = png(run_figure(kept, read_losses(folder), title))
    with writing(folder):
        write_whole(folder / "curves.png", page)
    console.print(f"{folder / 'curves.png'} shows them", soft_wrap=True, highlight=False, markup=False)
    return 0


def run_data(sources: Sequence[str], png: Path | None) -> int:
    from jaxmlp.data.cache import home
    from jaxmlp.data.listing import available, loaded, short_name
    from jaxmlp.data.tfds import standard_folder
    from jaxmlp.errors import DataError
    from jaxmlp.views.data import data_table
    from jaxmlp.views.terminal import Terminal

    console = Terminal()
    if png is not None and len(sources) != 1:
        raise DataError(f"--png is {png}, for the picture of one SOURCE: expected one, found {len(sources)}")
    if png is not None and not png.name.lower().endswith(".png"):
        raise DataError(f"--png is {png}: expected a file whose name ends in .png, which is what is drawn")
    if not sources:
        console.print(data_table(available()))
        folders = f"TFDS: {standard_folder()}\nthe cache: {home()}"
        console.print(folders, soft_wrap=True, highlight=False, markup=False)
        return 0
    drawn: set[str] = set()
    for source in sources:
        entry, dataset = loaded(source)
        console.print(data_table([entry]))
        if dataset.names:
            console.print(f"classes: {', '.join(dataset.names)}", soft_wrap=True, highlight=False, markup=False)
        name = next(name for name in numbered(short_name(source)) if name not in drawn)
        drawn.add(name)
        draw_examples(dataset, png, name, console)
    return 0


def draw_examples(dataset: "Dataset", asked: Path | None, name: str, console: "Terminal") -> None:
    """Into the file that was asked for, or that the data set's name gives."""
    from jaxmlp.errors import DataError
    from jaxmlp.training.run import write_whole, writing
    from jaxmlp.views.data import examples_figure
    from jaxmlp.views.plots import png

    figure, file = examples_figure(dataset), expanded(asked or Path(f"{name}.png"))
    if figure is None:
        found = f"an example is {' x '.join(map(str, dataset.shape))} numbers, no image"
        if asked is not None:
            raise DataError(f"--png is {asked}, but {found}: expected a SOURCE of images, or no --png")
        console.print(f"{found}: none is drawn", soft_wrap=True, highlight=False)
        return
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, png(figure))
    console.print(f"{file} shows its first images", soft_wrap=True, highlight=False, markup=False)


def run_devices() -> int:
    from jaxmlp.devices import visible
    from jaxmlp.views.tables import device_table
    from jaxmlp.views.terminal import Terminal

    Terminal().print(device_table(visible()))
    return 0


def numbered(name: str) -> Iterator[str]:
    """The name, then name-2, name-3, ..."""
    yield name
    yield from (f"{name}-{n}" for n in itertools.count(2))


def claimed(folder: Path) -> Path:
    """`folder`, or the first of folder-2, folder-3, ... that doesn't exist: it is made, so that no other takes it."""
    from jaxmlp.training.run import writing

    candidates = map(folder.with_name, numbered(folder.name))
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        while True:
            candidate = next(candidates)
            with contextlib.suppress(FileExistsError):
                candidate.mkdir()
                return candidate


@contextlib.contextmanager
def unless_empty(folder: Path) -> Iterator[None]:
    """Takes the folder away afterwards, where nothing has come into it."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def chosen(workdir: str | None) -> Path | None:
    """What --workdir says, if anything; not an empty name, such as a shell's variable that isn't set gives."""
    if workdir is not None and not workdir.strip():
        raise ExperimentError("--workdir is empty: expected a folder's name, or no --workdir")
    if workdir is not None and not workdir.isprintable():
        raise ExperimentError(f"--workdir is {workdir!r}: expected a name of characters that can be printed")
    return None if workdir is None else expanded(Path(workdir))


def expanded(path: Path) -> Path:
    """The path, whose ~ is the home folder, as in `--data.source`: shells leave it as it is in --workdir=~/runs."""
    try:
        return path.expanduser()
    except RuntimeError as error:  # a ~user that doesn't exist
        raise ExperimentError(f"{path}: {error}") from error


def override(
    command: str, path: Path, arguments: Sequence[str], own: dict[str, tuple[Any, Any, str]]
) -> tuple["ExperimentFile", "Experiment", Any]:
    """The file, its experiment with the fields that the command line sets, and the values of the command's own options.

    `own` has each option's type, default and meaning.

    Raises:
        ExperimentError: for an unusable file, an unknown field, one that makes no difference to the command, or
            a value that the field can't have.
        SystemExit: after --help.
    """
    from dataclasses import make_dataclass
    from typing import Annotated

    import tyro

    from jaxmlp.training.config import Experiment
    from jaxmlp.training.files import read_experiment

    file = read_experiment(path)
    about = file.about.replace("jaxmlp train ", f"jaxmlp {command} ")
    if command in ("check", "compare"):
        about += f"\n\nWhatever train.gradient is: {command} has both."
        asked = {name.partition("=")[0] for name in arguments}
        if "--train.gradient" in asked and not {"-h", "--help"} & asked:
            raise ExperimentError(f"--train.gradient: {command} has both gradients: expected other fields")
    if command == "sweep" and {"-h", "--help"} & {*arguments}:
        from jaxmlp.training.sweeps import set_by

        swept = file.sweep(file.experiment)
        changed = ", ".join(set_by(swept, file.experiment)) or "nothing"
        about += f"\n\nThe runs of its sweep, {len(swept)}, are the experiment below, but differ in {changed}."
    fields: list[Any] = [("experiment", Annotated[Experiment, tyro.conf.arg(name="")])]
    for name, (kind, default, meaning) in own.items():
        fields.append((name, Annotated[kind, tyro.conf.arg(help=meaning), tyro.conf.FlagCreatePairsOff], default))
    Settings = make_dataclass("Settings", fields, frozen=True)
    prog, complaint = f"jaxmlp {command} {path}", io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            settings = tyro.cli(
                Settings,
                default=Settings(file.experiment),
                args=arguments,
                prog=prog,
                description=about,
                config=(tyro.conf.HelptextFromCommentsOff,),  # looking for them takes a while
            )
    except SystemExit as end:
        if not end.code:
            raise
        complained = _message(complaint.getvalue(), arguments)
        raise ExperimentError(f"{complained}; {prog} --help lists every field") from None
    return file, settings.experiment, settings


def _message(box: str, arguments: Sequence[str]) -> str:
    """The message inside the box that tyro draws: a title, the message over several lines, a rule, and help."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", box).partition("\n")[2]
    sections = [
        " ".join(part.replace("│", " ").split()) for part in re.split(r"^[\s│╰╯─-]+$", plain, flags=re.MULTILINE)
    ]
    message, *help_ = [section for section in sections if section] or [box]
    message = re.sub(r"^Error parsing experiment[.\w]*: ", "", message).rstrip(".")
    wrong = re.match(r"Error parsing (--[\w.-]+): ", message)
    form = re.search(rf"│ +{re.escape(wrong[1])} (\S.*?) *│", plain) if wrong else None
    if wrong and form:
        several = re.sub(r"^\[(.+) \[\1 \.\.\.\]\]$", r"\1 \1 ..., with spaces between", form[1])
        return f"{wrong[1]} is {_given(wrong[1], arguments)}: expected {several}"
    unknown = message.removeprefix("Unrecognized options: ")
    if unknown != message and not unknown.startswith("-"):
        return f"{unknown.partition(', ')[0]} belongs to no option: expected --FIELD VALUE"
    near = re.search(r"^Perhaps you meant: (--[\w.-]+)", help_[0]) if help_ else None
    if near is None:
        return message
    ends = [re.split("[,=]", name)[0].rpartition(".")[2] for name in (unknown, near[1])]  # without the section
    likely = difflib.SequenceMatcher(None, ends[0], ends[1]).ratio() > 0.6
    return f"{message}; did you mean {near[1]}?" if likely else message


def _given(option: str, arguments: Sequence[str]) -> str:
    """What the command line last has for an option."""
    values: list[str] = []
    taken = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not argument.startswith("--"):
            values += [argument] if taken else []
            continue
        taken = name.replace("_", "-") == option
        if taken:
            values = [value] if equals else []
    return " ".join(value or "''" for value in values)
