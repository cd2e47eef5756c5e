"""A run's progress: a live line on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar

from jaxmlp.training.records import EpochRecord

COMPILING = 10.0
"""Seconds of a first epoch up to which the compilation in them may be the most: nothing of the others follows then."""


def describe(record: EpochRecord, epochs: int, first: bool = False) -> str:
    """An epoch in a line that fits a terminal of 80 columns; the accuracy is that of the validation examples.

    Where training is private, the privacy spent takes the place of the images a second. `first` says that the epoch's
    seconds include compilation.

    >>> record = EpochRecord(2, 0.5, 0.25, 0.875, seconds=1.5, images_per_second=40000.0)
    >>> describe(record, epochs=10)
    'epoch  2/10  loss 0.5000  accuracy 87.50 %  40,000 examples/s  12 s left'
    """
    parts = [f"epoch {record.epoch:{len(str(epochs))}}/{epochs}", f"loss {record.train_loss:.4f}"]
    if record.validation_accuracy is not None:
        parts.append(f"accuracy {100 * record.validation_accuracy:.2f} %")
    elif record.validation_loss is not None:
        parts.append(f"validation loss {record.validation_loss:.4f}")
    if record.epsilon is not None:
        parts.append(f"epsilon {record.epsilon:.3f}")
    else:
        parts.append(f"{record.images_per_second:,.0f} examples/s")
    if record.skipped:
        parts.append(f"{record.skipped} skipped")
    if not first or record.seconds > COMPILING or record.epoch == epochs:
        parts.append(f"{duration((epochs - record.epoch) * record.seconds)} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """
    >>> [duration(s) for s in (0.4, 59.6, 61.0, 7322.0)]
    ['0 s', '1:00', '1:01', '2:02:02']
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"


def stopping() -> None:
    """Says that a signal was heard; while something is shown live, what is printed stands above it."""
    print("jaxmlp: stopping when what has been done is saved; once more leaves at once", file=sys.stderr)


class Progress:
    """A context manager whose instance is called with each epoch's record: the `report` of `jaxmlp.fit`."""

    def __init__(self, epochs: int, console: Console) -> None:
        self.epochs, self.console, self.first = epochs, console, True
        self.live = console.is_terminal and not console.is_dumb_terminal
        columns = [SpinnerColumn(), TextColumn("{task.description}")]
        if console.width >= 110:
            columns.append(BarColumn(bar_width=20))
        self.bar = Bar(*columns, console=console)
        self.task = self.bar.add_task("compiling the first epoch", total=epochs)

    def __enter__(self) -> "Progress":
        if self.live:
            self.bar.start()
        return self

    def __call__(self, record: EpochRecord) -> None:
        line, self.first = describe(record, self.epochs, self.first), False
        if self.live:
            self.bar.update(self.task, completed=record.epoch, description=line)
        else:
            self.console.print(line, soft_wrap=True, highlight=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if self.live:
            self.bar.stop()
