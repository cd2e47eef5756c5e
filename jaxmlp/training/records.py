"""What a run says of itself: a line an epoch, and its end."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar


@dataclass(frozen=True)
class EpochRecord:
    """A line of metrics.jsonl.

    Attributes:
        epoch: From 1.
        train_loss: Mean over the epoch's examples, each as it was when its batch came up; of smoothed labels, where
            `network.label_smoothing` asks for them, and with the penalty of `network.l2`, but in recorded and private
            training.
        validation_loss: Mean over the examples held out, with neither; None without a validation split.
        validation_accuracy: Share of validation examples labelled right; None without a split, or for regression.
        seconds: Of training alone; the first epoch's include compilation.
        images_per_second: Training examples over `seconds`.
        recorded: What the experiment records, in short (see `recording.summary`); None, and not in the file, without.
        epsilon: The privacy spent up to here; None, and absent from the file, where training is not private.
        skipped: Steps left out for a gradient that is not finite; None, and absent from the file, where that ends the
            run.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    images_per_second: float
    recorded: dict[str, Any] | None = None
    epsilon: float | None = None
    skipped: int | None = None


@dataclass(frozen=True)
class Result:
    """result.json: the end of a run. Accuracies are None for regression.

    Attributes:
        test_accuracy: Share of test examples labelled right by the final parameters.
        test_loss: Mean over the test examples, without label smoothing and the penalty of `network.l2`.
        validation_accuracy: Of the final parameters; None without a validation split.
        validation_loss: The same of the loss.
        epochs: How many were trained.
        parameters: How many numbers the network has.
        train_seconds: Of training alone, compilation included.
        wall_seconds: From the call of `fit` to the test; of a run that was resumed, of all its parts together.
        epsilon: The privacy spent; None, and absent from the file, where training is not private.
    """

    test_accuracy: float | None
    test_loss: float
    validation_accuracy: float | None
    validation_loss: float | None
    epochs: int
    parameters: int
    train_seconds: float
    wall_seconds: float
    epsilon: float | None = None


Record = TypeVar("Record", EpochRecord, Result)


def from_json(kind: type[Record], given: Any) -> Record:
    """The inverse of `as_json`.

    Raises:
        ValueError: for what can't be a record's.
    """
    wrong = [
        name
        for name, value in given.items()
        if not (value is None or (isinstance(value, dict) if name == "recorded" else type(value) in (int, float)))
    ]
    if wrong:
        raise ValueError(f"{wrong[0]} is {given[wrong[0]]!r}: expected a number")
    return kind(**given)


def history_of(lines: Iterable[Any]) -> tuple[EpochRecord, ...]:
    """Epochs from their lines, one after the other, each what JSON says or as it stands in a file.

    Raises:
        ValueError: for a line that is no record's, or an epoch out of turn.
    """
    history = []
    for number, line in enumerate(lines, start=1):
        try:
            record = from_json(EpochRecord, json.loads(line) if isinstance(line, bytes) else line)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"line {number} is no record of an epoch") from error
        history.append(record)
        if record.epoch != number or not math.isfinite(record.train_loss):
            raise ValueError(f"line {number} is of epoch {record.epoch}, train_loss {record.train_loss}")
    return tuple(history)


SELDOM = ("epsilon", "recorded", "skipped")


def as_json(record: EpochRecord | Result) -> dict[str, Any]:
    """A record as its file has it: without what only some kinds of training have, where it is of another kind."""
    return {name: x for name, x in asdict(record).items() if x is not None or name not in SELDOM}


def best(history: tuple[EpochRecord, ...] | list[EpochRecord]) -> int | None:
    """The epoch that did best on the validation examples: the most right, or the least loss; the first of several.

    None without validation.
    """

    def merit(record: EpochRecord) -> tuple[float, float]:
        assert record.validation_loss is not None
        return (record.validation_accuracy or 0.0, -record.validation_loss)

    validated = [record for record in history if record.validation_loss is not None]
    return max(validated, key=merit).epoch if validated else None
