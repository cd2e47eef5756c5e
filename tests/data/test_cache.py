import os
from pathlib import Path

import numpy as np
import pytest

from jaxmlp.data import cache
from jaxmlp.data.cache import Note, default_config, file_of, home, keep, keep_default, kept, read, read_note
from jaxmlp.data.listing import available
from jaxmlp.errors import DataError

pytestmark = pytest.mark.own_precision

NOTE = Note(train=2, test=1, shape=(3, 2), classes=2, names=("a", "b"), stamp=(1, 2))
ARRAYS = [
    np.arange(12, dtype=np.uint8).reshape(2, 3, 2),
    np.array([0, 1], np.int32),
    np.zeros((1, 3, 2), np.uint8),
    np.array([1], np.int32),
]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_what_was_kept_comes_back_as_it_was() -> None:
    keep(file_of("a/b", "1.0.0"), NOTE, ARRAYS)
    note, arrays = read(kept("a/b")["1.0.0"])
    assert note == NOTE
    for found, given in zip(arrays, ARRAYS, strict=True):
        assert found.dtype == given.dtype
        np.testing.assert_array_equal(found, given)


def test_a_file_is_whole_or_not_there(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    path = file_of("a", "1.0.0")
    keep(path, NOTE, ARRAYS)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    keep(path, NOTE, ARRAYS[::-1])
    assert (path.read_bytes(), [*path.parent.iterdir()]) == (before, [path])
    assert f"{path}: can't be kept (No space left on device)" in caplog.text


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_any_truncation_is_noticed(share: float) -> None:
    path = file_of("a", "1.0.0")
    keep(path, NOTE, ARRAYS)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="1.0.0.npz: can't be read as an NPZ file"):
        read(path)


def test_no_flipped_bit_gives_a_wrong_array() -> None:
    path = file_of("a", "1.0.0")
    keep(path, NOTE, ARRAYS)
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :])
        try:
            note, arrays = read(path)
        except DataError:
            continue
        assert note == NOTE  # the bit is one that says nothing, such as of a date
        assert all(np.array_equal(*pair) for pair in zip(arrays, ARRAYS, strict=True))


def test_arrays_that_are_not_the_notes_are_refused() -> None:
    path = file_of("a", "1.0.0")
    keep(path, NOTE, [ARRAYS[2], *ARRAYS[1:]])
    with pytest.raises(DataError, match="its arrays are not those of its note"):
        read(path)


def test_a_note_that_is_none_is_refused(place: Path) -> None:
    for content in (b"", b"[1]", b"{}", b'{"form": 1, "other": 2}', b'{"form": 0}', b"\xff"):
        np.savez(place / "x.npz", note=np.frombuffer(content, np.uint8))
        with pytest.raises(DataError, match="its note can't be read"):
            read_note(place / "x.npz")


def test_the_default_config_is_kept_and_a_damaged_one_is_none() -> None:
    assert default_config("a") is None
    keep_default("a", "b.c-1")
    assert default_config("a") == "b.c-1"
    for content in (b"", b"../x", b"\xff"):
        (home() / "a" / "default_config").write_bytes(content)
        assert default_config("a") is None


def test_the_cache_is_where_the_desktop_says_or_in_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    assert home() == place / "jaxmlp" / "tfds"
    monkeypatch.setenv("HOME", str(place / "me"))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert home() == place / "me" / ".cache" / "jaxmlp" / "tfds"


def test_what_a_killed_process_left_is_taken_away_an_hour_later() -> None:
    path = file_of("a", "1.0.0")
    path.parent.mkdir(parents=True)
    old, new = path.with_name("old.part"), path.with_name("new.part")
    for left in (old, new):
        left.touch()
    os.utime(old, (0, 0))
    keep(path, NOTE, ARRAYS)
    assert sorted(path.parent.iterdir()) == [path, new]


def test_a_home_folder_that_is_not_there_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", "~nobody-of-that-name/data")
    with pytest.raises(DataError, match="~nobody-of-that-name/data: no such home folder"):
        available()
