"""IDX files, the format of MNIST: a reader that trusts nothing.

An IDX file is a header of big-endian numbers (two zero bytes, a byte for the element type, a byte for the number of
dimensions, four bytes a dimension) and the elements, row by row. Only unsigned bytes (type 8) occur in MNIST's family.
"""

import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

from jaxmlp.data.dataset import Dataset, check_labels
from jaxmlp.errors import DataError

UNSIGNED_BYTE = 8
GZIP_MAGIC = b"\x1f\x8b"
GZIP_FORMAT, PIECE = 16 + zlib.MAX_WBITS, 2**20
GZIP_MOST = 1032  # deflate packs at most 1032 bytes into one, so a short file can't claim to hold gigabytes


def read_idx(path: Path, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """The array of unsigned bytes in an IDX file, gzipped where the name ends with .gz.

    Raises:
        DataError: where the file is missing, is not what its name says, has another magic number or number of
            dimensions, is empty, or is shorter or longer than its header says.
    """
    zipped = path.suffix == ".gz"
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file: expected an IDX file")
        size = path.stat().st_size
        with path.open("rb") as plain:
            start = plain.read(2)
            if not start:
                raise DataError(f"{path}: the file is empty: expected an IDX file")
            if zipped and start != GZIP_MAGIC:
                raise DataError(
                    f"{path}: begins with bytes {start.hex(' ')}: expected a gzip file (1f 8b); if it isn't one, "
                    "remove .gz from its name"
                )
            if not zipped and start == GZIP_MAGIC:
                raise DataError(f"{path}: is a gzip file: expected plain IDX; add .gz to its name")
            plain.seek(0)
            file = Unzipped(plain) if zipped else plain
            magic = file.read(4)
            expected = bytes([0, 0, UNSIGNED_BYTE, dimensions])
            if magic != expected:
                raise DataError(
                    f"{path}: magic number is {magic.hex(' ') or 'missing'}: expected {expected.hex(' ')}, unsigned "
                    f"bytes in {dimensions} dimension{'s' if dimensions > 1 else ''}"
                )
            header = file.read(4 * dimensions)
            if len(header) < 4 * dimensions:
                raise DataError(
                    f"{path}: truncated: the header has {4 + len(header)} bytes: expected {4 + 4 * dimensions}"
                )
            shape = tuple(int(n) for n in np.frombuffer(header, ">u4"))
            elements = math.prod(shape)
            if elements == 0:
                raise DataError(f"{path}: dimensions are {shape}: expected at least one element")
            room = size * GZIP_MOST if zipped else size - 4 - 4 * dimensions
            if elements > room:
                raise DataError(
                    f"{path}: truncated: dimensions {shape} ask for {elements:,} bytes: found at most {room:,}"
                )
            content = file.read(elements + 1)
    except zlib.error as error:
        raise DataError(f"{path}: the gzip stream is damaged ({error}): expected an intact one") from error
    except EOFError as error:
        raise DataError(f"{path}: truncated: the gzip stream ends early: expected an intact one") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read: {os.strerror(error.errno) if error.errno else error}") from error
    if len(content) < elements:
        raise DataError(
            f"{path}: truncated: found {len(content):,} bytes of elements: dimensions {shape} expect {elements:,}"
        )
    if len(content) > elements:
        raise DataError(f"{path}: overlong: more bytes follow the {elements:,} that dimensions {shape} expect")
    return np.frombuffer(content, np.uint8).reshape(shape)


class Unzipped:
    """What a gzip file holds: its members, one after the other.

    As gzip.open's file, but unzipped a packed megabyte at a time, during which other threads go on. gzip.open asks for
    the interpreter's lock after every 8 kB (Python 3.11), and waits each time if another thread computes.
    """

    def __init__(self, packed: BinaryIO) -> None:
        self.file, self.packed, self.member = packed, b"", zlib.decompressobj(GZIP_FORMAT)

    def read(self, most: int) -> bytes:
        """So many bytes, or what is left.

        Raises:
            EOFError: where a member ends early.
            zlib.error: where one is damaged.
        """
        parts = []
        while most:
            if self.member.eof:
                self.packed = self.member.unused_data.lstrip(b"\0")  # padding, as of tapes
                while not self.packed and (more := self.file.read(PIECE)):
                    self.packed = more.lstrip(b"\0")
                if not self.packed:
                    break
                self.member = zlib.decompressobj(GZIP_FORMAT)
            self.packed = self.packed or self.file.read(PIECE)
            ends = not self.packed
            parts.append(self.member.decompress(self.packed, most))
            self.packed = self.member.unconsumed_tail
            most -= len(parts[-1])
            if ends and not self.member.eof:
                raise EOFError
        return b"".join(parts)


def find(folder: Path, name: str) -> Path:
    """The file of that name, plain or gzipped, with a dash or a dot before `idx`."""
    names = [form + ending for form in (name, name.replace("-idx", ".idx")) for ending in ("", ".gz")]
    for candidate in names:
        if (folder / candidate).exists():
            return folder / candidate
    raise DataError(f"{folder}: found none of {', '.join(names)}: expected one of them")


def load_idx(folder: Path, classes: int | None) -> Dataset:
    """The data set in a folder of four IDX files named as MNIST's, with labels from 0 to `classes` - 1,
    or to the largest where that is None.

    Raises:
        DataError: as `read_idx`; for labels outside the classes; where counts of images and labels, or the sizes of
            training and test images, differ.
    """
    if not folder.is_dir():
        found = "not a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {found}: expected one with IDX files such as train-images-idx3-ubyte.gz")
    parts = []
    for part in ("train", "t10k"):
        images_path = find(folder, f"{part}-images-idx3-ubyte")
        labels_path = find(folder, f"{part}-labels-idx1-ubyte")
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if images.shape[0] != labels.shape[0]:
            raise DataError(
                f"{labels_path}: found {labels.shape[0]:,} labels: expected {images.shape[0]:,}, as many as there are "
                f"images in {images_path.name}"
            )
        check_labels(labels, str(labels_path), classes)
        parts += [images, labels]
    return Dataset.from_arrays(*parts, name=f"idx:{folder}", classes=classes)
