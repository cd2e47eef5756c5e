import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxmlp
from jaxmlp import Checkpoint, Data, Dataset, Experiment, Network, Optimizer, RunError, StoppedError, Train
from jaxmlp.training.checkpoints import (
    DamagedError,
    Snapshot,
    digest_of,
    digests,
    host_copy,
    kept,
    newest,
    path_of,
    restore,
    retire,
    write,
)
from jaxmlp.training.epoch import initial_state
from jaxmlp.training.records import EpochRecord, as_json

pytestmark = pytest.mark.own_precision
EXPERIMENT = Experiment(Network((20, 6, 3)), Data(validation=40), Optimizer("adam", 0.01), Train(epochs=3))


def record(epoch: int, accuracy: float = 0.5) -> EpochRecord:
    return EpochRecord(epoch, 1 / 3, 0.1 + 0.2, accuracy, 0.125, 1e5 / 3)


def snapshot(steps: int, *accuracies: float, losses: int = 0) -> Snapshot:
    """A state in which every number tells `steps`."""
    state = jax.tree.map(lambda leaf: (leaf + steps).astype(leaf.dtype), host_copy(initial_state(EXPERIMENT)))
    history = tuple(record(epoch, accuracy) for epoch, accuracy in enumerate(accuracies, start=1))
    found = np.linspace(0.1, 0.7, losses, dtype=np.float32)
    return Snapshot(state, 1 + len(history), found, steps, 0.1, 1 / 7, history)


def same(a: Snapshot, b: Snapshot) -> bool:
    pairs = zip(jax.tree.leaves(a.state), jax.tree.leaves(b.state), strict=True)
    alike = all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs)
    names = ("epoch", "steps", "seconds", "wall_seconds", "history")
    alike &= all(getattr(a, name) == getattr(b, name) for name in names)
    return alike and a.losses.tobytes() == b.losses.tobytes()


def test_runs_from_before_a_setting_was_there_can_be_read() -> None:
    before_data_examples = "ce51ddd53a7e84aec410bc8f9019e6a282414e00e0da4d3da5b4cb0bd9fb6fb1"
    assert digest_of(EXPERIMENT) == before_data_examples
    assert digest_of(replace(EXPERIMENT, data=Data(validation=40, examples=9))) != before_data_examples


@pytest.mark.parametrize("losses", [0, 4])
def test_a_checkpoint_gives_back_what_it_was_given_bit_for_bit(losses: int, tmp_path: Path) -> None:
    given = snapshot(7, 0.5, 0.75, losses=losses)
    write(tmp_path, given, EXPERIMENT)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000007"]
    found = newest(tmp_path, given.state, EXPERIMENT, aside=True)
    assert found is not None
    assert same(found, given)


