"""`jaxmlp train` as a user would run it, in a process of its own, and what came of it."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
EXPERIMENTS, PACKAGE = ROOT / "experiments", ROOT / "jaxmlp"


class Trained(NamedTuple):
    """A run that has ended."""

    result: dict[str, Any]
    """What its result.json holds."""
    epochs: list[float]
    """Seconds of training of each."""
    seconds: float
    """Of the whole command, with start-up and compilation."""


def train(experiment: Path, fields: dict[str, Any]) -> Trained:
    """One run with these fields set."""
    with tempfile.TemporaryDirectory() as place:
        options = [text for name, value in fields.items() for text in (f"--{name}", str(value))]
        command = [Path(sys.executable).with_name("jaxmlp"), "train", experiment, "--workdir", f"{place}/run", *options]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        result = json.loads(Path(place, "run", "result.json").read_text())
        epochs = [json.loads(line)["seconds"] for line in Path(place, "run", "metrics.jsonl").read_text().splitlines()]
    return Trained(result, epochs, seconds)
