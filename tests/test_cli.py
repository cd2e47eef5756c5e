"""The command as a person meets it: in a process of its own."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import forked_command

import jaxmlp

EXPERIMENT = '''"""A small network on a small data set."""
from jaxmlp import Data, Experiment, Network, Train


def experiment() -> Experiment:
    return Experiment(Network((6, 5, 4)), Data("idx:data", validation=2), train=Train(epochs=3, batch_size=2))
'''
SEEDS = (
    EXPERIMENT
    + """

def sweep(experiment: Experiment) -> list[Experiment]:
    from dataclasses import replace

    return [replace(experiment, train=replace(experiment.train, seed=seed)) for seed in range(3)]


def figure(runs):
    from matplotlib.figure import Figure

    drawn = Figure()
    drawn.subplots().plot([run.experiment.train.seed for run in runs], [run.result.test_loss for run in runs])
    return drawn
"""
)
CODE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background would ignore Ctrl-C
from jaxmlp.cli import command
command()
"""
COMMAND = [sys.executable, "-c", CODE]
pytestmark = pytest.mark.own_precision  # training is in float32, and checking sets each


@pytest.fixture
def place(idx_folder: Callable[..., Path]) -> Path:
    """A folder with a small experiment and its data."""
    folder = idx_folder().parent
    (folder / "small.py").write_text(EXPERIMENT)
    (folder / "none.py").write_text("def experiment(): pass\n")
    (folder / "seeds.py").write_text(SEEDS)
    (folder / "text.txt").write_text("no Python\n")
    return folder


def separate_command(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=place, capture_output=True, text=True, check=False, timeout=60)


def test_training_prints_lines_and_a_table_and_leaves_a_run(place: Path) -> None:
    end = separate_command(place, "train", "small.py", "--workdir", "runs/a", "--train.epochs", "4", "--train.seed=5")
    assert (end.returncode, end.stderr) == (0, "")
    lines = end.stdout.splitlines()
    assert lines[0] == "6-5-4, sigmoid hidden, sigmoid output, squared_error: 59 parameters"
    assert lines[1] == "sgd, learning_rate 1, batches of 2"
    assert lines[2].startswith("idx:data: 5 training, 2 validation, 4 test examples, on cpu:0")
    assert [line[:9] for line in lines[3:7]] == [f"epoch {epoch}/4" for epoch in (1, 2, 3, 4)]
    assert "test accuracy" in end.stdout
    assert "manual" in end.stdout
    run = jaxmlp.load(place / "runs" / "a")
    assert (run.experiment.train.epochs, run.experiment.train.seed, len(run.history)) == (4, 5, 4)


def test_without_a_workdir_every_run_gets_a_folder_of_its_own(place: Path) -> None:
    for _ in range(2):
        assert forked_command(place, "train", "small.py").returncode == 0
    assert sorted(path.name for path in (place / "runs").iterdir()) == ["small", "small-2"]


def test_help_lists_every_field_with_its_meaning_and_the_files_value(place: Path) -> None:
    end = separate_command(place, "train", "small.py", "--help")
    assert end.returncode == 0
    text = " ".join(end.stdout.replace("│", " ").split())
    assert "A small network on a small data set." in text
    for field in ("--network.sizes", "--data.source", "--optimizer.learning-rate", "--train.gradient", "--workdir"):
        assert field in text
    assert "(default: 6 5 4)" in text
    assert "Training examples held out, by seed, to validate on; 0 for none. (default: 2)" in text


def test_help_shows_the_command_that_was_asked_about(place: Path) -> None:
    about = "Small.\n\n    jaxmlp train small.py\n"
    (place / "small.py").write_text(EXPERIMENT.replace("A small network on a small data set.", about))
    end = forked_command(place, "check", "small.py", "--help")
    assert ("jaxmlp check small.py\n" in end.stdout, "jaxmlp train" in end.stdout) == (True, False)