def flip_a_byte(at: float) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(at * (len(content) - 1))] ^= 0x10
        path.write_bytes(bytes(content))

    return flip


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
    **{f"flipped at {at}": flip_a_byte(at) for at in (0, 0.3, 0.7, 1)},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_whatever_file_of_a_checkpoint_is_damaged_the_one_before_it_is_used(
    damage: Callable[[Path], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tmp_path / "whole"
    for steps in (7, 14):
        write(whole, snapshot(steps, 0.5), EXPERIMENT)
    files = [path.relative_to(whole) for path in (whole / "000000000014").rglob("*") if path.is_file()]
    assert len(files) > 5
    for n, file in enumerate(files):
        folder = tmp_path / str(n)
        shutil.copytree(whole, folder)
        damage(folder / file)
        caplog.clear()
        found = newest(folder, snapshot(0).state, EXPERIMENT, aside=True)
        assert found is not None
        assert same(found, snapshot(7, 0.5)), file
        assert "000000000014: the checkpoint is damaged" in caplog.text
        assert (folder / "damaged-000000000014").is_dir()
        assert newest(folder, snapshot(0).state, EXPERIMENT, aside=True) is not None  # and is not looked at again
        assert caplog.text.count("damaged:") == 1


def test_damaged_checkpoints_are_no_hindrance_to_training_on(digits: Dataset, tmp_path: Path) -> None:
    experiment = replace(EXPERIMENT, optimizer=Optimizer(), train=Train(epochs=300), checkpoint=Checkpoint(keep=2))
    with pytest.raises(StoppedError):
        jaxmlp.fit(
            experiment, digits, workdir=tmp_path / "run", stop=lambda: len(kept(tmp_path / "run/checkpoints")) > 1
        )
    for path in kept(tmp_path / "run" / "checkpoints")[:-1]:
        (path / "place.json").write_bytes(b"")
    run = jaxmlp.fit(experiment, digits, workdir=tmp_path / "run", resume=True)
    jax.tree.map(np.testing.assert_array_equal, run.params, jaxmlp.fit(experiment, digits).params)


def test_a_damaged_checkpoint_that_is_only_read_stays_where_it_is(digits: Dataset, tmp_path: Path) -> None:
    experiment = replace(EXPERIMENT, optimizer=Optimizer())
    run = jaxmlp.fit(experiment, digits, workdir=tmp_path / "run")
    for steps in (1, 2):  # whatever was left out, as training was faster than the disk
        state = host_copy(initial_state(experiment))
        write(tmp_path / "run" / "checkpoints", replace(snapshot(steps), state=state), experiment)
    paths = kept(tmp_path / "run" / "checkpoints")
    (paths[-1] / "place.json").unlink()
    older = jaxmlp.load(tmp_path / "run")
    assert kept(tmp_path / "run" / "checkpoints") == paths
    assert (older.params[0].kernel != run.params[0].kernel).any()
    for path in paths[:-1]:
        shutil.rmtree(path / "state")
    with pytest.raises(RunError, match="no checkpoint is whole"):
        jaxmlp.load(tmp_path / "run")


def test_a_checkpoint_of_other_shapes_types_or_settings_is_refused(tmp_path: Path) -> None:
    write(tmp_path, snapshot(7), EXPERIMENT)
    path, like = tmp_path / "000000000007", snapshot(0).state
    wider = host_copy(initial_state(replace(EXPERIMENT, network=Network((20, 7, 3)))))
    with pytest.raises(RunError, match=r"has \['.params\[0\].kernel', \[20, 6\], 'float32'\]: expected .*\[20, 7\]"):
        restore(path, wider, EXPERIMENT)
    with pytest.raises(RunError, match="float16"):
        restore(path, jax.tree.map(lambda leaf: leaf.astype(np.float16), like), EXPERIMENT)
    with pytest.raises(RunError, match=r"has \['.optimizer.*: expected None"):
        restore(path, host_copy(initial_state(replace(EXPERIMENT, optimizer=Optimizer("sgd")))), EXPERIMENT)
    with pytest.raises(RunError, match="of other settings"):
        restore(path, like, replace(EXPERIMENT, train=Train(epochs=4)))
    assert restore(path, like, replace(EXPERIMENT, checkpoint=Checkpoint(keep=9))).steps == 7


def test_the_newest_few_and_the_best_by_validation_are_kept(tmp_path: Path) -> None:
    accuracies = (0.5, 0.9, 0.7, 0.9, 0.6, 0.8)
    for epoch in range(1, 7):
        made = snapshot(10 * epoch, *accuracies[:epoch])
        write(tmp_path, made, EXPERIMENT)
        retire(tmp_path, 2, made.best)
    assert [path.name.lstrip("0") for path in kept(tmp_path)] == ["20", "50", "60"]  # of two best, the first
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in kept(tmp_path)]


def test_the_best_epoch_is_found_from_the_middle_of_another() -> None:
    assert snapshot(24, 0.5, 0.9, losses=4).best == 20
    assert snapshot(10, 0.5).best == 10
    assert snapshot(4, losses=4).best is None


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    write(tmp_path, snapshot(7), EXPERIMENT)
    (tmp_path / "000000000014.part" / "state").mkdir(parents=True)
    assert newest(tmp_path, snapshot(0).state, EXPERIMENT, aside=True).steps == 7
    assert [path.name for path in tmp_path.iterdir()] == ["000000000007"]


def test_nothing_in_the_package_unpickles() -> None:
    for path in Path(jaxmlp.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"import pickle|pickle\.|allow_pickle=True", text), path
        assert text.count("np.load(") <= text.count("allow_pickle=False"), path


HOSTILE: dict[str, list[Any]] = {
    "history": [[1], [{}], {"a": 1}, "x", [{"epoch": 99}], [{**as_json(record(1)), "epoch": 7}]],
    "seconds": ["x", None, [1]],
    "wall_seconds": ["x", None],
    "leaves": [[], 5, [[1]], None],
    "experiment": ["", 7],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, many in HOSTILE.items() for value in many])
def test_whatever_somebody_writes_into_a_checkpoint_is_one_clear_error(field: str, value: Any, tmp_path: Path) -> None:
    write(tmp_path, snapshot(7, 0.5), EXPERIMENT)
    path = path_of(tmp_path, 7)
    place = json.loads((path / "place.json").read_text())
    (path / "place.json").write_text(json.dumps(place | {field: value}))
    (path / "digests.json").write_text(json.dumps(digests(path)))
    with pytest.raises(RunError, match=r"000000000007: the checkpoint (can't be restored|has|is of)") as raised:
        restore(path, snapshot(0).state, EXPERIMENT)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["place.json", "digests.json"])
def test_nesting_without_end_is_damage(name: str, tmp_path: Path) -> None:
    write(tmp_path, snapshot(7), EXPERIMENT)
    (path_of(tmp_path, 7) / name).write_text("[" * 200_000)
    with pytest.raises(DamagedError, match="the checkpoint is damaged"):
        restore(path_of(tmp_path, 7), snapshot(0).state, EXPERIMENT)


def test_a_run_can_be_loaded_while_it_is_trained(digits: Dataset, tmp_path: Path) -> None:
    experiment = replace(EXPERIMENT, optimizer=Optimizer(), train=Train(epochs=10**6), checkpoint=Checkpoint(keep=1))
    found = []

    def stop() -> bool:
        if kept(tmp_path / "run" / "checkpoints"):
            found.append(jaxmlp.load(tmp_path / "run"))
        return len(found) == 20

    with pytest.raises(StoppedError):
        jaxmlp.fit(experiment, digits, workdir=tmp_path / "run", stop=stop)
