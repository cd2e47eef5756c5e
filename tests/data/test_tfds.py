import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prepared import Given, builder, image_features, labelled, prepare, tfds

import jaxmlp
from jaxmlp import DataError, Dataset, load_data
from jaxmlp.data import tfds as module
from jaxmlp.training.fit import load_for

pytestmark = pytest.mark.own_precision  # data have types of their own, and training is in float32

KEYS = ("image", "label")


@pytest.fixture
def standard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty standard folder, beside an empty cache."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "standard"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "standard"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Given]], None]:
    """Makes TFDS know a builder by its name."""

    def make(kind: type[Given]) -> None:
        usual = tfds.builder_cls
        monkeypatch.setattr(tfds, "builder_cls", lambda name: kind if name == kind.name else usual(name))

    return make


def digits(version: str = "1.0.0", seed: int = 0, **changes: Any) -> type[Given]:
    """Six training and three test images of 12 x 12, of 3 classes."""
    images = np.random.default_rng(seed).integers(0, 256, (9, 12, 12), np.uint8)
    examples = labelled(images, np.arange(9) % 3)
    settings: dict[str, Any] = {"given": {"train": examples[:6], "test": examples[6:]}, "keys": KEYS}
    settings |= {"name": "digits", "features": image_features(12, 3), "version": version}
    return builder(**(settings | changes))


def cached(standard: Path, name: str = "digits/1.0.0") -> Path:
    return standard.parent / "cache" / "jaxmlp" / "tfds" / f"{name}.npz"


def refusal(source: str) -> str:
    """The message of the error, which must be a line."""
    with pytest.raises(DataError) as error:
        load_data(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def same(a: Dataset, b: Dataset) -> bool:
    pairs = [*zip(a.train, b.train, strict=True), *zip(a.test, b.test, strict=True)]
    return a.shape == b.shape and all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)


def test_mnist_through_tfds_is_mnist_bit_for_bit_and_imports_no_tensorflow(standard: Path) -> None:
    mnist = load_data("mnist")
    given = {
        split: labelled(part.inputs[:count].reshape(-1, 28, 28), part.targets[:count])
        for split, part, count in (("train", mnist.train, 2000), ("test", mnist.test, 500))
    }
    prepare(builder("bundled", given, image_features(), KEYS), standard)
    code = """
import sys, numpy as np, jaxmlp
a, b = jaxmlp.load_data("tfds:bundled"), jaxmlp.load_data("mnist")
for x, y in ((a.train, b.train), (a.test, b.test)):
    for p, q in zip(x, y):
        assert p.dtype == q.dtype and np.array_equal(p, q[: len(p)])
assert (a.train.size, a.test.size, a.shape, a.classes) == (2000, 500, b.shape, b.classes)
print(*sorted({"tensorflow", "tensorflow_datasets", "array_record"} & set(sys.modules)))
"""
    for imported in ("array_record tensorflow_datasets\n", "\n"):  # at the first start, and at the second
        end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
        assert (end.returncode, end.stdout) == (0, imported), end.stderr


def test_frequencies_are_those_of_the_same_images(standard: Path) -> None:
    prepare(digits(), standard)
    plain, found = load_data("tfds:digits"), load_data("dct:tfds:digits")
    images = plain.train.inputs.reshape(-1, 12, 12)
    np.testing.assert_array_equal(found.train.inputs, jaxmlp.data.frequencies.lowest_frequencies(images))


def test_what_is_not_there_is_prepared_once_and_nothing_is_printed_but_that(
    standard: Path, known: Callable[[type[Given]], None], capfd: pytest.CaptureFixture[str]
) -> None:
    known(digits())
    first = load_data("tfds:digits")
    assert json.loads((standard / "digits/1.0.0/dataset_info.json").read_text())["fileFormat"] == "array_record"
    assert (first.train.size, first.test.size, first.name) == (6, 3, "tfds:digits:1.0.0")
    assert cached(standard).is_file()
    assert same(first, load_data("tfds:digits"))
    assert not [path for path in standard.parent.rglob("*") if path.suffix == ".part"]
    assert capfd.readouterr().out == ""


def test_the_newest_prepared_version_is_meant_unless_one_is_named(standard: Path) -> None:
    prepare(digits("9.0.0"), standard)
    old = load_data("tfds:digits")
    prepare(digits("10.0.0", seed=1), standard)
    new = load_data("tfds:digits")
    assert (old.name, new.name) == ("tfds:digits:9.0.0", "tfds:digits:10.0.0")
    assert not same(old, new)
    assert same(old, load_data("tfds:digits:9.0.0"))
    assert refusal("tfds:digits:8.0.0").endswith(f"has no digits, and {standard} has version 9.0.0 and 10.0.0")


