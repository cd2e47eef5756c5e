"""The reader trusts nothing: every damaged file is refused with a DataError that names it; none crashes or loads."""

import gzip
import itertools
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxmlp import DataError
from jaxmlp.data import idx
from jaxmlp.data.idx import load_idx, read_idx

pytestmark = pytest.mark.own_precision

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def header(*numbers: int, magic: bytes) -> bytes:
    return magic + struct.pack(f">{len(numbers)}I", *numbers)


def damaged(name: str, content: bytes) -> Iterator[tuple[str, bytes, str]]:
    """Ways to damage a file: what was done, the new content, and what the message must say."""
    dimensions = 3 if "idx3" in name else 1
    start, magic = 4 + 4 * dimensions, content[:4]
    shape, elements = content[4:start], content[start:]

    for i, byte in (
        (0, 1),
        (0, 255),
        (1, 1),
        (1, 128),
        (2, 0),
        (2, 9),
        (2, 13),
        (2, 14),
        (3, 0),
        (3, 2),
        (3, 4),
        (3, 255),
    ):
        wrong = bytearray(content)
        wrong[i] = byte
        yield f"magic byte {i} is {byte}", bytes(wrong), r"magic number is .* expected 00 00 08 0\d"
    yield "the other kind's magic number", bytes([0, 0, 8, 4 - dimensions]) + content[4:], "magic number"
    yield "text", b"label,pixel0,pixel1\n5,0,0\n", "magic number is 6c 61 62 65"
    yield "little-endian header", magic[::-1] + content[4:], "magic number"

    yield "empty", b"", "the file is empty|magic number is missing"
    for length in (1, 2, 3):
        yield f"{length} bytes", content[:length], "magic number"
    for length in (4, 5, start - 1):
        yield f"{length} bytes", content[:length], rf"truncated: the header has {length} bytes: expected {start}"
    yield "only a header", content[:start], "truncated"
    for lost in (1, 2, len(elements) // 2, len(elements) - 1):
        yield f"{lost} bytes fewer", content[:-lost], rf"truncated: .*{len(elements)}"
    for added in (1, 2, 100, 5000):
        yield f"{added} bytes more", content + b"\1" * added, rf"overlong: more bytes follow the {len(elements)} that"
    yield "twice", content + content, "overlong"

    for axis in range(dimensions):
        counts = list(struct.unpack(f">{dimensions}I", shape))
        for count, message in (
            (0, r"dimensions are .*: expected at least one element"),
            (counts[axis] - 1, "overlong"),
            (counts[axis] + 1, "truncated"),
            (2**31, "truncated"),
            (2**32 - 1, "truncated"),
        ):
            counts_now = [*counts[:axis], count, *counts[axis + 1 :]]
            yield f"dimension {axis} is {count}", header(*counts_now, magic=magic) + elements, message
    yield "all dimensions 0", header(*[0] * dimensions, magic=magic) + elements, "at least one element"
    yield "all dimensions huge", header(*[2**32 - 1] * dimensions, magic=magic) + elements, "truncated"


def valid(name: str) -> bytes:
    count = 7 if name.startswith("train") else 4
    array = np.arange(count * 6).reshape(count, 3, 2) if "idx3" in name else np.arange(count) % 4
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


CASES = [
    pytest.param(name, content, message, zipped, id=f"{name}{'.gz' * zipped}: {what}")
    for name in FILES
    for what, content, message in damaged(name, valid(name))
    for zipped in (False, True)
]


def test_there_are_over_200_damaged_files() -> None:
    assert len(CASES) > 200


@pytest.mark.parametrize(("name", "content", "message", "zipped"), CASES)
def test_a_damaged_file_is_refused(
    name: str, content: bytes, message: str, zipped: bool, idx_folder: Callable[..., Path]
) -> None:
    folder = idx_folder(zipped=zipped)
    path = folder / f"{name}{'.gz' * zipped}"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError, match=message) as refusal:
        load_idx(folder, classes=4)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_a_gzip_file_cut_anywhere_is_refused(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = gzip.compress(valid(path.stem))
    path.write_bytes(whole[:cut])
    assert cut < len(whole)
    with pytest.raises(DataError, match=path.name):
        read_idx(path, 3)


@pytest.mark.parametrize("place", range(10, 60, 3))
def test_a_gzip_file_with_a_byte_changed_is_refused(place: int, tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    changed = bytearray(gzip.compress(valid(path.stem)))
    changed[place] ^= 0xFF
    path.write_bytes(changed)
    with pytest.raises(DataError, match=path.name):
        read_idx(path, 3)


def test_a_plain_file_named_gz_and_a_gzip_file_not_named_so_are_told_apart(tmp_path: Path) -> None:
    named, unnamed = tmp_path / "a.gz", tmp_path / "a"
    named.write_bytes(valid(FILES[1]))
    unnamed.write_bytes(gzip.compress(valid(FILES[1])))
    with pytest.raises(DataError, match=r"begins with bytes 00 00: expected a gzip file .*remove \.gz"):
        read_idx(named, 1)
    with pytest.raises(DataError, match=r"is a gzip file: expected plain IDX; add \.gz"):
        read_idx(unnamed, 1)


def test_a_small_gzip_file_cannot_claim_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(header(2**31, 2**10, 2**10, magic=bytes([0, 0, 8, 3]))))
    with pytest.raises(DataError, match="truncated: dimensions .* found at most"):
        read_idx(path, 3)


@pytest.mark.parametrize(("label", "place"), [(4, 0), (9, 3), (200, 6), (255, 1)])
@pytest.mark.parametrize("zipped", [False, True])
def test_labels_outside_the_classes_are_refused(
    label: int, place: int, zipped: bool, idx_folder: Callable[..., Path]
) -> None:
    folder = idx_folder(zipped=zipped)
    path = folder / f"{FILES[1]}{'.gz' * zipped}"
    content = bytearray(valid(FILES[1]))
    content[8 + place] = label
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError, match=rf"label {label} at index {place} .*expected labels from 0 to 3") as refusal:
        load_idx(folder, classes=4)
    assert str(path) in str(refusal.value)


