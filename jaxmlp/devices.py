"""The devices that JAX sees. A run uses the first; `JAX_PLATFORMS=cpu` and its like choose the platform."""

import contextlib
import os
from typing import Any

import jax

from jaxmlp.errors import DeviceError


def on_cpu() -> bool:
    """Whether JAX's default device is the host's processor. Asking starts JAX's backends."""
    config: Any = jax.config
    device = config.jax_default_device
    platform = jax.default_backend() if device is None else getattr(device, "platform", device)
    return bool(platform == "cpu")


def visible() -> list[jax.Device]:
    """Every device, JAX's default ones first: a run uses the first.

    Raises:
        DeviceError: where JAX finds none of the platforms that JAX_PLATFORMS asks for.
    """
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # an AssertionError: jax without a CUDA plugin
        wish = os.environ.get("JAX_PLATFORMS", "")
        reason = " ".join(str(error).split()) or "the platform is not installed"
        raise DeviceError(
            f"JAX finds no device: {reason}; JAX_PLATFORMS is {wish!r}: expected cpu, cuda, tpu, or unset"
        ) from error
    if devices[0].platform != "cpu":  # an accelerator's host is there too, unless JAX_PLATFORMS leaves it out
        with contextlib.suppress(RuntimeError):
            devices = [*devices, *jax.devices("cpu")]
    return devices
