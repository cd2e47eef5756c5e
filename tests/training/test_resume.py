"""Runs that are broken off and resumed, against the same runs without a break."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxmlp
from jaxmlp import (
    Checkpoint,
    Data,
    Dataset,
    Experiment,
    Network,
    Optimizer,
    Privacy,
    Record,
    RunError,
    StoppedError,
    Train,
)
from jaxmlp.data.distortions import Distort
from jaxmlp.training import fit as fitting
from jaxmlp.training.checkpoints import kept
from jaxmlp.training.config import Schedule
from jaxmlp.training.run import RunFolder, read_losses

pytestmark = pytest.mark.own_precision  # training is in float32
EXPERIMENT = Experiment(
    Network((20, 6, 3)),
    Data(validation=40),
    Optimizer(learning_rate=1.0),
    Train(epochs=4, batch_size=16),
    checkpoint=Checkpoint(seconds=0.0),
)
KINDS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adam": {"optimizer": Optimizer("adam", 0.01)},
    "skipping": {"optimizer": Optimizer("adam", 0.01, nonfinite="skip")},
    "automatic": {"train": replace(EXPERIMENT.train, gradient="auto")},
    "recording": {"record": Record(("loss", "distance", "example_losses"))},
    "private": {"privacy": Privacy(epsilon=8.0, delta=1e-3)},
    "regularised": {
        "network": Network((20, 6, 3), dropout=0.3, input_dropout=0.1, l2=0.01, label_smoothing=0.1),
        "optimizer": Optimizer("sgd", 0.5, (("momentum", 0.9),), weight_decay=0.01, clip_norm=1.0, max_norm=2.0),
        "schedule": Schedule("cosine", warmup=1.0),
        "distort": Distort(shift=1.0, rotation=10.0, alpha=2.0, sigma=1.0),
    },
    "standardised": {
        "data": Data(validation=40, standardize=True),
        "network": Network((20, 6, 3), dropout=0.3),
        "optimizer": Optimizer("muon", 0.01),
        "schedule": Schedule("step", factor=0.5, every=1.5),
    },
    "regularised and recording": {
        "network": Network((20, 6, 3), dropout=0.3, l2=0.01),
        "distort": Distort(shift=1.0),
        "record": Record(("loss", "gradient_norm")),
    },
}


def lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the times, which no two runs share."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in found]


def assert_as_far_the_same(a: Path, b: Path) -> None:
    assert lines(a) == lines(b)
    jax.tree.map(np.testing.assert_array_equal, jaxmlp.load(a).params, jaxmlp.load(b).params)
    assert read_losses(a).tobytes() == read_losses(b).tobytes()


def assert_the_same(a: Path, b: Path) -> None:
    assert_as_far_the_same(a, b)
    ours, theirs = (json.loads((folder / "result.json").read_text()) for folder in (a, b))
    assert {k: v for k, v in ours.items() if "seconds" not in k} == {
        k: v for k, v in theirs.items() if "seconds" not in k
    }
    for file in (a / "recorded").glob("*"):
        assert file.read_bytes() == (b / "recorded" / file.name).read_bytes()


def after(calls: int) -> Callable[[], bool]:
    """A `stop` that says so when it is asked for the so manieth time."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked >= calls

    return stop


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stopped_anywhere_ends_bit_for_bit_as_without_the_break(
    kind: str, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = replace(EXPERIMENT, **KINDS[kind])
    jaxmlp.fit(experiment, digits, workdir=tmp_path / "whole")
    monkeypatch.setattr(fitting, "FIRST_PORTION", 1)  # steps: 1, then up to 4, and so on
    breaks = 0
    while not (tmp_path / "broken" / "result.json").exists():
        with contextlib.suppress(StoppedError):
            jaxmlp.fit(experiment, digits, workdir=tmp_path / "broken", resume=True, stop=after(1))
        breaks += 1
    assert breaks >= 4 if "record" in KINDS[kind] or kind == "private" else breaks >= 40  # a start for each of 44 steps
    assert_the_same(tmp_path / "whole", tmp_path / "broken")


def test_the_checkpoints_in_the_middle_of_an_epoch_are_of_no_consequence(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "seldom")]
    monkeypatch.setattr(fitting, "FIRST_PORTION", 1)
    runs.append(jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "often"))
    runs.append(jaxmlp.fit(EXPERIMENT, digits))
    for run in runs[1:]:
        jax.tree.map(np.testing.assert_array_equal, run.params, runs[0].params)
    assert_the_same(tmp_path / "seldom", tmp_path / "often")