def test_comparing_prints_a_table_and_leaves_data_and_a_plot(place: Path) -> None:
    end = forked_command(place, "compare", "small.py", "--workdir", "both", "--train.epochs", "2")
    assert (end.returncode, end.stderr) == (0, "")
    assert "drift of [1].kernel" in end.stdout
    data = json.loads((place / "both" / "comparison.json").read_text())
    assert np.array(data["drift"]).shape == (2 * 3, 4)
    assert (place / "both" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_trains_its_runs_and_draws_them_and_once_more_trains_nothing(place: Path) -> None:
    end = forked_command(place, "sweep", "seeds.py", "--train.epochs", "2")
    assert (end.returncode, end.stderr) == (0, "")
    assert re.findall(r"^(\d)/3  seed=(\d)  validation .* %  test .* %  \d s$", end.stdout, re.MULTILINE) == [
        ("1", "0"),
        ("2", "1"),
        ("3", "2"),
    ]
    folder = place / "runs" / "seeds-sweep"
    assert end.stdout.splitlines()[-2:] == [
        "jaxmlp runs runs/seeds-sweep lists them",
        "runs/seeds-sweep/sweep.png shows them",
    ]
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    before = [(folder / f"seed={seed}" / "result.json").stat().st_mtime_ns for seed in range(3)]
    assert forked_command(place, "sweep", "seeds.py", "--train.epochs", "2").returncode == 0
    assert [(folder / f"seed={seed}" / "result.json").stat().st_mtime_ns for seed in range(3)] == before
    listed = forked_command(place, "runs", "runs/seeds-sweep").stdout
    assert all(f"seed={seed}" in listed for seed in range(3))
    shown = forked_command(place, "show", "runs/seeds-sweep")
    assert (shown.returncode, shown.stderr) == (
        2,
        "jaxmlp: runs/seeds-sweep: holds runs, which `jaxmlp runs runs/seeds-sweep` lists, and is none: expected the "
        "folder of a run\n",
    )
    assert "│ seed=1 │" in forked_command(place, "runs", "runs/seeds-sweep/seed=1").stdout
    other = forked_command(place, "sweep", "seeds.py", "--train.epochs", "3")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert (
        "runs/seeds-sweep/seed=0: train.epochs was 2, and is 3: expected the settings that the run began"
        in other.stderr
    )


def test_a_sweeps_help_says_what_it_sets_itself(place: Path) -> None:
    text = " ".join(forked_command(place, "sweep", "seeds.py", "--help").stdout.split())
    assert "The runs of its sweep, 3, are the experiment below, but differ in train.seed." in text


def test_a_sweep_that_is_refused_says_nothing_else(place: Path) -> None:
    (place / "twice.py").write_text(EXPERIMENT + "\n\ndef sweep(experiment):\n    return [experiment, experiment]\n")
    end = forked_command(place, "sweep", "twice.py")
    assert (end.returncode, end.stdout) == (2, "")
    assert end.stderr == "jaxmlp: of the sweep's experiments, [0] and [1] are the same: expected different settings\n"


def test_an_interrupted_sweep_goes_on_with_the_same_command(place: Path) -> None:
    command = ["sweep", "seeds.py", "--train.epochs", "500"]
    with subprocess.Popen(
        [*COMMAND, *command], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert any(line.startswith("1/3") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    where = "(after run 1/3 seed=0|in run 2/3 seed=1)"  # the signal may come before the second begins
    assert re.search(rf"^jaxmlp: interrupted {where}; the same command goes on from there$", errors, re.MULTILINE)
    end = forked_command(place, *command)
    assert (end.returncode, end.stdout.count("/3  seed=")) == (0, 3)
    assert re.search(r"^1/3  seed=0 .*  had ended before$", end.stdout, re.MULTILINE)
    assert re.search(r"^3/3  seed=2 .*  \d+ s$", end.stdout, re.MULTILINE)


def test_a_sweep_of_short_runs_stops_between_them(place: Path) -> None:
    many = SEEDS.replace("range(3)", "range(3000)").replace("epochs=3", "epochs=1")
    (place / "many.py").write_text(many)
    with subprocess.Popen(
        [*COMMAND, "sweep", "many.py"], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert any(line.lstrip().startswith("2/3000") for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, "the same command goes on from there" in errors) == (143, True)


def test_a_sweep_whose_runs_all_diverge_says_so(place: Path) -> None:
    wild = ["--network.output", "identity", "--network.activation", "relu", "--optimizer.learning-rate", "1e30"]
    for _ in range(2):  # the second time none is trained again
        end = forked_command(place, "sweep", "seeds.py", *wild)
        assert (end.returncode, end.stdout.count("  training diverged in epoch 1, at step ")) == (1, 3)
        assert end.stderr == "jaxmlp: all 3 runs diverged: there is nothing to draw\n"
    assert not (place / "runs" / "seeds-sweep" / "sweep.png").exists()


def test_checking_passes_and_keeps_the_reports(place: Path) -> None:
    end = forked_command(place, "check", "small.py", "--json", "report.json")
    assert (end.returncode, end.stderr) == (0, "")
    assert end.stdout.endswith("4 of 4 checks passed\n")
    assert end.stdout.count("finite diff.: from finite differences") == 1  # the columns are explained, once
    checks = json.loads((place / "report.json").read_text())["checks"]
    assert [check["passed"] for check in checks] == [True] * 4


ERRORS = [
    ([], "required: COMMAND"),
    (["trian", "small.py"], "invalid choice: 'trian' (choose from"),
    (["train"], "required: EXPERIMENT; options come after EXPERIMENT"),
    (["train", "--workdir", "x", "small.py"], "unrecognized arguments: --workdir; options come after EXPERIMENT"),
    (["train", "missing.py"], "missing.py: no such file: expected an experiment file"),
    (["train", "data"], "data: not a file"),
    (["train", "text.txt"], "text.txt, line 1: SyntaxError: invalid syntax: expected a Python file"),
    (["check", "small.py", "--train.gradient", "auto"], "--train.gradient: check has both gradients"),
    (["compare", "small.py", "--train.gradient=auto"], "--train.gradient: compare has both gradients"),
    (["train", "small.py", "--data.source", "mnsit"], "data.source is 'mnsit' (did you mean mnist?): expected mnist"),
    (["train", "small.py", "--data.source", "MNIST"], "data.source is 'MNIST' (did you mean mnist?): expected mnist"),
    (["train", "small.py", "--data.source", "dct:mnsit"], "'dct:mnsit' (did you mean dct:mnist?): expected mnist"),
    (["train", "small.py", "--data.source", "NPZ:a.npz"], "'NPZ:a.npz' (did you mean npz:a.npz?): expected mnist"),
    (["train", "small.py", "--data.source", "b.npz"], "'b.npz' (did you mean npz:b.npz?): expected mnist"),
    (["train", "small.py", "--data.source", "data"], "'data' (did you mean idx:data?): expected mnist"),
    (["train", "small.py", "--data.source", "idx:"], "data.source is 'idx:': expected mnist"),
    (["train", "small.py", "--optimizer.parameters", "momentum", "9"], "has momentum 9: expected 0 or more, below 1"),
    (["devices", "foo"], "unrecognized arguments: foo; see jaxmlp --help"),
    (["train", "none.py"], "none.py: experiment() returns None: expected a jaxmlp.Experiment"),
    (["train", "small.py", "--optimzer.learning-rate", "1"], "did you mean --optimizer.learning-rate?"),
    (["train", "small.py", "--train.epoch", "1"], "did you mean --train.epochs?"),
    (
        ["train", "small.py", "extra"],
        "extra belongs to no option: expected --FIELD VALUE; jaxmlp train small.py",
    ),
    (
        ["train", "small.py", "--optimizer.lr", "1"],
        "Unrecognized options: --optimizer.lr, 1; jaxmlp train small.py",
    ),
    (["train", "small.py", "--train.epochs", "1.5"], "jaxmlp: --train.epochs is 1.5: expected INT; jaxmlp train small"),
    (
        ["train", "small.py", "--train.epochs", "1,000"],
        "jaxmlp: --train.epochs is 1,000: expected INT; jaxmlp train",
    ),
    (["train", "small.py", "--train.epochs", ""], "jaxmlp: --train.epochs is '': expected INT; jaxmlp train small.py"),
    (["train", "small.py", "--optimzer.learning-rate=0.5"], "did you mean --optimizer.learning-rate?"),
    (
        ["train", "small.py", "--network.sizes", "6", "a"],
        "--network.sizes is 6 a: expected INT INT ..., with s",
    ),
    (
        ["train", "small.py", "--optimizer.parameters", "momentum"],
        "--optimizer.parameters is momentum: expected STR FLOAT STR FLOAT ..., with spaces between; jaxmlp train small",
    ),
    (
        ["train", "small.py", "--optimizer.clip-norm", "x"],
        "--optimizer.clip-norm is x: expected {None}|FLOAT; jax",
    ),
    (["train", "small.py", "--optimizer.learning-rate", "-1"], "jaxmlp: optimizer.learning_rate is -1.0: expected"),
    (["train", "small.py", "--optimizer.learning-rate", "fast"], "--optimizer.learning-rate is fast: expected FLOAT; "),
    (["train", "small.py", "--train.epochs", "0"], "jaxmlp: train.epochs is 0: expected 1 or more"),
    (["train", "small.py", "--train.gradient", "magic"], "invalid choice 'magic' for argument '--train.gradient'"),
    (["train", "small.py", "--network.loss", "cross_entropy"], "'cross_entropy' does not go with output 'sigmoid'"),
    (["train", "small.py", "--network.sizes", "6"], "network.sizes is 6: expected at least two"),
    (["train", "small.py", "--network.sizes", "7", "4"], "7 inputs, but an example of idx:data has 6 features"),
    (["train", "small.py", "--data.source", "npz:~nosuchuser/x"], "data.source is 'npz:~nosuchuser/x': "),
    (["train", "small.py", "--data.source", "idx:" + 5000 * "x"], "File name too long"),
    (["train", "small.py", "--network.sizes", "6", "3"], "label 3 at index 3"),
    (["train", "small.py", "--data.source", "idx:nowhere"], "nowhere: no such folder"),
    (["train", "small.py", "--data.source", "npz:small.py"], "small.py: can't be read as an NPZ file"),
    (["train", "small.py", "--data.source", "http://x"], "data.source is 'http://x': expected mnist"),
    (["train", "small.py", "--data.validation", "7"], "data.validation is 7, but idx:data has 7 training examples"),
    (["train", "small.py", "--workdir", "small.py"], "can't be written: File exists; a file is where a folder is"),
    (["train", "small.py", "--workdir", "used"], "used: holds a finished run already"),
    (["compare", "small.py", "--network.sizes", "7", "4"], "7 inputs, but an example of idx:data has 6 features"),
    (["check", "small.py", "--jsn", "x"], "did you mean --json?"),
    (["check", "small.py", "--json", "small.py/x"], "small.py/x: can't be written: "),
    (["compare", "small.py", "--workdir", "small.py/x"], "small.py/x: can't be written: Not a directory"),
    (["compare", "small.py", "--workdir", "used"], "used: holds a finished run already"),
    (
        ["sweep", "small.py"],
        "small.py: defines no function sweep(): expected one that returns experiments; jaxmlp train",
    ),
    (
        ["sweep", "seeds.py", "--data.no-standardize", "--train.seed", "7"],
        "train.seed: seeds.py sets it for each run of its sweep: expected other fields",
    ),
    (["sweep", "seeds.py", "--data.validation", "7"], "seed=0: data.validation is 7, but idx:data has 7 training exam"),
    (["sweep", "seeds.py", "--workdir", "used"], "used: holds a finished run already"),
    (["sweep", "seeds.py", "--workdir", "small.py"], "can't be written"),
    (["runs", "small.py"], "small.py: not a folder: expected one with runs in it"),
    (["data", "idx:nowhere"], "nowhere: no such folder"),
    (["data", "cifar"], "data.source is 'cifar': expected mnist, idx:FOLDER, npz:FILE, tfds:NAME, or dct:"),
    (["data", "tfds:emnist/"], "data.source is 'tfds:emnist/': expected tfds:NAME, such as mnist, emnist/letters"),
    (["data", "--png", "x.png"], "--png is x.png, for the picture of one SOURCE: expected one, found 0"),
    (["data", "mnist", "idx:data", "--png", "x.png"], "for the picture of one SOURCE: expected one, found 2"),
    (["data", "idx:data", "--png", "small.py/x.png"], "small.py/x.png: can't be written: "),
    (["data", "idx:data", "--png", "x.gif"], "--png is x.gif: expected a file whose name ends in .png"),
    (["train", "small.py", "--workdir"], "Missing value for argument '--workdir'"),
    (["train", "small.py", "--resume", "--workdir", "used"], "used/config.json: the run can't be read: "),
    (["train", "small.py", "--optimizer.nonfinite", "ignore"], "invalid choice 'ignore' for argument"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=[" ".join(arguments)[:80] for arguments, _ in ERRORS])
def test_what_a_person_can_get_wrong_is_one_clear_line(arguments: list[str], message: str, place: Path) -> None:
    (place / "used").mkdir()
    (place / "used" / "config.json").write_text("{}")
    (place / "used" / "result.json").write_text("{}")
    status, _, errors = forked_command(place, *arguments)
    assert status == 2
    assert errors.count("\n") == 1, errors
    assert message in errors
    assert errors.startswith("jaxmlp")
    assert not (place / "runs").exists()


def test_what_comes_to_a_closed_event_loop_leaves_no_traceback() -> None:
    code = """
from jaxmlp.cli import main
class Late:
    def __init__(self, said): self.said = said
    def __del__(self): raise RuntimeError(self.said)
main(["devices"])
late = Late("Event loop is closed"), Late("another fault")
del late
"""
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "another fault" in end.stderr
    assert "Event loop is closed" not in end.stderr


def test_the_process_ends_after_all_exit_functions_and_without_taking_the_interpreter_apart(place: Path) -> None:
    code = """
import atexit, os, sys
class Late:
    def __del__(self, write=os.write): write(1, b"taken apart\\n")
sys.late = Late()
atexit.register(lambda: print("an exit function"))  # into a pipe, which is written to when it is flushed
"""
    apart = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert {*apart.stdout.splitlines()} == {"an exit function", "taken apart"}
    (place / "late.py").write_text(EXPERIMENT + code)
    end = separate_command(place, "train", "late.py")
    assert (end.returncode, end.stderr) == (0, "")
    assert end.stdout.endswith("an exit function\n")
    assert "taken apart" not in end.stdout


def test_divergence_is_one_clear_line_and_status_1(place: Path) -> None:
    wild = ["--network.output", "identity", "--network.activation", "relu", "--optimizer.learning-rate", "1e30"]
    end = forked_command(place, "train", "small.py", *wild)
    assert end.returncode == 1
    assert re.fullmatch(r"jaxmlp: training diverged in epoch 1, at step \d of 3: .*\n", end.stderr)


def test_a_run_that_diverges_in_its_last_step_is_no_success(place: Path) -> None:
    wild = ["--network.output", "identity", "--network.activation", "relu", "--optimizer.learning-rate", "1e30"]
    once = ["--train.epochs", "1", "--train.batch-size", "7"]
    for validation, which in (("2", "the validation loss"), ("0", "the test loss")):
        end = forked_command(place, "train", "small.py", *wild, *once, "--data.validation", validation)
        assert (end.returncode, which in end.stderr) == (1, True), end.stderr
    end = forked_command(place, "compare", "small.py", *wild)
    assert end.returncode == 1
    assert re.fullmatch(r"jaxmlp: training diverged in epoch \d: .*\n", end.stderr)


def test_help_needs_no_jax() -> None:
    code = (
        "import sys; from jaxmlp.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print({'jax', 'tyro', 'rich'} & {*sys.modules})"
    )
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert end.returncode == 0
    assert "train an experiment's network" in end.stdout
    assert end.stdout.endswith("set()\n")


def test_data_lists_what_is_there_and_draws_what_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(place / "standard"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    end = forked_command(place, "data")
    assert (end.returncode, end.stderr) == (0, "")
    assert re.search(r"mnist .* 60,000 .* 10,000 .* 28 x 28 .* 10 .* 11.3 MB .* the package", end.stdout)
    assert end.stdout.endswith(f"TFDS: {place / 'standard'}\nthe cache: {place / 'cache' / 'jaxmlp' / 'tfds'}\n")
    for arguments, file in ((["idx:data"], "data-2.png"), (["--png", "made/x.png"], "made/x.png")):
        end = forked_command(place, "data", "idx:data", *arguments)
        assert (end.returncode, end.stderr) == (0, "")
        assert end.stdout.endswith(f"{file} shows its first images\n")
        assert (place / file).read_bytes().startswith(b"\x89PNG")
    assert (place / "data.png").exists()


def test_data_says_why_nothing_is_drawn(place: Path) -> None:
    end = forked_command(place, "data", "dct:mnist")
    assert (end.returncode, end.stderr) == (0, "")
    assert end.stdout.endswith("an example is 99 numbers, no image: none is drawn\n")
    end = forked_command(place, "data", "dct:mnist", "--png", "x.png")
    assert end.returncode == 2
    assert "--png is x.png, but an example is 99 numbers, no image: expected a SOURCE of images" in end.stderr
    assert not [*place.glob("*.png")]


def test_devices_lists_what_jax_sees() -> None:
    end = subprocess.run([*COMMAND, "devices"], capture_output=True, text=True, check=False)
    assert end.returncode == 0
    assert re.search(r"cpu:0 .* yes", end.stdout)


def on_a_terminal(place: Path, *arguments: str, until: str = "", kill: int | None = None) -> tuple[int, str]:
    """Runs the command on a pseudo-terminal; sends the signal `kill` once `until` has been shown."""
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80"}
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=place, stdin=follower, stdout=follower, stderr=follower, env=environment
    )
    os.close(follower)
    shown, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                shown += os.read(leader, 65536)
            except OSError:  # the other side was closed
                break
        if kill is not None and until.encode() in shown:
            process.send_signal(kill)
            kill = None
    os.close(leader)
    return process.wait(timeout=10), shown.decode()


def test_a_terminal_shows_a_live_line(place: Path) -> None:
    status, shown = on_a_terminal(place, "train", "small.py")
    assert status == 0
    assert "\x1b[?25l" in shown  # the cursor is hidden while the line lives
    assert re.search(r"epoch 3/3 .*examples/s .*0 s left", shown)


def test_a_terminal_says_what_is_being_checked_until_it_is(place: Path) -> None:
    status, shown = on_a_terminal(place, "check", "small.py")
    assert status == 0
    for what in (
        "checking at initialisation, float64 ...",
        "training an epoch ...",
        "checking after an epoch, float32",
    ):
        assert what in shown
    status, shown = on_a_terminal(place, "check", "small.py", until="checking at", kill=signal.SIGINT)
    assert status == 130
    assert re.search(r"\x1b\[\?25h.*jaxmlp: interrupted\r\n$", shown, re.DOTALL)  # the cursor is back


def test_ctrl_c_says_what_is_kept_and_ends_with_130(place: Path) -> None:
    status, shown = on_a_terminal(
        place, "train", "small.py", "--train.epochs", "100000", until="examples/s", kill=signal.SIGINT
    )
    assert status == 130
    last = shown.rstrip().splitlines()[-1]
    kept = r"jaxmlp: interrupted after \d+ of 100000 epochs; runs/small keeps the run up to there, and --resume goes on"
    assert re.search(kept, last)
    assert "\x1b[?25h" in shown  # the cursor is back
    assert np.isfinite(jaxmlp.load(place / "runs" / "small").history[-1].train_loss)


@pytest.mark.parametrize("delay", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("command", ["train", "check", "compare"])
def test_ctrl_c_while_jax_compiles_is_a_line_and_130(command: str, delay: float, place: Path) -> None:
    many = [] if command == "check" else ["--train.epochs", "100000"]
    with subprocess.Popen(
        [*COMMAND, command, "small.py", *many], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().startswith("6-5-4")  # the heading comes before the work
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    stopping = r"(jaxmlp: stopping when what has been done is saved; once more leaves at once\n)?"
    assert re.fullmatch((stopping if command == "train" else "") + r"jaxmlp: interrupted.*\n", errors)
    assert command == "train" or not (place / "runs").exists()


@pytest.mark.parametrize("arguments", [["check", "small.py", "--help"], ["devices"]])
def test_output_that_nobody_reads_ends_the_command_in_silence(arguments: list[str], place: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run([*COMMAND, *arguments], cwd=place, stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 141
    assert done.stderr == b""


def test_diagnosis_says_what_stands_out_and_draws_it(place: Path) -> None:
    quantities = ("--record.quantities", "loss", "noise_scale", "example_losses")
    assert forked_command(place, "train", "small.py", "--workdir", "runs/a", *quantities).returncode == 0
    end = forked_command(place, "diagnose", "runs/a")
    assert (end.returncode, end.stderr) == (0, "")
    assert end.stdout.splitlines()[-1] == "runs/a/diagnosis.png shows it"
    assert (place / "runs" / "a" / "diagnosis.png").read_bytes().startswith(b"\x89PNG")


def test_diagnosis_of_a_run_that_recorded_nothing_says_what_to_record(place: Path) -> None:
    assert forked_command(place, "train", "small.py", "--workdir", "runs/a").returncode == 0
    end = forked_command(place, "diagnose", "runs/a")
    assert (end.returncode, end.stdout) == (2, "")
    assert re.fullmatch(
        r"jaxmlp: runs/a: the run recorded nothing: expected .*--record.quantities noise_scale .*\n", end.stderr
    )


def test_a_second_start_with_jaxs_cache_compiles_nothing_and_ends_the_same(place: Path) -> None:
    cache = {"JAX_COMPILATION_CACHE_DIR": str(place / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    kept, params = [], []
    for run in ("first", "second"):
        command = [*COMMAND, "train", "small.py", "--workdir", run]
        subprocess.run(command, cwd=place, env=os.environ | cache, check=True, capture_output=True, timeout=60)
        kept.append(sorted(path.name for path in (place / "cache").iterdir()))
        params.append([leaf.tobytes() for layer in jaxmlp.load(place / run).params for leaf in layer])
    assert kept[0] == kept[1]
    assert any(name.startswith("jit_train_steps") for name in kept[0])
    assert params[0] == params[1]


@pytest.mark.parametrize("arguments", [["devices"], ["train", "missing.py"]])
def test_the_garbage_collector_is_left_as_it_was(arguments: list[str]) -> None:
    code = f"import gc\nfrom jaxmlp.cli import main\nmain({arguments})\nprint(gc.isenabled())"
    end = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert end.stdout.endswith("True\n")


def test_a_terminated_run_saves_and_ends_with_143_and_resumes(place: Path) -> None:
    train = ["train", "small.py", "--train.epochs", "500"]
    assert forked_command(place, *train, "--workdir", "whole").returncode == 0
    begun = False
    for how in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(
            [*COMMAND, *train, "--workdir", "broken", "--resume"], cwd=place, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert any(line.startswith("epoch") for line in process.stdout)
            process.send_signal(how)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + how
        *before, stopping, interrupted = errors.splitlines()
        assert re.fullmatch(r"jaxmlp: stopping when what has been done is saved.*", stopping)
        assert re.fullmatch(r"jaxmlp: interrupted after \d+ of 500 epochs.*; broken keeps .*--resume.*", interrupted)
        assert [bool(re.fullmatch(r"jaxmlp: broken: going on in .*", line)) for line in before] == [True] * begun
        begun = True
    assert forked_command(place, *train, "--workdir", "broken", "--resume").returncode == 0
    whole, broken = (jaxmlp.load(place / name) for name in ("whole", "broken"))
    assert [record.train_loss for record in whole.history] == [record.train_loss for record in broken.history]
    for ours, theirs in zip(whole.params, broken.params, strict=True):
        np.testing.assert_array_equal(ours.kernel, theirs.kernel)


def test_runs_are_listed_with_what_differs_and_one_is_shown_with_its_curves(place: Path) -> None:
    for rate in ("0.5", "0.25"):
        train = ["train", "small.py", "--workdir", f"runs/rate {rate}", "--optimizer.learning-rate", rate]
        assert forked_command(place, *train).returncode == 0
    (place / "runs" / "broken").mkdir()
    (place / "runs" / "broken" / "config.json").write_text("{")
    end = forked_command(place, "runs")
    assert end.returncode == 0
    assert re.fullmatch(r"jaxmlp: runs/broken/config.json: the run can't be read: .*\n", end.stderr)
    for shown in ("learning_rate", "finished", "0.25", "test"):
        assert shown in end.stdout
    assert "train.seed" not in end.stdout
    end = forked_command(place, "show", "runs/rate 0.5")
    assert (end.returncode, end.stderr) == (0, "")
    for shown in ("network.sizes", "6 5 4", "best epoch", "training", "validation", "curves.png shows them"):
        assert shown in end.stdout
    assert (place / "runs" / "rate 0.5" / "curves.png").read_bytes().startswith(b"\x89PNG")
    for arguments, message in ((["runs", "nowhere"], "no such folder"), (["show", "runs"], "expected the folder of a")):
        end = forked_command(place, *arguments)
        assert (end.returncode, end.stderr.count("\n")) == (2, 1)
        assert message in end.stderr


def test_two_runs_that_start_at_once_have_folders_of_their_own(place: Path) -> None:
    both = [subprocess.Popen([*COMMAND, "train", "small.py"], cwd=place, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert sorted(path.name for path in (place / "runs").iterdir()) == ["small", "small-2"]


def test_an_empty_workdir_is_refused(place: Path) -> None:
    before = {*place.iterdir(), place / "__pycache__"}
    end = forked_command(place, "train", "small.py", "--workdir", "")
    assert (end.returncode, end.stderr) == (
        2,
        "jaxmlp: --workdir is empty: expected a folder's name, or no --workdir\n",
    )
    assert {*place.iterdir()} <= before


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (["train", "small.py", "--workdir=~/run"], "run/result.json"),
        (["data", "mnist", "--png=~/a.png"], "a.png"),
    ],
)
def test_a_tilde_is_the_home_folder(place: Path, given: list[str], made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "home").mkdir()
    monkeypatch.setenv("HOME", str(place / "home"))
    assert forked_command(place, *given).returncode == 0
    assert (place / "home" / made).exists()
    assert not (place / "~").exists()


def test_a_run_says_why_it_ended_and_from_where_it_goes_on(place: Path) -> None:
    diverges = ["--optimizer.learning-rate", "1e30", "--network.activation", "relu", "--network.output", "identity"]
    assert forked_command(place, "train", "small.py", "--workdir", "runs/a", *diverges).returncode == 1
    for command in (["runs"], ["show", "runs/a"]):
        assert "diverged" in forked_command(place, *command).stdout
    assert forked_command(place, "train", "small.py", "--workdir", "runs/b").returncode == 0
    end = forked_command(place, "train", "small.py", "--workdir", "runs/b", "--resume")
    assert (end.returncode, end.stderr) == (0, "jaxmlp: runs/b: this run has ended: there is nothing to train\n")


def test_a_folder_of_any_name_is_trained_in_listed_and_shown(place: Path) -> None:
    names = ("a[/b]", "[red]x", "$\\foo$", "日本")
    for name in names:
        for command in (["train", "small.py", "--workdir"], ["show"]):
            end = forked_command(place, *command, f"runs/{name}")
            assert (end.returncode, end.stderr) == (0, "")
            assert name in end.stdout
    end = forked_command(place, "runs")
    assert (end.returncode, end.stderr) == (0, "")
    assert all(name in end.stdout for name in names)


def test_a_folder_whose_name_can_not_be_printed_is_refused(place: Path) -> None:
    end = forked_command(place, "train", "small.py", "--workdir", os.fsdecode(b"q\xfe"))
    assert (end.returncode, end.stdout) == (2, "")
    assert end.stderr == "jaxmlp: --workdir is 'q\\udcfe': expected a name of characters that can be printed\n"
