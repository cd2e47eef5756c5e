import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxmlp
from jaxmlp import Data, Dataset, Experiment, Network, Optimizer, RunError, Train
from jaxmlp.training.epoch import mean_loss
from jaxmlp.training.run import read_losses, write_whole

pytestmark = pytest.mark.own_precision  # training is in float32

EXPERIMENT = Experiment(
    Network((20, 8, 3)), Data(validation=40), Optimizer(learning_rate=2.0), Train(epochs=3, batch_size=16)
)


@pytest.fixture
def folder(digits: Dataset, tmp_path: Path) -> Path:
    jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_loaded_as_it_was(digits: Dataset, tmp_path: Path) -> None:
    run = jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "runs" / "deep")
    again = jaxmlp.load(tmp_path / "runs" / "deep")
    jax.tree.map(np.testing.assert_array_equal, run.params, again.params)
    assert (again.experiment, again.history, again.result) == (EXPERIMENT, run.history, run.result)
    np.testing.assert_array_equal(again.outputs(digits.test.inputs), run.outputs(digits.test.inputs))


def test_a_folder_holds_what_the_design_says(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "config.json",
        "lock",
        "losses.f32",
        "metrics.jsonl",
        "result.json",
        "tensorboard",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert config["experiment"] == json.loads(json.dumps(EXPERIMENT.as_dict()))
    checksum = config["dataset"].pop("checksum")
    assert config["dataset"] == {"name": "digits", "labelled": True, "train": 163, "test": 50}
    assert re.fullmatch("[0-9a-f]{8}", checksum)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert {"train_loss", "validation_loss", "validation_accuracy", "seconds"} <= lines[0].keys()
    result = json.loads((folder / "result.json").read_text())
    expected = {"test_accuracy", "test_loss", "validation_accuracy", "epochs", "parameters", "wall_seconds"}
    assert expected <= result.keys()
    assert result["parameters"] == EXPERIMENT.network.parameters


def test_a_used_folder_is_refused_and_left_as_it_is(folder: Path, digits: Dataset) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="holds a finished run already: expected a new folder"):
        jaxmlp.fit(EXPERIMENT, digits, workdir=folder)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "result.json").unlink()
    with pytest.raises(
        RunError,
        match="holds config.json, metrics.jsonl, checkpoints, losses.f32, perhaps of an unfinished run, already",
    ):
        jaxmlp.fit(EXPERIMENT, digits, workdir=folder)


def test_a_run_whose_settings_are_gone_is_not_said_to_be_somebody_elses(folder: Path, digits: Dataset) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(RunError, match="holds a finished run already"):
        jaxmlp.fit(EXPERIMENT, digits, workdir=folder, resume=True)
    (folder / "result.json").unlink()
    with pytest.raises(RunError, match="perhaps of an unfinished run whose config.json is gone, already: expected a"):
        jaxmlp.fit(EXPERIMENT, digits, workdir=folder, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_holds_runs_is_no_runs_folder(folder: Path, digits: Dataset, resume: bool) -> None:
    before = {*folder.parent.iterdir()}
    with pytest.raises(RunError, match="holds runs in folders of their own: expected a new folder"):
        jaxmlp.fit(EXPERIMENT, digits, workdir=folder.parent, resume=resume)
    assert {*folder.parent.iterdir()} == before


def test_a_config_of_something_else_does_not_make_a_folder_of_runs(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path)
    assert jaxmlp.load(tmp_path).result is not None


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "result.json", "checkpoints"])
def test_a_folder_with_a_file_that_a_run_would_overwrite_is_refused(name: str, digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(RunError, match=f"{tmp_path}: holds"):
        jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "precious")]


