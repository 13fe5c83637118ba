"""Devices by name, with ``auto`` for the fastest one of the machine."""

from typing import TypeVar

import torch
from torch import nn

from avseg.errors import ConfigError

_Module = TypeVar("_Module", bound=nn.Module)


def find_device(name: torch.device | str) -> torch.device:
    """Return the device of a name; ``"auto"`` stands for CUDA, else Apple's MPS, else the CPU.

    Raises:
        ConfigError: When there is no device of this name.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise _refusal(name, error) from error
    if found.type == "meta":
        raise ConfigError("device 'meta' cannot be used (it holds shapes without values): choose auto or cpu")
    return found


def move(model: _Module, device: torch.device | str) -> _Module:
    """Move a model to a device and return it.

    Args:
        model: Is changed in place.
        device: See :func:`find_device`.

    Raises:
        ConfigError: When the device does not exist or cannot be used.
    """
    found = find_device(device)
    try:
        return model.to(found)
    except (RuntimeError, AssertionError) as error:  # raised by torch builds without support, or drivers
        raise _refusal(device, error) from error


def _refusal(device: object, error: Exception) -> ConfigError:
    reason = str(error).strip().splitlines()[0]
    return ConfigError(f"device {str(device)!r} cannot be used ({reason}): choose auto or cpu")