def test_a_run_does_not_go_on_with_other_data_of_the_same_sizes(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path, stop=lambda: True)
    inputs = digits.train.inputs.copy()
    inputs[7, 3] += 1
    other = replace(digits, train=digits.train._replace(inputs=inputs))
    with pytest.raises(RunError, match="dataset.checksum was [0-9a-f]{8}, and is [0-9a-f]{8}: expected the settings"):
        jaxmlp.fit(EXPERIMENT, other, workdir=tmp_path, resume=True)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["dataset"]["checksum"]  # as of runs from before there was one
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path, resume=True).result


def test_one_program_serves_all_parts_of_all_epochs(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxmlp.training.epoch import train_steps

    train_steps.for_one_core.clear_cache()
    monkeypatch.setattr(fitting, "FIRST_PORTION", 1)
    jaxmlp.fit(EXPERIMENT, digits)
    assert train_steps.for_one_core._cache_size() == 1


def test_resuming_where_nothing_is_begins_and_where_all_is_done_trains_nothing(digits: Dataset, tmp_path: Path) -> None:
    run = jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "run", resume=True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"}
    again = jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "run", resume=True)
    jax.tree.map(np.testing.assert_array_equal, run.params, again.params)
    assert (again.result, again.history) == (run.result, run.history)
    assert before == {path: path.read_bytes() for path in before}


def test_other_settings_are_named_and_refused(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "run", stop=after(2))
    other = replace(EXPERIMENT, optimizer=Optimizer(learning_rate=0.5), train=replace(EXPERIMENT.train, seed=1))
    wrong = "optimizer.learning_rate was 1.0, and is 0.5; train.seed was 0, and is 1: expected the settings that"
    with pytest.raises(RunError, match=wrong):
        jaxmlp.fit(other, digits, workdir=tmp_path / "run", resume=True)
    smaller = replace(digits, train=digits.train.take(slice(200)))
    with pytest.raises(RunError, match="dataset.train was 163, and is 160"):
        jaxmlp.fit(EXPERIMENT, smaller, workdir=tmp_path / "run", resume=True)
    with pytest.raises(RunError, match="perhaps of an unfinished run, already: expected a new folder; resume it"):
        jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "run")
    jaxmlp.fit(replace(EXPERIMENT, checkpoint=Checkpoint(keep=9)), digits, workdir=tmp_path / "run", resume=True)


def test_a_run_that_lost_its_tail_and_its_newest_checkpoint_is_the_same_in_the_end(
    digits: Dataset, tmp_path: Path
) -> None:
    jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "whole")
    with pytest.raises(StoppedError):
        jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "broken", stop=after(3))
    newest = kept(tmp_path / "broken" / "checkpoints")[-1]
    (newest / "digests.json").write_text("{")
    with (tmp_path / "broken" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 9')
    jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "broken", resume=True)
    assert_the_same(tmp_path / "whole", tmp_path / "broken")


def test_without_validation_there_is_no_best(digits: Dataset, tmp_path: Path) -> None:
    jaxmlp.fit(replace(EXPERIMENT, data=Data(validation=0)), digits, workdir=tmp_path / "run")
    assert len(kept(tmp_path / "run" / "checkpoints")) <= 3
    with pytest.raises(RunError, match="no epoch has been validated"):
        jaxmlp.load(tmp_path / "run", best=True)


def test_the_best_epoch_by_validation_can_be_loaded(digits: Dataset, tmp_path: Path) -> None:
    experiment = replace(EXPERIMENT, train=replace(EXPERIMENT.train, epochs=12))
    run = jaxmlp.fit(experiment, digits, workdir=tmp_path / "run")
    epoch = max(run.history, key=lambda record: (record.validation_accuracy, -record.validation_loss)).epoch
    there = jaxmlp.fit(replace(experiment, train=replace(experiment.train, epochs=epoch)), digits)
    best = jaxmlp.load(tmp_path / "run", best=True)
    jax.tree.map(np.testing.assert_array_equal, best.params, there.params)
    assert (best.history, best.result) == (run.history[:epoch], None)


