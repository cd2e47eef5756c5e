"""Strict tests: shapes and types of every function are checked, and none is promoted implicitly.

Floating types follow JAX_ENABLE_X64. Most of the time goes into compiling, of which XLA is to make less, see QUICK;
what is promised of the programs that users get asks for their own way, as `OWN_WAY` in tests/training/test_epoch.py.
`XLA_FLAGS= pytest` has it for all tests.
"""

import gzip
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jaxtyping
import numpy as np
import pytest
from hypothesis import settings

QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",  # with the line before, tests take 0.5 of the time
    "--xla_cpu_parallel_codegen_split_count=1",  # 0.8 of that, as every core has a test that compiles
)
os.environ.setdefault("XLA_FLAGS", " ".join(QUICK))
jaxtyping.install_import_hook("jaxmlp", "beartype.beartype")  # before the package is imported

from jaxmlp import Dataset  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

settings.register_profile("jaxmlp", deadline=None, derandomize=True)
settings.load_profile("jaxmlp")

ROOT = Path(__file__).parents[1]


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file's content."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that takes longest comes first, lest all others wait for it at the end."""
    items.sort(key=lambda item: "killed_50_times" not in item.name)


@pytest.fixture(autouse=True)
def log_lines_reach_the_test() -> None:
    """Whatever command, or library, ran in this process before."""
    log = logging.getLogger("jaxmlp")
    log.propagate, log.disabled = True, False
    log.setLevel(logging.WARNING)
    logging.disable(logging.NOTSET)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the tests' type checks, which would refuse bad arguments before the package can."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def optax_promotes() -> Iterator[None]:
    """optax's adam adds whole numbers to real ones, which the tests' strict promotion would refuse."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def digits() -> Dataset:
    """A small learnable data set: 203 training and 50 test images of 5 x 4, of 3 classes."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (3, 5, 4))

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.concatenate([np.arange(3), rng.integers(0, 3, count - 3)])
        noisy = patterns[labels] + rng.normal(0, 20, (count, 5, 4))
        return noisy.clip(0, 255).astype(np.uint8), labels

    return Dataset.from_arrays(*draw(203), *draw(50), name="digits")


@pytest.fixture
def idx_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of valid IDX files, then replaces the content of the files named in the arguments."""

    def make(zipped: bool = False, **replaced: bytes) -> Path:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(0)
        for part, count in (("train", 7), ("t10k", 4)):
            arrays = {"images-idx3": rng.integers(0, 256, (count, 3, 2)), "labels-idx1": np.arange(count) % 4}
            for kind, array in arrays.items():
                content = idx_bytes(array)
                (folder / f"{part}-{kind}-ubyte{'.gz' * zipped}").write_bytes(
                    gzip.compress(content) if zipped else content
                )
        for name, content in replaced.items():
            (folder / name.replace("_", "-").replace("-dot-", ".")).write_bytes(content)
        return folder

    return make
