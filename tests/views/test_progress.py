import io

from rich.console import Console

from jaxmlp.training.records import EpochRecord
from jaxmlp.views.progress import Progress, describe

RECORDS = [EpochRecord(epoch, 0.5 / epoch, 0.4, 0.9, 1.0, 50_000.0) for epoch in (1, 2, 3)]


def shown(console: Console) -> str:
    with Progress(3, console) as progress:
        for record in RECORDS:
            progress(record)
    return console.file.getvalue()


def test_elsewhere_than_on_a_terminal_every_epoch_is_a_plain_line() -> None:
    text = shown(Console(file=io.StringIO(), width=40))
    assert text.splitlines() == [describe(record, 3, first=record.epoch == 1) for record in RECORDS]
    assert text.isascii()


def test_on_a_terminal_the_last_epoch_stands_in_a_live_line() -> None:
    text = shown(Console(file=io.StringIO(), force_terminal=True, width=200))
    assert "\x1b[" in text
    for part in ("epoch 3/3", "loss 0.1667", "accuracy 90.00 %", "50,000 examples/s", "0 s left"):
        assert part in text


def test_what_is_not_known_is_left_out() -> None:
    line = describe(EpochRecord(1, 0.5, None, None, 2.0, 1000.0), 11)
    assert line == "epoch  1/11  loss 0.5000  1,000 examples/s  20 s left"


def test_a_first_epoch_that_is_mostly_compilation_tells_nothing_of_the_others() -> None:
    out = io.StringIO()
    progress = Progress(3, Console(file=out, width=80))
    for epoch, seconds in ((1, 2.0), (2, 0.1)):
        progress(EpochRecord(epoch, 0.5, None, None, seconds, 1000.0))
    first, second = out.getvalue().splitlines()
    assert "left" not in first
    assert second.endswith("0 s left")
    assert describe(EpochRecord(1, 0.5, None, None, 60.0, 1000.0), 3, first=True).endswith("2:00 left")