def test_a_finished_run_without_its_last_checkpoint_is_trained_to_its_end_again(
    digits: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "whole")
    ended: list[bool] = []
    for damage in (shutil.rmtree, lambda path: (path / "place.json").write_text("{}")):
        shutil.copytree(tmp_path / "whole", tmp_path / "run")
        damage(kept(tmp_path / "run" / "checkpoints")[-1])
        jaxmlp.load(tmp_path / "run")
        assert "its last checkpoint is gone; --resume trains it again" in caplog.text
        jaxmlp.fit(
            EXPERIMENT,
            digits,
            workdir=tmp_path / "run",
            resume=True,
            report=lambda record: ended.append((tmp_path / "run" / "result.json").exists()),
        )
        assert_the_same(tmp_path / "whole", tmp_path / "run")
        shutil.rmtree(tmp_path / "run")
    assert not any(ended)


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json"])
@pytest.mark.parametrize("cut", [False, True])
def test_a_finished_run_without_its_lines_or_result_has_them_again(
    digits: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, cut: bool
) -> None:
    caplog.set_level("INFO", logger="jaxmlp")
    whole, run = tmp_path / "whole", tmp_path / "run"
    jaxmlp.fit(EXPERIMENT, digits, workdir=whole)
    shutil.copytree(whole, run)
    if cut:
        (run / name).write_bytes((run / name).read_bytes()[:-9])
        with pytest.raises(RunError, match=f"{name}: the run can't be read: .*; --resume mends it"):
            jaxmlp.load(run)
    else:
        (run / name).unlink()
    jaxmlp.fit(EXPERIMENT, digits, workdir=run, resume=True, report=lambda record: pytest.fail("an epoch is trained"))
    assert "all epochs have been trained: the test is made once more" in caplog.text
    assert "going on in epoch" not in caplog.text
    assert_the_same(whole, run)


def test_that_training_begins_anew_for_want_of_a_checkpoint_is_said(
    digits: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "whole", resume=True)
    assert not caplog.text
    for others in ((), ("metrics.jsonl",), ("metrics.jsonl", "losses.f32"), ("result.json", "losses.f32")):
        caplog.clear()
        shutil.copytree(tmp_path / "whole", tmp_path / "run")
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        for name in others:
            (tmp_path / "run" / name).unlink()
        jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "run", resume=True)
        assert "no checkpoint is left: training begins anew, with epoch 1" in caplog.text
        assert_the_same(tmp_path / "whole", tmp_path / "run")
        shutil.rmtree(tmp_path / "run")


def test_losses_that_are_lost_are_said_and_keep_their_places(
    digits: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    with pytest.raises(StoppedError):
        jaxmlp.fit(EXPERIMENT, digits, workdir=run, stop=lambda: (run / "losses.f32").stat().st_size > 0)
    (run / "losses.f32").unlink()
    jaxmlp.fit(EXPERIMENT, digits, workdir=run, resume=True)
    assert "losses of steps are missing" in caplog.text
    losses = read_losses(run)
    assert losses.size == 4 * 11
    assert np.isnan(losses[:11]).all()
    assert np.isfinite(losses[-11:]).all()


def test_who_lost_the_folder_writes_nothing_into_what_came_in_its_place(digits: Dataset, tmp_path: Path) -> None:
    run, gone = tmp_path / "run", tmp_path / "gone"

    def take_away(record: object) -> None:
        if not gone.exists():
            run.rename(gone)
            jaxmlp.fit(EXPERIMENT, digits, workdir=run)

    with pytest.raises(RunError, match="can't be written: No such file or directory"):
        jaxmlp.fit(EXPERIMENT, digits, workdir=run, report=take_away)
    jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "whole")
    assert_the_same(tmp_path / "whole", run)


def test_who_lost_the_folder_does_not_say_there_why_it_stopped(digits: Dataset, tmp_path: Path) -> None:
    run = tmp_path / "run"
    folder = RunFolder.open(run, EXPERIMENT, digits, digits.checksum(), None, resume=False)
    run.rename(tmp_path / "gone")
    run.mkdir()
    folder.stopped("diverged", "in epoch 1")
    folder.close()
    assert not [*run.iterdir()]


# what follows runs in processes of its own: imported once, forked before JAX has started anything

