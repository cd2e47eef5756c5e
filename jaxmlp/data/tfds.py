"""Classification data sets of TensorFlow Datasets (TFDS), read without TensorFlow.

TFDS downloads a data set and prepares it, once, in its standard folder: $TFDS_DATA_DIR or ~/tensorflow_datasets. From
there it is read once and kept as arrays in a cache (jaxmlp.data.cache). A start that finds it there imports no package
of TFDS, and needs none.

A name without a version means the newest that is prepared or kept; where there is none, the one that the installed TFDS
prepares. So a newer version is used as soon as it is prepared. A folder that was prepared anew is read anew.
"""

import contextlib
import difflib
import importlib.util
import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmlp.data.cache import (
    VERSION,
    Note,
    default_config,
    expanded,
    file_of,
    keep,
    keep_default,
    kept,
    newest,
    ordered,
    read,
)
from jaxmlp.data.dataset import Dataset, Numbers
from jaxmlp.errors import DataError

PACKAGES = {"tensorflow_datasets": "tensorflow-datasets", "array_record": "array_record"}
RETRIES = 3
"""Of a download. TFDS's own 10 take minutes to say that there is no network."""

log = logging.getLogger("jaxmlp")


class Name(NamedTuple):
    """What `tfds:` is followed by: emnist, emnist/letters, mnist:3.0.1, emnist/letters:3.1.0."""

    dataset: str
    config: str | None
    version: str | None

    @property
    def full(self) -> str:
        """The data set with its config, as its folder is called."""
        return f"{self.dataset}/{self.config}" if self.config else self.dataset

    def __str__(self) -> str:
        return f"tfds:{self.full}:{self.version}" if self.version else f"tfds:{self.full}"

    @staticmethod
    def parse(text: str) -> "Name":
        """The parts of a name.

        Raises:
            DataError: where it is none.

        >>> Name.parse("emnist/letters:3.1.0")
        Name(dataset='emnist', config='letters', version='3.1.0')
        """
        found = re.fullmatch(rf"([a-z][a-z0-9_]*)(?:/(\w[\w.+-]*))?(?::({VERSION.pattern}))?", text)
        if not found:
            raise DataError(
                f"data.source is 'tfds:{text}': expected tfds:NAME, such as mnist, emnist/letters, mnist:3.0.1"
            )
        return Name(*found.groups())


def load_tfds(text: str) -> Dataset:
    """The data set of that name: its splits train and test, or train and validation where it has no test split.

    Labels and the number of classes are as its ClassLabel says. Images of uint8 stay so, those with a single channel
    without its axis; other numbers become float32.

    Raises:
        DataError: where the name is unknown, a package is missing, it can't be downloaded, or it is no classification
            of images or numbers of one shape.
    """
    name = located(Name.parse(text))
    folders, files = prepared(name.full), kept(name.full)
    version = name.version or newest([*folders, *files])
    folder = folders.get(version or "")
    if version in files:
        dataset = _from_cache(name._replace(version=version), folder)
        if dataset is not None:
            return dataset
    return _read_and_keep(name, prepare(name) if folder is None else folder)


def located(name: Name) -> Name:
    """The name with the config that is meant where it names none, as far as the standard folder or the cache know."""
    if name.config or prepared(name.dataset) or kept(name.dataset):
        return name
    return name._replace(config=standard_default(name.dataset) or default_config(name.dataset))


