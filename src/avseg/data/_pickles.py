"""Read the log-mel pickles of AVSBench without executing code in them.

A pickle is a program: it calls functions and sets the state of objects. This reader scans the operations of a file
before it runs any: all must be on a fixed list, within the length of the file, and few. The functions that a file may
call are replaced by those of this module, which accept bytes, shapes and the names of floating-point types. They create
no object of numpy or torch on which a file could operate, and no array that is larger than its bytes in the file.
"""

import io
import math
import pickle
import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avseg.errors import DataError
from avseg.mel import BANDS, FRAMES

_LARGEST = 64 << 20
"""Bytes of the largest file that is read: about 45 minutes of log-mel."""
_OPERATIONS = frozenset(
    [
        "PROTO",
        "FRAME",
        "MARK",
        "STOP",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "INT",
        "LONG",
        "LONG1",
        "BININT",
        "BININT1",
        "BININT2",
        "SHORT_BINBYTES",
        "BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "EMPTY_LIST",
        "LIST",
        "APPEND",
        "APPENDS",
        "EMPTY_DICT",
        "DICT",
        "SETITEM",
        "SETITEMS",
        "GLOBAL",
        "STACK_GLOBAL",
        "REDUCE",
        "BUILD",
        "BINPERSID",
        "PUT",
        "BINPUT",
        "LONG_BINPUT",
        "MEMOIZE",
        "GET",
        "BINGET",
        "LONG_BINGET",
    ]
)
"""Operations of the pickles of tensors and arrays; no other can create an object or change one."""
_MOST_OPERATIONS, _MOST_CALLS = 1000, 8
"""Limits for one pickle, which needs about 70 and 6. They bound nesting, and memory to a multiple of the file."""
_MAGIC = 0x1950A86A20F9469CFC6C
"""First number in the bytes of a tensor, written by torch."""
_DTYPES = frozenset(order + code for order in "<>" for code in ("f2", "f4", "f8"))
_STORAGES = {"HalfStorage": "<f2", "FloatStorage": "<f4", "DoubleStorage": "<f8"}
_MOST_AXES = 8


def read_log_mel(path: Path) -> Tensor:
    """Read the log-mel patches of a ``.pkl`` file.

    Returns:
        (patches, 1, 96, 64) float32, without gradients.

    Raises:
        DataError: When it is missing or damaged, has other content, or would execute code.
    """
    if not path.is_file():
        raise DataError(f"no {path}: every clip needs an audio file; audio = 'wav' needs no .pkl")
    try:
        found = _load(io.BytesIO(_content(path)), _NAMES)
    except Exception as error:
        # A damaged or malicious pickle can fail in any way; none of its functions has been called.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"cannot read log-mel safely from {path} ({reason}): set audio to 'wav'") from None
    array = found.array if isinstance(found, _Array) else None
    shape = type(found).__name__ if array is None else array.shape
    if array is None or array.shape[1:] != (1, FRAMES, BANDS) or not np.isfinite(array).all():
        raise DataError(f"{path} must hold finite log-mel (n, 1, {FRAMES}, {BANDS}), got {shape}: set audio to 'wav'")
    return torch.from_numpy(array.astype(np.float32))


def _content(path: Path) -> bytes:
    if path.stat().st_size > _LARGEST:
        raise pickle.UnpicklingError(f"it has more than {_LARGEST >> 20} MiB")
    return path.read_bytes()


def _load(file: io.BytesIO, names: Mapping[tuple[str, str], Callable[..., object]]) -> object:
    """Run one pickle, after a scan of its operations; the file is left at its end."""
    start = file.tell()
    _scan(file)
    end = file.tell()
    file.seek(start)
    found: object = _Reader(file, names).load()
    file.seek(end)
    return found


def _scan(file: io.BytesIO) -> None:
    """Check the operations of one pickle; ``pickletools`` checks that their data is inside the file.

    Raises:
        UnpicklingError: When one is not allowed, or there are too many.
    """
    calls = 0
    for number, (operation, argument, _) in enumerate(pickletools.genops(file)):
        calls += operation.name == "REDUCE"
        if operation.name not in _OPERATIONS:
            raise pickle.UnpicklingError(f"it has the operation {operation.name}")
        # The unpickler allocates as many places as the largest number of a PUT.
        stored = argument if operation.name in ("PUT", "LONG_BINPUT") else 0
        if max(number, stored or 0) >= _MOST_OPERATIONS or calls > _MOST_CALLS:
            raise pickle.UnpicklingError(f"it has more than {_MOST_OPERATIONS} operations or {_MOST_CALLS} calls")


class _Reader(pickle.Unpickler):
    """Unpickler whose names are those of a mapping."""

    def __init__(self, file: io.BytesIO, names: Mapping[tuple[str, str], Callable[..., object]]) -> None:
        super().__init__(file)
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._names:
            raise pickle.UnpicklingError(f"it calls {module}.{name}")
        return _Name(self._names[module, name])

    def persistent_load(self, pid: Any) -> Any:
        return pid


