import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaxmlp.training.events import POINTS, Events
from jaxmlp.training.records import EpochRecord

pytestmark = pytest.mark.own_precision  # it computes nothing


def record(epoch: int) -> EpochRecord:
    return EpochRecord(epoch, 1 / epoch, 2 / epoch, 0.5 + epoch / 10, 0.1, 1e4)


def shown(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, round(event.value, 6)) for event in events.Scalars(name)]


def test_tensorboard_reads_the_curves(tmp_path: Path) -> None:
    events = Events(tmp_path)
    losses = np.linspace(1, 0.1, 3 * POINTS, dtype=np.float32)
    for epoch in (1, 2):
        events.add(record(epoch), losses, 3 * POINTS * epoch)
    events.close()
    assert shown(tmp_path, "epoch/train") == [(150, 1), (300, 0.5)]
    assert shown(tmp_path, "epoch/validation_accuracy") == [(150, 0.6), (300, 0.7)]
    steps = shown(tmp_path, "step/train")
    assert [step for step, _ in steps] == list(range(3, 301, 3))
    np.testing.assert_allclose([loss for _, loss in steps[:POINTS]], losses.reshape(-1, 3).mean(axis=1), atol=1e-5)


def test_an_epoch_of_few_steps_shows_each_and_one_without_losses_none(tmp_path: Path) -> None:
    events = Events(tmp_path)
    events.add(record(1), np.array([0.75, 0.5], np.float32), 2)
    events.add(record(2), np.zeros(0, np.float32), 4)
    events.close()
    assert shown(tmp_path, "step/train") == [(1, 0.75), (2, 0.5)]


def test_what_a_resumed_run_writes_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    for last, how in ((3, 1.0), (2, 2.0), (4, 3.0)):
        events = Events(tmp_path)
        for epoch in range(1, last + 1):
            events.add(record(epoch), np.full(10, how, np.float32), 10 * epoch)
        events.close()
    assert [step for step, _ in shown(tmp_path, "epoch/train")] == [10, 20, 30, 40]
    assert shown(tmp_path, "step/train") == [(step, 3) for step in range(1, 41)]


BOTH = """
import sys
from pathlib import Path
from jaxmlp.training.events import Events
print("torch" in sys.modules)
import tensorboardX
print("torch" in sys.modules)
tensorboardX.SummaryWriter("theirs").add_scalar("a", 1.0)
Events(Path("ours")).close()
print(len([*Path("ours").iterdir(), *Path("theirs").iterdir()]))
"""


def test_pytorch_is_left_alone_until_somebody_imports_all_of_tensorboardx(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("class Tensor: ...\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", BOTH], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.split() == ["False", "True", "2"]


def test_a_folder_that_is_named_as_a_protocol_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s3:").mkdir()
    Events(Path("s3://tensorboard")).close()
    assert len([*Path("s3:/tensorboard").iterdir()]) == 1