def test_what_a_run_may_depend_on_is_kept(folder: Path) -> None:
    environment = json.loads((folder / "config.json").read_text())["environment"]
    assert {"python", "jax", "orbax-checkpoint"} <= {*environment["versions"]}
    assert environment["devices"] == [jax.devices()[0].device_kind] * len(jax.devices())
    assert environment["command"] == sys.argv
    assert environment["git"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", environment["git"])


def test_the_loss_of_every_step_is_kept_and_adds_up_to_the_epochs(folder: Path, digits: Dataset) -> None:
    run, losses = jaxmlp.load(folder), read_losses(folder)
    steps = losses.reshape(len(run.history), -1)
    for record, means in zip(run.history, steps, strict=True):
        count = digits.train.size - run.experiment.data.validation
        assert mean_loss(means, count, run.experiment.train.batch_size) == record.train_loss


def test_an_interrupted_run_keeps_its_last_whole_epoch(digits: Dataset, tmp_path: Path) -> None:
    def stop(record: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "run", report=stop)
    run = jaxmlp.load(tmp_path / "run")
    assert [record.epoch for record in run.history] == [1]
    assert run.result is None
    assert run.predict(digits.test.inputs).shape == (50,)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_cannot_hold_a_run_is_refused(place: str, digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        RunError, match="can't be written: (Not a directory|File exists); a file is where a folder is to be"
    ):
        jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / place)


def test_damaged_and_missing_files_are_named(folder: Path) -> None:
    for name in ("config.json", "metrics.jsonl", "result.json"):
        path = folder / name
        whole = path.read_bytes()
        for content in (b"", whole[: len(whole) // 2], b"{}", b"[1]", b"[" * 100_000, b"\xff\xfe\x00" * 9):
            if name == "metrics.jsonl" and content == b"":
                continue  # a run interrupted in its first epoch
            path.write_bytes(content)
            with pytest.raises(RunError, match=name) as refusal:
                jaxmlp.load(folder)
            assert "\n" not in str(refusal.value)
        path.unlink()
        if name == "config.json":
            with pytest.raises(RunError, match=f"no {name} in there: expected the folder of a run"):
                jaxmlp.load(folder)
        path.write_bytes(whole)
    jaxmlp.load(folder)
    with pytest.raises(RunError, match="no such folder: expected the folder of a run"):
        jaxmlp.load(folder / "nowhere")


def test_parameters_of_another_network_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for sizes in ([20, 9, 3], [20, 8, 3, 3]):
        config["experiment"]["network"]["sizes"] = sizes
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(RunError, match=r"checkpoints/\d+: the checkpoint has .*: expected "):
            jaxmlp.load(folder)


def test_inputs_of_any_shape_and_type_are_taken_if_the_features_fit(folder: Path, digits: Dataset) -> None:
    run, images = jaxmlp.load(folder), digits.test.inputs
    np.testing.assert_array_equal(run.outputs(images), run.outputs(images.reshape(-1, 5, 4)))
    np.testing.assert_allclose(run.outputs(images), run.outputs(images.astype(np.float64) / 255), rtol=1e-5)
    assert run.outputs(images[:0]).shape == (0, 3)
    for shape in ((20,), (3, 21)):
        with pytest.raises(RunError, match=r"expected \(N, 20\)"):
            run.outputs(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.array([["seven"] * 20]), "inputs have type <U5: expected real numbers"),
        (np.zeros((1, 20), complex), "inputs have type complex128: expected real numbers"),
        (np.full((1, 20), "a", object), "inputs have type object: expected real numbers"),
        (np.ma.masked_equal([[0.5] * 20], 0.5), "inputs have masked places: expected a number in each"),
        ([[0.5] * 20, [0.5]], "inputs are no array .*: expected examples of one shape"),
    ],
)
def test_inputs_that_are_no_real_numbers_are_refused(inputs: Any, message: str, folder: Path) -> None:
    run = jaxmlp.load(folder)
    for method in (run.outputs, run.predict, run.probabilities):
        with pytest.raises(RunError, match=message):
            method(inputs)


def test_numbers_in_an_array_of_objects_are_numbers(folder: Path, digits: Dataset) -> None:
    run, inputs = jaxmlp.load(folder), digits.test.inputs / np.float32(255)
    np.testing.assert_array_equal(run.outputs(inputs.astype(object)), run.outputs(inputs))