def test_a_folder_that_was_prepared_anew_is_read_anew(standard: Path) -> None:
    folder = prepare(digits(), standard)
    old = load_data("tfds:digits")
    shutil.rmtree(folder)
    assert same(old, load_data("tfds:digits"))  # what is kept needs no folder
    prepare(digits(seed=1), standard)
    assert not same(old, load_data("tfds:digits"))


def test_a_name_without_a_config_means_tfdss_default(standard: Path) -> None:
    kind = digits(configs=["letters", "figures"])
    for config in ("figures", "letters"):
        prepare(kind, standard, config)
    assert load_data("tfds:digits").name == "tfds:digits/letters:1.0.0"
    assert load_data("tfds:digits/figures").name == "tfds:digits/figures:1.0.0"
    shutil.rmtree(standard)
    assert load_data("tfds:digits").name == "tfds:digits/letters:1.0.0"


def test_validation_takes_the_place_of_a_test_split_that_is_missing(standard: Path) -> None:
    given = digits().given
    prepare(digits(given={"train": given["train"], "validation": given["test"]}), standard)
    assert load_data("tfds:digits").test.size == 3


def test_numbers_become_float32_and_names_of_classes_are_kept(standard: Path) -> None:
    features = {
        "x": tfds.features.Tensor(shape=(2, 3), dtype=np.float64),
        "y": tfds.features.ClassLabel(names=["cat", "dog"]),
    }
    examples = [{"x": np.full((2, 3), i / 3), "y": i % 2} for i in range(4)]
    prepare(builder("pets", {"train": examples, "test": examples[:1]}, features, ("x", "y")), standard)
    for dataset in (load_data("tfds:pets"), load_data("tfds:pets")):
        assert (dataset.shape, dataset.names, dataset.classes) == ((2, 3), ("cat", "dog"), 2)
        np.testing.assert_array_equal(dataset.train.inputs[1], np.full(6, np.float32(1 / 3)))


def test_the_classes_are_as_many_as_the_class_label_says_whatever_labels_occur(standard: Path) -> None:
    prepare(digits(features=image_features(12, 37)), standard)  # as emnist/letters has 26 of 37
    experiment = jaxmlp.Experiment(jaxmlp.Network((144, 10)), jaxmlp.Data("tfds:digits", validation=1))
    with pytest.raises(jaxmlp.ExperimentError, match="labels of 37 classes: expected 37 as the last size"):
        load_for(experiment)
    run = jaxmlp.fit(
        jaxmlp.Experiment(jaxmlp.Network((144, 37)), experiment.data, train=jaxmlp.Train(epochs=1, batch_size=2))
    )
    assert run.result is not None


