"""The log-mel pickles of AVSBench, opened without running what they say.

A pickle is a program that may call any function. This reader knows the few that rebuild a tensor or an array, and
refuses the file at the first other name. One of the few, torch's ``_load_from_bytes``, would itself unpickle bytes
from the file without care: here torch's own safe loader takes its place.
"""

import importlib
import io
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avseg.errors import DataError
from avseg.mel import BANDS, FRAMES


def read_log_mel(path: Path) -> Tensor:
    """The log-mel patches of a ``.pkl`` file.

    Returns:
        (patches, 1, 96, 64) float32, without gradients.

    Raises:
        DataError: When it is missing or damaged, holds something else, or would have run code.
    """
    try:
        with path.open("rb") as file:
            found = _Reader(file).load()
    except FileNotFoundError:
        raise DataError(f"no {path}: every clip needs a sound; audio = 'wav' needs no .pkl") from None
    except Exception as error:
        # A broken or hostile pickle can fail in any way; the file is named, nothing in it was called.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{path} holds no log-mel that can be read safely ({reason}): set audio to 'wav'") from None
    found = torch.from_numpy(found) if isinstance(found, np.ndarray) and found.dtype.kind == "f" else found
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if not isinstance(found, Tensor) or shape[1:] != (1, FRAMES, BANDS) or not torch.isfinite(found).all():
        raise DataError(f"{path} must hold finite log-mel (n, 1, {FRAMES}, {BANDS}), got {shape}: set audio to 'wav'")
    return found.detach().float()


def _load_storage(data: bytes) -> Any:
    """In the place of ``torch.storage._load_from_bytes``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's age
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Torch's advice is to switch the safety off.
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {asked[1]}" if asked else "its numbers are not stored as torch stores them"
        raise pickle.UnpicklingError(reason) from None


def _known(module: str, name: str) -> Callable[[], Any]:
    """Looks a name up when a file first asks for it: numpy warns about its old module."""
    return lambda: getattr(importlib.import_module(module), name)


_ALLOWED: dict[tuple[str, str], Callable[[], Any]] = {
    ("torch.storage", "_load_from_bytes"): lambda: _load_storage,
    ("torch._utils", "_rebuild_tensor_v2"): _known("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"): _known("torch._utils", "_rebuild_parameter"),
    ("collections", "OrderedDict"): lambda: OrderedDict,
    ("numpy", "ndarray"): lambda: np.ndarray,
    ("numpy", "dtype"): lambda: np.dtype,
    ("_codecs", "encode"): lambda: _encode,
    # Numpy 2 moved it, and warns whoever uses the old place.
    ("numpy.core.multiarray", "_reconstruct"): lambda: _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): lambda: _empty_array,
    ("numpy._core.numeric", "_frombuffer"): lambda: _filled_array,
}


def _encode(text: str, encoding: str) -> bytes:
    """How old pickles spell bytes."""
    return text.encode("latin1" if encoding == "latin1" else "ascii")


def _empty_array(kind: type, shape: tuple[int, ...], code: bytes) -> Any:
    """An array whose content the pickle sets afterwards."""
    return np.ndarray.__new__(np.ndarray, shape, code.decode())


def _filled_array(data: bytes, kind: Any, shape: tuple[int, ...], order: Literal["C", "F"]) -> NDArray[Any]:
    """A writable array of those bytes."""
    return np.frombuffer(data, kind).reshape(shape, order=order).copy()


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]()