def test_a_run_is_equal_to_itself_alone(folder: Path) -> None:
    run, again = jaxmlp.load(folder), jaxmlp.load(folder)
    assert run in [again, run]
    assert run != again


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: pytest.fail("killed before the new file is in place"))
        with pytest.raises(pytest.fail.Exception):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir() if file.name == "file"] == [("file", b"new")]


def test_probabilities_add_up_to_1_even_where_no_output_speaks(folder: Path) -> None:
    run = jaxmlp.load(folder)
    silent = tuple(layer._replace(bias=layer.bias - 1e4) for layer in run.params)
    probabilities = replace(run, params=silent).probabilities(np.zeros((2, 20), np.uint8))
    np.testing.assert_allclose(probabilities, 1 / 3)


def test_outputs_that_are_no_probabilities_are_refused_as_such(digits: Dataset) -> None:
    run = jaxmlp.fit(Experiment(Network((20, 3), output="identity"), Data(validation=0), train=Train(epochs=1)), digits)
    with pytest.raises(RunError, match="network.output is 'identity': expected softmax or sigmoid"):
        run.probabilities(digits.test.inputs)
    assert run.predict(digits.test.inputs).shape == (50,)


@pytest.mark.parametrize("name", ["curves.png", "metrics.jsonl"])
def test_nothing_is_written_through_a_link_that_somebody_laid(name: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / f"{name}.part").symlink_to(tmp_path / "precious")
    write_whole(tmp_path / name, b"new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / name).read_bytes() == b"new"


def test_no_lock_is_a_link(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(RunError, match="can't be written"):
        jaxmlp.fit(EXPERIMENT, digits, workdir=tmp_path / "run")
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("metrics.jsonl", '"epoch": 2', '"epoch": 33'),
        ("metrics.jsonl", '"train_loss": ', '"train_loss": null, "a": '),
        ("metrics.jsonl", '"validation_accuracy": ', '"validation_accuracy": "x", "a": '),
        ("result.json", '"test_accuracy": ', '"test_accuracy": "x", "a": '),
    ],
)
def test_what_is_no_record_is_a_clear_error(name: str, old: str, new: str, folder: Path) -> None:
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(RunError, match=f"{name}: the run can't be read"):
        jaxmlp.load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"experiment": ', "config.json: the run can't be read: it is no whole JSON: Expecting value: line 1"),
        ("[1, 2]", "config.json: the run can't be read: it isn't laid out as a run's is"),
        ("{}", "config.json: the run can't be read: it has no 'experiment'"),
    ],
)
def test_damaged_settings_are_said_to_be(content: str, message: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(RunError, match=message):
        jaxmlp.load(folder)


def test_a_line_that_is_cut_off_is_named_and_going_on_mends_it(digits: Dataset, folder: Path) -> None:
    whole = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(whole + '{"epoch')
    message = (
        rf"metrics.jsonl: the run can't be read: line {whole.count(chr(10)) + 1} is no record of an epoch; --resume"
    )
    with pytest.raises(RunError, match=message):
        jaxmlp.load(folder)
    jaxmlp.fit(
        jaxmlp.Experiment.from_dict(json.loads((folder / "config.json").read_text())["experiment"]),
        digits,
        workdir=folder,
        resume=True,
    )
    assert (folder / "metrics.jsonl").read_text() == whole


def test_a_process_that_ends_with_an_error_while_it_imports_says_nothing_else(tmp_path: Path) -> None:
    code = """
import sys, jax, jaxmlp
jax.devices()
experiment = jaxmlp.Experiment(jaxmlp.Network((4, 2)), jaxmlp.Data("npz:none.npz"))
try:
    jaxmlp.fit(experiment, workdir=sys.argv[1])
except jaxmlp.DataError as error:
    print(error, file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True, check=True)
    assert ended.stderr.count("\n") == 1, ended.stderr
