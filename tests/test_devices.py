import os
import subprocess
import sys

import jax
import pytest

from jaxmlp.devices import on_cpu, visible

pytestmark = pytest.mark.own_precision  # it computes nothing


def test_the_first_device_is_the_one_that_jax_uses() -> None:
    assert visible()[0] == jax.devices()[0]


def test_the_default_device_says_whether_the_host_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_cpu()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not on_cpu()
    with jax.default_device(jax.devices("cpu")[0]):
        assert on_cpu()


def test_a_platform_that_is_not_there_is_one_clear_line() -> None:
    command = [sys.executable, "-c", "from jaxmlp.cli import main; raise SystemExit(main(['devices']))"]
    end = subprocess.run(
        command, env=os.environ | {"JAX_PLATFORMS": "tpu"}, capture_output=True, text=True, check=False
    )
    assert end.returncode == 2
    assert end.stderr.startswith("jaxmlp: JAX finds no device: ")
    assert "JAX_PLATFORMS is 'tpu': expected cpu, cuda, tpu, or unset" in end.stderr
    assert "Traceback" not in end.stderr