def test_counts_that_differ_are_refused(idx_folder: Callable[..., Path]) -> None:
    folder = idx_folder()
    (folder / FILES[1]).write_bytes(valid(FILES[3]))
    with pytest.raises(DataError, match=r"found 4 labels: expected 7, as many as there are images in train-images"):
        load_idx(folder, classes=4)


def test_images_of_two_sizes_are_refused(idx_folder: Callable[..., Path]) -> None:
    folder = idx_folder()
    (folder / FILES[2]).write_bytes(header(4, 2, 3, magic=bytes([0, 0, 8, 3])) + bytes(24))
    with pytest.raises(DataError, match=r"training input has shape \(3, 2\), a test input \(2, 3\)"):
        load_idx(folder, classes=4)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, idx_folder: Callable[..., Path]) -> None:
    folder = idx_folder()
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"found none of {name}, {name}.gz"):
        load_idx(folder, classes=4)
    (folder / name).mkdir()
    with pytest.raises(DataError, match=rf"{name}: no such file"):
        load_idx(folder, classes=4)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("form", ["-idx", ".idx"])
def test_plain_and_gzipped_folders_give_the_same_arrays(
    zipped: bool, form: str, idx_folder: Callable[..., Path]
) -> None:
    folder = idx_folder(zipped=zipped)
    for path in folder.iterdir():
        path.rename(path.with_name(path.name.replace("-idx", form)))
    dataset = load_idx(folder, classes=4)
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 2)).astype(np.uint8)
    np.testing.assert_array_equal(dataset.train.inputs, images.reshape(7, 6))
    np.testing.assert_array_equal(dataset.test.targets, [0, 1, 2, 3])
    assert dataset.shape == (3, 2)


@settings(max_examples=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=64), dimensions=st.sampled_from([1, 3]), zipped=st.booleans(), magic=st.booleans())
def test_any_bytes_are_an_array_or_a_data_error(
    content: bytes, dimensions: int, zipped: bool, magic: bool, tmp_path: Path
) -> None:
    content = bytes([0, 0, 8, dimensions]) + content if magic else content
    path = tmp_path / f"file{'.gz' * zipped}"
    path.write_bytes(gzip.compress(content) if zipped and magic else content)
    try:
        array = read_idx(path, dimensions)
    except DataError:
        return
    assert array.size == len(content) - 4 - 4 * dimensions


@pytest.mark.parametrize("piece", [1, 7, 2**20])
def test_a_gzip_file_of_several_members_is_read_as_one(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idx, "PIECE", piece)
    content, path = valid(FILES[0]), tmp_path / f"{FILES[0]}.gz"
    for cuts in ([0, 20, 58], [0, 2, 9, 16, 17, 58], [0, 16, 58]):
        packed = [gzip.compress(content[a:b]) for a, b in itertools.pairwise(cuts)]
        members = b"".join(packed)
        for padding in (b"", b"\0" * 10):
            path.write_bytes(padding.join([*packed, b""]))
            assert read_idx(path, 3).tobytes() == content[16:]
        path.write_bytes(members[:-1])
        with pytest.raises(DataError, match="truncated"):
            read_idx(path, 3)
        path.write_bytes(members + b"more")
        with pytest.raises(DataError, match="damaged"):
            read_idx(path, 3)