SCRIPT = """
import os, random, signal, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np
import jax, optax, orbax.checkpoint, tensorboardX, jaxmlp, jaxmlp.training.fit as fitting
from jaxmlp import *
from jaxmlp.training import checkpoints
from jaxmlp.training.checkpoints import kept

place, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(place / "cache")
jax.config.update("jax_compilation_cache_dir", str(place / "cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
rng, chance = np.random.default_rng(0), random.Random(seed)
x, y = rng.normal(size=(400, 10)).astype(np.float32), rng.integers(0, 3, 400)
dataset = Dataset.from_arrays(x, y, x[:50], y[:50])
experiment = Experiment(
    Network((10, 8, 3)), Data(validation=50), Optimizer("adam", 0.01), Train(epochs=10**9, batch_size=8),
    checkpoint=Checkpoint(seconds=0.0),
)
fitting.FIRST_PORTION = 5


def steps(name):
    '''Of the run's newest checkpoint.'''
    return max((int(path.name) for path in kept(place / name / "checkpoints")), default=0)


def child(name, saves=None, epochs=None, experiment=experiment):
    '''Trains, or goes on: to the end, or so many epochs in all; or until it is killed, while it saves for the next
    time after so many or not long after.'''
    parent = os.getpid()
    pid, before = os.fork(), steps(name)
    if not pid:
        status = 1
        try:
            if saves is not None:
                checkpoints.REST = 0
            ended = []

            def report(record):
                ended.append(record.epoch)
                if saves is not None:
                    time.sleep(0.01)  # few epochs pass while one checkpoint is saved: all of them are trained again

            jaxmlp.fit(
                experiment, dataset, workdir=place / name, resume=True, report=report,
                stop=lambda: ended[-1:] == [epochs] or os.getppid() != parent,  # which may be killed
            )
            status = 0
        except StoppedError:
            status = 0
        finally:
            os._exit(status)
    if saves is not None:
        took = 0.02  # seconds from one checkpoint to the next, soon measured
        for _ in range(saves):
            begun = time.monotonic()
            while steps(name) == before:
                time.sleep(0.001)
            before, took = steps(name), time.monotonic() - begun
        while not any((place / name / "checkpoints").glob("*.part")):
            time.sleep(0.001)
        time.sleep(chance.random() * took)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


killed = saving = advanced = 0
while killed < kills:
    before = kept(place / "broken" / "checkpoints")[-1:]
    assert child("broken", saves=chance.randrange(3)) == signal.SIGKILL
    killed += 1
    advanced += kept(place / "broken" / "checkpoints")[-1:] != before
    saving += any((place / "broken" / "checkpoints").glob("*.part"))
epochs = steps("broken") // 44 + 20  # of 44 steps each
assert child("broken", epochs=epochs) == child("whole", epochs=epochs) == 0
brief = replace(experiment, train=Train(epochs=300, batch_size=8))
assert child("killed once", saves=1, experiment=brief) == signal.SIGKILL
assert child("killed once", experiment=brief) == child("never", experiment=brief) == 0
print(killed, saving, advanced)
"""


def test_a_run_killed_50_times_mostly_while_saving_goes_on_bit_for_bit_as_without(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path, "50", "0"], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    killed, saving, advanced = map(int, done.stdout.split())
    assert killed == 50
    assert saving > 25  # a checkpoint was left half written
    assert advanced > 25  # and others had been finished
    assert not [path for path in (tmp_path / "broken" / "checkpoints").iterdir() if path.name.startswith("damaged")]
    assert_as_far_the_same(tmp_path / "whole", tmp_path / "broken")
    assert len(lines(tmp_path / "whole")) > 20  # epochs, the last of them without a break
    assert_the_same(tmp_path / "never", tmp_path / "killed once")


TRAINER = """
import sys
import numpy as np
import jaxmlp
from jaxmlp import *
x, y = np.eye(6, dtype=np.float32), np.arange(6) % 2
experiment = Experiment(Network((6, 2)), Data(validation=0), train=Train(epochs=10**9))
print("starting", flush=True)
dataset = Dataset.from_arrays(x, y, x, y)
jaxmlp.fit(experiment, dataset, workdir=sys.argv[1], report=lambda record: print(".", flush=True))
"""


def test_a_second_trainer_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    x, y = np.eye(6, dtype=np.float32), np.arange(6) % 2
    dataset = Dataset.from_arrays(x, y, x, y)
    experiment = Experiment(Network((6, 2)), Data(validation=0), train=Train(epochs=10**9))
    command = [sys.executable, "-c", TRAINER, tmp_path / "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "starting\n"
        assert first.stdout.readline() == ".\n"
        with pytest.raises(RunError, match=f"process {first.pid} is training there: expected no other"):
            jaxmlp.fit(experiment, dataset, workdir=tmp_path / "run", resume=True)
        first.send_signal(signal.SIGKILL)
        first.wait()
    with pytest.raises(StoppedError):
        jaxmlp.fit(experiment, dataset, workdir=tmp_path / "run", resume=True, stop=lambda: True)
