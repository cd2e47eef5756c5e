"""Data sets that TFDS itself prepares, of examples that a test gives it."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmlp.data.tfds import quiet

with quiet():
    import tensorflow_datasets as tfds

Examples = Sequence[Mapping[str, Any]]


class Given(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Of the examples, features and keys that its class says."""

    VERSION = tfds.core.Version("1.0.0")
    given: Mapping[str, Examples] = {}
    features: Mapping[str, Any] = {}
    keys: tuple[str, str] | None = None

    def _info(self) -> Any:
        features = tfds.features.FeaturesDict({**self.features})
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=self.keys, disable_shuffling=True)

    def _split_generators(self, manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(examples) for split, examples in self.given.items()}

    def _generate_examples(self, examples: Examples) -> Iterator[tuple[int, Mapping[str, Any]]]:
        yield from enumerate(examples)


def builder(
    name: str,
    given: Mapping[str, Examples],
    features: Mapping[str, Any],
    keys: tuple[str, str] | None,
    *,
    version: str = "1.0.0",
    configs: Sequence[str] = (),
    **more: Any,
) -> type[Given]:
    """A builder of that name, which TFDS doesn't know by it."""
    found = [tfds.core.BuilderConfig(name=config, version=version) for config in configs]
    members = {"name": name, "given": given, "features": features, "keys": keys, "BUILDER_CONFIGS": found}
    members |= {"VERSION": tfds.core.Version(version), "__module__": __name__}
    return type(name, (Given,), members | more, skip_registration=True)


def prepare(kind: type[Given], folder: Path, config: str | None = None) -> Path:
    """Has TFDS prepare it in that standard folder."""
    with quiet():
        made = kind(data_dir=folder, file_format="array_record", config=config)
        made.download_and_prepare()
    return Path(made.data_path)


def png(image: np.ndarray) -> bytes:
    """A grey image as a PNG file, which takes no TensorFlow to encode."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def labelled(images: np.ndarray, labels: np.ndarray) -> Examples:
    """Examples with the features image and label."""
    return [{"image": png(image), "label": int(label)} for image, label in zip(images, labels, strict=True)]


def image_features(side: int = 28, classes: int = 10) -> dict[str, Any]:
    return {
        "image": tfds.features.Image(shape=(side, side, 1)),
        "label": tfds.features.ClassLabel(num_classes=classes),
    }