@pytest.mark.parametrize("damage", [b"", b"PK", None])
def test_a_damaged_cache_is_made_again_or_named(
    damage: bytes | None, standard: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(digits(), standard)
    whole, path = load_data("tfds:digits"), cached(standard)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    for _ in range(2):
        path.write_bytes(content if damage is None else damage)
        if standard.exists():
            assert same(whole, load_data("tfds:digits"))
            assert f"{path}: can't be read as an NPZ file" in caplog.text
            assert same(whole, load_data("tfds:digits"))
            shutil.rmtree(standard)
            caplog.clear()
        else:
            assert "has no digits" in refusal("tfds:digits")
            assert f"{path}: can't be read as an NPZ file" in caplog.text


def test_a_cache_of_another_form_is_made_again(standard: Path) -> None:
    prepare(digits(), standard)
    whole, path = load_data("tfds:digits"), cached(standard)
    for change in (
        {"note": np.frombuffer(b"{}", np.uint8)},
        {"note": np.frombuffer(b"[", np.uint8)},
        {"x_train": np.zeros(3)},
    ):
        with np.load(path) as file:
            arrays = {**file} | change
        np.savez(path, **arrays)
        assert same(whole, load_data("tfds:digits"))


def test_without_room_for_a_cache_it_still_loads(standard: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepare(digits(), standard)
    (standard.parent / "cache").write_text("in the way")
    assert load_data("tfds:digits").train.size == 6
    assert "can't be kept (" in caplog.text


@pytest.mark.parametrize(
    "name", ["/", "a/", "a:1", "a:1.0", "../a:1.0.0", "a/../b", "a b", "a/b/c:1.0.0", "huggingface:a", "MNIST"]
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    assert refusal(f"tfds:{name}") == (
        f"data.source is 'tfds:{name}': expected tfds:NAME, such as mnist, emnist/letters, mnist:3.0.1"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fashion_mnis", "has no fashion_mnis, and .* neither; did you mean fashion_mnist"),
        ("qqqqqqqq", "has no qqqqqqqq, and [^;]* neither$"),
        ("emnist/leters", r"emnist has no config leters; did you mean letters.*\?$"),
        ("mnist/x", "mnist has no configs$"),
        ("mnist:9.9.9", "cannot be loaded at version 9.9.9, only: 3.0.1"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(name: str, message: str, standard: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_data(f"tfds:{name}")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["array_record"], "needs the package array_record: pip install array_record"),
        (
            ["tensorflow_datasets", "array_record"],
            "needs the packages tensorflow-datasets and array_record: pip install tensorflow-datasets array_record",
        ),
    ],
)
def test_a_missing_package_is_named(
    missing: list[str], message: str, standard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_found", lambda name: name not in missing)
    assert refusal("tfds:mnist") == f"tfds:mnist: {message}"


def elsewhere(standard: Path) -> str:
    command = "tfds build digits --file_format=array_record"
    return f"or prepare it elsewhere ({command}) and copy it to {standard}/digits/1.0.0"


def failing(error: Exception) -> Any:
    def generate(self: Given, examples: Any) -> Iterator[Any]:
        raise error
        yield

    return generate


def test_where_preparing_needs_tensorflow_it_says_so(standard: Path, known: Callable[[type[Given]], None]) -> None:
    error = ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
    known(digits(_generate_examples=failing(error)))
    assert refusal("tfds:digits") == (
        "tfds:digits: to prepare it, TFDS needs the package tensorflow: pip install tensorflow (to prepare it, once; "
        f"not to read it), {elsewhere(standard)}"
    )


def test_another_failure_of_preparing_is_told_by_its_root(
    standard: Path, known: Callable[[type[Given]], None], capfd: pytest.CaptureFixture[str]
) -> None:
    known(digits(_generate_examples=failing(AssertionError("Manual directory\nis empty."))))
    message = refusal("tfds:digits")
    assert f"TFDS can't prepare it in {standard}/digits/1.0.0 (" in message
    assert "Manual directory is empty." in message
    assert capfd.readouterr().out == ""


def test_a_download_that_fails_names_its_host_and_what_to_copy_where(
    standard: Path,
    known: Callable[[type[Given]], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def download(self: Given, manager: Any) -> dict[str, Any]:
        manager.download("http://127.0.0.1:9/digits.zip")  # a port where nobody listens
        return {}

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    known(digits(_split_generators=download))
    message = refusal("tfds:digits")
    assert message.startswith("tfds:digits: the download from 127.0.0.1 failed (")
    assert message.endswith(f"try again with a network, {elsewhere(standard)}")
    assert capfd.readouterr().out == ""


TEXT = {"image": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=3)}
RAGGED = image_features(12, 3) | {"image": tfds.features.Image(shape=(None, None, 1))}
SCALAR = image_features(12, 3) | {"label": tfds.features.Scalar(np.float32)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": None}, "doesn't say which features are input and label"),
        ({"features": TEXT}, "its inputs, 'image', are of the kind Text"),
        ({"features": RAGGED}, r"its inputs, 'image', have shape \(None, None, 1\), so they differ in size"),
        ({"features": SCALAR}, "its targets, 'label', are of the kind Scalar"),
    ],
)
def test_what_is_no_classification_of_one_shape_is_refused_before_the_download(
    changes: dict[str, Any], message: str, standard: Path, known: Callable[[type[Given]], None]
) -> None:
    known(digits(**changes, _split_generators=None))  # which would fail
    expected = f"tfds:digits: {message}: expected images, or other numbers of one shape, with a ClassLabel"
    with pytest.raises(DataError, match=expected):
        load_data("tfds:digits")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train"], "has the splits train: expected test or validation with examples"),
        (["test"], "has the splits test: expected train with examples"),
    ],
)
def test_a_split_that_is_missing_is_named(splits: list[str], message: str, standard: Path) -> None:
    prepare(digits(given={split: digits().given[split] for split in splits}), standard)
    assert refusal("tfds:digits") == f"tfds:digits:1.0.0: {message}"


def test_a_folder_in_tfdss_older_format_is_named(standard: Path) -> None:
    path = prepare(digits(), standard) / "dataset_info.json"
    path.write_text(path.read_text().replace('"array_record"', '"tfrecord"'))
    assert f"{path.parent} is prepared as tfrecord, which takes TensorFlow to read" in refusal("tfds:digits")


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json", "digits-train.array_record-00000-of-00001"])
@pytest.mark.parametrize("content", [None, b"", b"damaged" * 9000])
def test_a_damaged_folder_is_named(file: str, content: bytes | None, standard: Path) -> None:
    path = prepare(digits(), standard) / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    assert f"{path.parent} can't be read (" in refusal("tfds:digits")
    assert not cached(standard).exists()


def test_labels_that_the_class_label_has_not_are_refused(standard: Path) -> None:
    folder = prepare(digits(), standard)
    (folder / "features.json").write_text((folder / "features.json").read_text().replace('"3"', '"2"'))
    assert "label 2 at index 2" in refusal("tfds:digits")
    assert not cached(standard).exists()
