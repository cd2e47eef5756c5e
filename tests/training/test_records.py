from dataclasses import replace

from jaxmlp.training.records import EpochRecord, as_json, best

RECORD = EpochRecord(1, 0.5, 0.25, 0.75, 1.0, 100.0)


def of(*merits: tuple[float | None, float | None]) -> list[EpochRecord]:
    return [
        replace(RECORD, epoch=epoch, validation_accuracy=accuracy, validation_loss=loss)
        for epoch, (accuracy, loss) in enumerate(merits, start=1)
    ]


def test_the_best_epoch_is_the_first_of_those_that_do_best_on_validation_examples() -> None:
    assert best(of((0.5, 0.1), (0.9, 0.3), (0.9, 0.2), (0.9, 0.2))) == 3
    assert best(of((None, 0.3), (None, 0.1), (None, 0.2))) == 2
    assert best(of((0.0, 0.3), (0.0, 0.4))) == 1
    assert best(of((None, None))) is None
    assert best([]) is None


def test_a_file_holds_what_only_some_kinds_of_training_have_only_where_they_have_it() -> None:
    assert {"epsilon", "recorded", "skipped"}.isdisjoint(as_json(RECORD))
    assert as_json(replace(RECORD, skipped=0))["skipped"] == 0
    assert as_json(replace(RECORD, validation_loss=None))["validation_loss"] is None
    assert EpochRecord(**as_json(RECORD)) == RECORD