class _Fixed:
    """Base of the objects that a pickle gets: they have no items, and their attributes cannot be set by BUILD."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it sets the state of an object that has none")


class _Name(_Fixed):
    """A name that a pickle may use; a call of it is a call of the function of this module that replaces it."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function

    def __call__(self, *arguments: object) -> object:
        return self.function(*arguments)


class _DType(_Fixed):
    """A floating-point type, which numpy stores as a code and, in the state, a byte order."""

    __slots__ = ("name",)

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        name = code if code in _DTYPES else f"<{code}"
        if not isinstance(code, str) or name not in _DTYPES:
            raise pickle.UnpicklingError(f"it has numbers of another type than {', '.join(sorted(_DTYPES))}")
        self.name = str(name)

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if state != (3, order, None, None, None, -1, -1, 0) or order not in ("<", ">"):
            raise pickle.UnpicklingError("its type of numbers has fields, or other properties than a byte order")
        self.name = f"{order}{self.name[1:]}"


class _Array(_Fixed):
    """Numbers of the file, without a copy; ``None`` before the state is set."""

    __slots__ = ("array",)

    def __init__(self, array: NDArray[Any] | None = None) -> None:
        self.array = array

    def __setstate__(self, state: object) -> None:
        _, shape, dtype, columns, data = state  # type: ignore[misc]
        self.array = _from_buffer(data, dtype, shape, "F" if columns else "C").array


def _empty_array(kind: object, shape: object, code: object) -> _Array:
    """Return an array whose numbers are in its state; the size before that is not used."""
    return _Array()


def _from_buffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    """Return the numbers in ``data`` as an array.

    Raises:
        UnpicklingError: When types or sizes do not agree.
    """
    if not (isinstance(data, bytes | bytearray) and isinstance(dtype, _DType) and _are_sizes(shape)):
        raise pickle.UnpicklingError("its array has no bytes, type or shape")
    numbers = np.frombuffer(data, dtype.name)
    if math.prod(shape) != numbers.size:  # type: ignore[call-overload]
        raise pickle.UnpicklingError(f"its array of shape {shape} holds {numbers.size} numbers")
    return _Array(numbers.reshape(shape, order="F" if order == "F" else "C"))  # type: ignore[call-overload]


def _load_storage(data: object) -> _Array:
    """Return the storage of a tensor, in torch's format before 1.6, which is that inside of pickles: four pickles, the
    names of storages, and for each storage the number of its numbers and their bytes.

    Raises:
        UnpicklingError: When it has another format, or is shorter than it declares.
    """
    file = io.BytesIO(data if isinstance(data, bytes | bytearray) else b"")
    names = {("torch", name): lambda dtype=dtype: dtype for name, dtype in _STORAGES.items()}
    if file.getbuffer()[:2] == b"PK" or _load(file, names) != _MAGIC:
        raise pickle.UnpicklingError("its numbers are not in torch's storage format")
    _version, _system, storage, _keys = (_load(file, names) for _ in range(4))
    if not (isinstance(storage, tuple) and len(storage) > 1 and isinstance(storage[1], _Name)):
        raise pickle.UnpicklingError("its numbers are not in torch's storage format")
    count = int.from_bytes(file.read(8), "little")
    numbers = np.frombuffer(file.read(), str(storage[1]()))
    if count != numbers.size:
        raise pickle.UnpicklingError(f"its storage declares {count} numbers and holds {numbers.size}")
    return _Array(numbers)


def _rebuild_tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> _Array:
    """Return a view of a storage; torch checks that it is inside.

    Raises:
        UnpicklingError: When it has more numbers than the storage, such as by a stride of 0.
    """
    numbers = storage.array if isinstance(storage, _Array) else None
    if numbers is None or not (_are_sizes((offset,)) and _are_sizes(size) and _are_sizes(stride)):
        raise pickle.UnpicklingError("its tensor has no storage or shape")
    if math.prod(size) > numbers.size:  # type: ignore[arg-type]
        raise pickle.UnpicklingError(f"its tensor of shape {size} has a storage of {numbers.size} numbers")
    whole = torch.from_numpy(numbers.copy())
    return _Array(torch.as_strided(whole, size, stride, offset).numpy())  # type: ignore[call-overload]


def _are_sizes(sizes: object) -> bool:
    """Return whether this is a tuple of few numbers that can be a size."""
    if not isinstance(sizes, tuple) or len(sizes) > _MOST_AXES:
        return False
    return all(isinstance(size, int) and 0 <= size <= _LARGEST for size in sizes)


def _encode(text: object, encoding: object) -> bytes:
    """Decode bytes as stored by pickle protocols 0 to 2."""
    return str(text).encode("latin1" if encoding == "latin1" else "ascii")


_NAMES: dict[tuple[str, str], Callable[..., object]] = {
    ("torch.storage", "_load_from_bytes"): _load_storage,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("collections", "OrderedDict"): dict,
    ("numpy", "ndarray"): _empty_array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
    # Numpy 2 moved it.
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}
"""Functions that pickles of tensors and arrays call, and the ones that are called instead."""