def standard_default(dataset: str) -> str | None:
    """The config that TFDS takes where none is named, as it noted it when it prepared one of the data set's."""
    try:
        config = json.loads((standard_folder() / dataset / ".config" / "metadata.json").read_text())[
            "default_config_name"
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return config if isinstance(config, str) else None


def standard_folder() -> Path:
    """Where TFDS prepares data sets; by its rule, so that its import isn't needed."""
    return expanded(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def prepared(full: str) -> dict[str, Path]:
    """The folder of each version of a data set that TFDS has prepared."""
    folders = [path.parent for path in (standard_folder() / full).glob("*/dataset_info.json")]
    return {folder.name: folder for folder in folders if VERSION.fullmatch(folder.name)}


def stamp(folder: Path) -> tuple[int, int]:
    """Changes when a folder is prepared anew."""
    status = (folder / "dataset_info.json").stat()
    return status.st_size, status.st_mtime_ns


def _from_cache(name: Name, folder: Path | None) -> Dataset | None:
    """The data set that is kept; None where it is damaged, or its folder has changed since."""
    assert name.version is not None
    path = file_of(name.full, name.version)
    try:
        note, arrays = read(path)
        if folder is not None and note.stamp != stamp(folder):
            return None
        return _dataset(name, note, arrays)
    except DataError as error:
        log.warning("jaxmlp: %s; it is made again", error)
        return None


def _dataset(name: Name, note: Note, arrays: list[Numbers]) -> Dataset:
    return replace(Dataset.from_arrays(*arrays, name=str(name), classes=note.classes), names=note.names)


def _read_and_keep(name: Name, folder: Path) -> Dataset:
    """The data set in a folder that TFDS has prepared, which is kept in the cache too."""
    config = folder.parent.name if folder.parent.parent.name == name.dataset else None
    if config and config == standard_default(name.dataset):
        keep_default(name.dataset, config)
    name = name._replace(config=config, version=folder.name)
    note, arrays = read_folder(name, folder)
    dataset = _dataset(name, note, arrays)
    keep(file_of(name.full, folder.name), note, arrays)
    return dataset


def read_folder(name: Name, folder: Path) -> tuple[Note, list[Numbers]]:
    """The note and the arrays of a data set in the folder that TFDS prepared.

    Raises:
        DataError: where it can't be read, or is no classification.
    """
    tfds = _package(name)
    try:
        with quiet():
            info = (builder := tfds.builder_from_directory(folder)).info
    except Exception as error:
        raise _unreadable(name, folder, error) from error
    keys = supervised(name, info)
    parts = [_split(name, info, "train"), _split(name, info, "test", "validation")]
    formats = {info.file_format, *info.alternative_file_formats}
    if not any(form and form.value == "array_record" for form in formats):
        found = ", ".join(sorted(form.value for form in formats if form)) or "in an old form"
        raise DataError(
            f"{name}: {folder} is prepared as {found}, which takes TensorFlow to read: expected array_record; move "
            "that folder away, so that it is prepared again"
        )
    log.warning("jaxmlp: %s: is read from %s and kept as arrays, once", name, folder)
    feature, arrays = info.features[keys[0]], []
    try:
        with quiet():
            for part in parts:
                arrays += _arrays(builder.as_data_source(part), keys, feature)
    except Exception as error:
        raise _unreadable(name, folder, error) from error
    label = info.features[keys[1]]
    names = tuple(map(str, label.names))
    note = Note(
        train=len(arrays[0]),
        test=len(arrays[2]),
        shape=arrays[0].shape[1:],
        classes=label.num_classes,
        names=() if names == tuple(map(str, range(len(names)))) else names,
        stamp=stamp(folder),
    )
    return note, arrays


def _arrays(source: Any, keys: tuple[str, str], feature: Any) -> list[Numbers]:
    """Inputs and labels of a split, in its order."""
    dtype = np.uint8 if feature.np_dtype == np.uint8 else np.float32
    inputs, labels = np.empty((len(source), *feature.shape), dtype), np.empty(len(source), np.int32)
    for i, example in enumerate(source):
        given = np.asarray(example[keys[0]])
        if given.shape != inputs.shape[1:]:
            raise ValueError(f"example {i} has shape {given.shape}: expected {inputs.shape[1:]}")
        inputs[i], labels[i] = given, example[keys[1]]
    grey = len(feature.shape) == 3 and feature.shape[2] == 1
    return [inputs[..., 0] if grey else inputs, labels]


def supervised(name: Name, info: Any) -> tuple[str, str]:
    """The features that are input and label.

    Raises:
        DataError: where they don't make a classification of images or numbers of one shape.
    """
    import tensorflow_datasets as tfds

    keys, wanted = info.supervised_keys, "expected images, or other numbers of one shape, with a ClassLabel"
    if not (isinstance(keys, tuple) and len(keys) == 2 and all(isinstance(key, str) for key in keys)):
        found = "doesn't say which features are input and label" if keys is None else f"has the supervised keys {keys}"
        raise DataError(f"{name}: {found}: {wanted}")
    inputs, label = info.features[keys[0]], info.features[keys[1]]
    if not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
        raise DataError(f"{name}: its targets, {keys[1]!r}, are of the kind {type(label).__name__}: {wanted}")
    if (
        not isinstance(inputs, (tfds.features.Image, tfds.features.Tensor))
        or np.dtype(inputs.np_dtype).kind not in "uifb"
    ):
        raise DataError(f"{name}: its inputs, {keys[0]!r}, are of the kind {type(inputs).__name__}: {wanted}")
    if not inputs.shape or None in inputs.shape:
        raise DataError(f"{name}: its inputs, {keys[0]!r}, have shape {inputs.shape}, so they differ in size: {wanted}")
    return keys[0], keys[1]


def _split(name: Name, info: Any, *names: str) -> str:
    """The first of these splits that there is."""
    for split in names:
        if split in info.splits and info.splits[split].num_examples:
            return split
    found = ", ".join(info.splits) or "none"
    raise DataError(f"{name}: has the splits {found}: expected {' or '.join(names)} with examples")


def prepare(name: Name) -> Path:
    """Has TFDS download and prepare the data set, and returns its folder.

    Raises:
        DataError: as `load_tfds`.
    """
    tfds = _package(name)
    builder = _builder(tfds, name)
    supervised(name, builder.info)  # before the download
    folder = Path(builder.data_path)
    if not folder.exists():
        log.warning("jaxmlp: %s: TFDS downloads it and prepares it in %s, once", name, folder)
        try:
            with quiet(progress=True), _impatient():
                builder.download_and_prepare(file_format="array_record")
        except Exception as error:
            raise _unprepared(name, folder, error) from error
    return folder


def _package(name: Name) -> Any:
    """The package tensorflow_datasets."""
    missing = [package for module, package in PACKAGES.items() if not _found(module)]
    if missing:
        raise DataError(
            f"{name}: needs the package{'s' * (len(missing) > 1)} {' and '.join(missing)}: pip install "
            f"{' '.join(missing)}"
        )
    try:
        with quiet():
            import tensorflow_datasets
    except Exception as error:
        raise DataError(
            f"{name}: tensorflow-datasets can't be imported ({_reason(error)}): pip install -U tensorflow-datasets"
        ) from error
    return tensorflow_datasets


def _found(module: str) -> bool:
    return module in sys.modules or importlib.util.find_spec(module) is not None


def _builder(tfds: Any, name: Name) -> Any:
    """TFDS's builder of the data set."""
    try:
        with quiet():
            cls = tfds.builder_cls(name.dataset)
    except Exception as error:
        if type(error).__name__ != "DatasetNotFoundError":
            raise _unprepared(name, standard_folder() / name.full, error) from error
        known, there = tfds.list_builders(with_community_datasets=False), sorted(prepared(name.full), key=ordered)
        found = f"has version {' and '.join(there)}" if there else f"neither{_near(name.dataset, known)}"
        raise DataError(
            f"{name}: TensorFlow Datasets {tfds.__version__} has no {name.dataset}, and {standard_folder()} {found}"
        ) from error
    if name.config and name.config not in cls.builder_configs:
        found = f"has no config {name.config}" if cls.builder_configs else "has no configs"
        raise DataError(f"{name}: {name.dataset} {found}{_near(name.config, list(cls.builder_configs))}")
    try:
        with quiet():
            folder = standard_folder()
            return cls(config=name.config, version=name.version, data_dir=folder, file_format="array_record")
    except Exception as error:
        raise DataError(f"{name}: {_reason(error)}") from error


def _near(given: str, known: list[str]) -> str:
    """What may have been meant: the end of a message."""
    near = difflib.get_close_matches(given, known, n=4, cutoff=0.6)
    if not near and len(known) <= 10:
        near = known
    return f"; did you mean {', '.join(near)}?" if near else ""


@contextlib.contextmanager
def quiet(progress: bool = False) -> Iterator[None]:
    """Without TFDS's prints, warnings and logs; with its progress bars, on a terminal, where these are asked for."""
    disabled = logging.root.manager.disable
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        if not (progress and sys.stderr.isatty()):
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        logging.disable(logging.CRITICAL)
        stack.callback(logging.disable, disabled)
        stack.callback(setattr, logging.root, "handlers", [*logging.root.handlers])  # it gets one by being used
        yield


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """With fewer attempts at a download than TFDS makes."""
    from tensorflow_datasets.core.download import downloader

    usual = getattr(downloader, "MAX_RETRIES", RETRIES)
    downloader.MAX_RETRIES = RETRIES
    try:
        yield
    finally:
        downloader.MAX_RETRIES = usual


def _unprepared(name: Name, folder: Path, error: Exception) -> DataError:
    """What to do where TFDS can't prepare a data set."""
    command = f"tfds build {name.full} --file_format=array_record"
    elsewhere = f"or prepare it elsewhere ({command}) and copy it to {folder}"
    missing = next((e.name for e in _chain(error) if isinstance(e, ImportError) and e.name), None)
    if missing is not None:
        package = missing.partition(".")[0]
        once = " (to prepare it, once; not to read it)" if package == "tensorflow" else ""
        return DataError(
            f"{name}: to prepare it, TFDS needs the package {package}: pip install {package}{once}, {elsewhere}"
        )
    host = next(filter(None, map(_host, _chain(error))), None)
    if host is not None:
        return DataError(
            f"{name}: the download from {host} failed ({_reason(error)}): try again with a network, {elsewhere}"
        )
    return DataError(f"{name}: TFDS can't prepare it in {folder} ({_reason(error)}): put that right, {elsewhere}")


def _unreadable(name: Name, folder: Path, error: Exception) -> DataError:
    return DataError(
        f"{name}: {folder} can't be read ({_reason(error)}): expected what TFDS prepared; move that folder away, so "
        "that it is prepared again"
    )


def _chain(error: BaseException) -> list[BaseException]:
    """An error, its cause, the cause's cause, ..."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _host(error: BaseException) -> str | None:
    """From where a download failed, where this is such an error; of requests, urllib or TFDS."""
    request = getattr(error, "request", None)
    address = getattr(request, "url", None) or str(error) if _is_download(error) else ""
    found = re.search(r"//([^/\s:'\"]+)", address)
    return (found[1] if found else "its source") if _is_download(error) else None


def _is_download(error: BaseException) -> bool:
    kinds = {"RequestException", "DownloadError", "URLError", "NonMatchingChecksumError"}
    return any(kind.__name__ in kinds for kind in type(error).__mro__)


def _reason(error: BaseException) -> str:
    """What is at the root of an error, in a line."""
    root = _chain(error)[-1]
    text = " ".join(str(root).split()) or type(root).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
