import io
import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from avseg.data._pickles import read_log_mel
from avseg.errors import DataError

MEL = torch.randn(5, 1, 96, 64, generator=torch.Generator().manual_seed(0))


def stored(folder: Path, thing: object, protocol: int = 4) -> Path:
    path = folder / "clip.pkl"
    path.write_bytes(pickle.dumps(thing, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "form",
    [
        lambda: MEL.clone().requires_grad_(),  # as stored by AVSBench's front end
        lambda: torch.nn.Parameter(MEL),
        lambda: MEL.double(),
        lambda: torch.cat([MEL, MEL])[5:],
        lambda: MEL.numpy(),
        lambda: MEL.numpy().astype(np.float64),
    ],
)
def test_log_mel_read_from_any_protocol(tmp_path: Path, protocol: int, form: Callable[[], object]) -> None:
    mel = read_log_mel(stored(tmp_path, form(), protocol))
    assert torch.allclose(mel, MEL)
    assert (mel.dtype, mel.requires_grad) == (torch.float32, False)


class Call:
    """A pickle that calls a function when it is opened."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def zipped(thing: object) -> bytes:
    """Return the bytes of torch.save."""
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


def attacks(mark: Path) -> dict[str, tuple[Call, str]]:
    run = Call(os.system, f"touch {mark}")
    return {
        "plainly": (run, "it calls posix.system"),
        "by eval": (Call(eval, f"open({str(mark)!r}, 'w')"), "it calls builtins.eval"),
        "through a storage": (Call(torch.storage._load_from_bytes, pickle.dumps(run, 2)), "it calls posix.system"),
        "through a newer storage": (
            Call(torch.storage._load_from_bytes, pickle.dumps(run, 4)),
            "it calls posix.system",
        ),
        "through a zip": (Call(torch.storage._load_from_bytes, zipped(run)), "not in torch's storage format"),
        "by its state": (Call(torch.load, str(mark)), "it calls torch.serialization.load"),
        "in a list": ([MEL, run], "it calls posix.system"),
    }


@pytest.mark.parametrize("way", attacks(Path()))
def test_pickle_that_calls_functions_raises(tmp_path: Path, way: str) -> None:
    attack, reason = attacks(tmp_path / "owned")[way]
    with pytest.raises(DataError) as caught:
        read_log_mel(stored(tmp_path, attack))
    assert f"cannot read log-mel safely from {tmp_path / 'clip.pkl'}" in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


def test_attack_works_with_plain_pickle(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(attacks(tmp_path / "owned")["plainly"][0]))
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("thing", "got"),
    [({"a": 1}, "got dict"), (MEL[:, :, :50], r"got \(5, 1, 50, 64\)"), (MEL / 0, r"finite"), ("x", "got str")],
)
def test_other_content_raises(tmp_path: Path, thing: object, got: str) -> None:
    with pytest.raises(DataError, match=got):
        read_log_mel(stored(tmp_path, thing))


def name(module: str, function: str) -> bytes:
    return f"c{module}\n{function}\n".encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def dtype(code: str = "f4", state: bytes = b"") -> bytes:
    return name("numpy", "dtype") + text(code) + b"\x89\x88\x87R" + state


def state(names: bytes = b"NNN", flags: int = 0) -> bytes:
    return b"(" + number(3) + text("<") + names + number(-1) + number(-1) + number(flags) + b"tb"


def array(shape: bytes, data: bytes = bytes(16), kind: bytes = b"") -> bytes:
    """Return the operations that leave an array of numpy on the stack."""
    start = name("numpy._core.multiarray", "_reconstruct") + name("numpy", "ndarray") + numbers(0) + b"C\x01b\x87R"
    return start + b"(" + number(1) + shape + (kind or dtype()) + b"\x89C" + bytes([len(data)]) + data + b"tb"


def storage(count: int, data: bytes, kind: str = "FloatStorage") -> bytes:
    """Return the operations that leave a storage of torch on the stack."""
    magic = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
    head = number(1001) + b".}." + b"(" + text("storage") + name("torch", kind) + text("0") + text("cpu")
    content = magic + head + number(count) + b"NtQ.]." + struct.pack("<q", count) + data
    return name("torch.storage", "_load_from_bytes") + b"B" + struct.pack("<i", len(content)) + content + b"\x85R"


def tensor(source: bytes, size: bytes, stride: bytes, offset: int = 0) -> bytes:
    """Return the operations that leave a tensor on the stack."""
    start = name("torch._utils", "_rebuild_tensor_v2") + b"(" + source + number(offset) + size + stride
    return start + b"\x89" + name("collections", "OrderedDict") + b")RtR"


def program(operations: bytes) -> bytes:
    """Return a pickle with these operations."""
    return b"\x80\x04" + operations + b"."


ONE = (1, 1, 96, 64)
STRIDE = (6144, 6144, 64, 1)
GOOD = {
    "array": array(numbers(*ONE), bytes(24)).replace(b"C\x18" + bytes(24), b"B\x00\x60\x00\x00" + bytes(24576)),
    "tensor": tensor(storage(6144, bytes(24576)), numbers(*ONE), numbers(*STRIDE)),
}
FORGED = {
    "object array": array(numbers(2), kind=dtype("O8", state())),
    "object field by the state": array(numbers(2), kind=dtype("V8", state(b"N" + text("a") + b"\x85}"))),
    "flags of an object": array(numbers(2), kind=dtype("f8", state(flags=63))),
    "subarray": array(numbers(2), kind=dtype("f8", state(dtype("f8") + numbers(9) + b"\x86NN"))),
    "fields as the code": array(numbers(2), kind=name("numpy", "dtype") + b"]\x89\x88\x87R"),
    "item of an array": array(numbers(4)) + number(0) + number(7) + b"s",
    "items of an array": array(numbers(4)) + b"(" + number(0) + number(7) + b"u",
    "item of a tensor": tensor(storage(4, bytes(16)), numbers(4), numbers(1)) + number(0) + number(7) + b"s",
    "state of a function": name("_codecs", "encode") + b"N}" + text("__defaults__") + b"Ns\x86b",
    "state of a class": name("numpy", "ndarray") + b"N}" + text("__setstate__") + b"Ns\x86b",
    "negative shape": array(numbers(-1)),
    "shape larger than the data": array(numbers(1 << 30, 1 << 30)),
    "allocation before the state": array(numbers(4)).replace(numbers(0), numbers(1 << 28), 1),
    "place in the memo": number(0) + b"r" + struct.pack("<I", 200_000_000),
    "length of bytes": b"\x8e" + struct.pack("<Q", 10 << 30),
    "length of an array of bytes": b"\x96" + struct.pack("<Q", 10 << 30),
    "length of a frame": b"\x95" + struct.pack("<Q", 10 << 30) + number(0),
    "storage larger than its bytes": tensor(storage(1 << 30, bytes(16)), numbers(*ONE), numbers(*STRIDE)),
    "stride of 0": tensor(storage(4, bytes(16)), numbers(1 << 18, 1, 96, 64), numbers(0, 0, 0, 0)),
    "offset outside": tensor(storage(4, bytes(16)), numbers(4), numbers(1), offset=4),
    "negative offset": tensor(storage(4, bytes(16)), numbers(4), numbers(1), offset=-4),
    "storage of objects": tensor(storage(4, bytes(16), "ByteStorage"), numbers(4), numbers(1)),
    "deep nesting": b")" + b"\x85" * 100_000,
    "copies": (name("_codecs", "encode") + text("a" * 200) + text("latin1") + b"\x86R") * 20 + b"t",
    "another operation": number(1) + b"\x91",
}


def test_pickles_made_of_operations_are_read(tmp_path: Path) -> None:
    for operations in (GOOD["array"], GOOD["tensor"]):
        (tmp_path / "a.pkl").write_bytes(program(operations))
        assert read_log_mel(tmp_path / "a.pkl").equal(torch.zeros(ONE))


@pytest.mark.parametrize("way", FORGED)
def test_forged_pickle_raises_and_allocates_little(tmp_path: Path, way: str) -> None:
    path = tmp_path / "forged.pkl"
    path.write_bytes(program(FORGED[way]))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"forged\.pkl") as caught:
            read_log_mel(path)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_numbers_are_read_in_both_byte_orders(tmp_path: Path) -> None:
    for order in "<>":
        assert read_log_mel(stored(tmp_path, MEL.numpy().astype(f"{order}f8"))).equal(MEL)


def test_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.pkl").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="more than 64 MiB"):
        read_log_mel(tmp_path / "a.pkl")


def test_missing_or_damaged_file_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no .*none.pkl: .*'wav' needs no .pkl"):
        read_log_mel(tmp_path / "none.pkl")
    path = stored(tmp_path, MEL)
    for data in (b"", path.read_bytes()[:5000], b"EOF", bytes(range(256))):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"cannot read log-mel safely from .*clip.pkl \(.+\): set audio"):
            read_log_mel(path)
