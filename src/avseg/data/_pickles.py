"""Read the log-mel pickles of AVSBench without executing code in them.

A pickle may call any function. This reader allows the few functions that rebuild a tensor or an array, and raises an
error at any other name. One of the few, torch's ``_load_from_bytes``, would itself unpickle bytes from the file without
restrictions; it is replaced by ``torch.load`` with ``weights_only=True``.
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
    """Read the log-mel patches of a ``.pkl`` file.

    Returns:
        (patches, 1, 96, 64) float32, without gradients.

    Raises:
        DataError: When it is missing or damaged, has other content, or would execute code.
    """
    try:
        with path.open("rb") as file:
            found = _Reader(file).load()
    except FileNotFoundError:
        raise DataError(f"no {path}: every clip needs an audio file; audio = 'wav' needs no .pkl") from None
    except Exception as error:
        # A damaged or malicious pickle can fail in any way; none of its functions has been called.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"cannot read log-mel safely from {path} ({reason}): set audio to 'wav'") from None
    found = torch.from_numpy(found) if isinstance(found, np.ndarray) and found.dtype.kind == "f" else found
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if not isinstance(found, Tensor) or shape[1:] != (1, FRAMES, BANDS) or not torch.isfinite(found).all():
        raise DataError(f"{path} must hold finite log-mel (n, 1, {FRAMES}, {BANDS}), got {shape}: set audio to 'wav'")
    return found.detach().float()


def _load_storage(data: bytes) -> Any:
    """Replace ``torch.storage._load_from_bytes`` by a safe loader."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about old pickles
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Torch's own message suggests weights_only=False.
        called = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it calls {called[1]}" if called else "its numbers are not in torch's storage format"
        raise pickle.UnpicklingError(reason) from None


def _lazy(module: str, name: str) -> Callable[[], Any]:
    """Return a function that imports a name: an import at load time would warn about numpy's old module."""
    return lambda: getattr(importlib.import_module(module), name)


_ALLOWED: dict[tuple[str, str], Callable[[], Any]] = {
    ("torch.storage", "_load_from_bytes"): lambda: _load_storage,
    ("torch._utils", "_rebuild_tensor_v2"): _lazy("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"): _lazy("torch._utils", "_rebuild_parameter"),
    ("collections", "OrderedDict"): lambda: OrderedDict,
    ("numpy", "ndarray"): lambda: np.ndarray,
    ("numpy", "dtype"): lambda: np.dtype,
    ("_codecs", "encode"): lambda: _encode,
    # Numpy 2 moved it, and warns when it is imported from the old module.
    ("numpy.core.multiarray", "_reconstruct"): lambda: _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): lambda: _empty_array,
    ("numpy._core.numeric", "_frombuffer"): lambda: _filled_array,
}


def _encode(text: str, encoding: str) -> bytes:
    """Decode bytes as stored by pickle protocols 0 to 2."""
    return text.encode("latin1" if encoding == "latin1" else "ascii")


def _empty_array(kind: type, shape: tuple[int, ...], code: bytes) -> Any:
    """Return an array that the pickle fills afterwards."""
    return np.ndarray.__new__(np.ndarray, shape, code.decode())


def _filled_array(data: bytes, kind: Any, shape: tuple[int, ...], order: Literal["C", "F"]) -> NDArray[Any]:
    """Return a writable array of the bytes."""
    return np.frombuffer(data, kind).reshape(shape, order=order).copy()


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it calls {module}.{name}")
        return _ALLOWED[module, name]()
