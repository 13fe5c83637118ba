"""One log-mel patch per frame of a clip, and a cache of patches on disk."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from avseg.errors import DataError
from avseg.files import replacing
from avseg.mel import PATCH_SECONDS, SAMPLE_RATE, log_mel

Short = Literal["last", "zero"]


def consecutive(waveform: Tensor, frames: int, short: Short, path: Path) -> Tensor:
    """Return consecutive log-mel patches as in AVSBench's code: frame k, from 0, has 0.96 k … 0.96 (k + 1) s.

    Args:
        waveform: (n,) at 16 kHz.
        frames: T.
        short: Patch of frames after the end of the audio: ``"last"`` repeats the last patch (S4, MS3), ``"zero"`` is
            log-mel 0 (AVSBench-semantic). This is not silence, whose log-mel is ln 0.01.
        path: File to name in the error.

    Returns:
        (T, 1, 96, 64).

    Raises:
        DataError: When the audio has no complete patch, or more patches than there are frames.
    """
    return one_per_frame(log_mel(waveform, SAMPLE_RATE), frames, short, path)


def one_per_frame(patches: Tensor, frames: int, short: Short, path: Path) -> Tensor:
    """Pad patches to the number of frames, see :func:`consecutive`."""
    count = len(patches)
    if not count:
        raise DataError(f"{path} is too short for one patch of {PATCH_SECONDS} s: give the audio of the clip")
    if count > frames:
        raise DataError(
            f"{path} holds {count} patches of {PATCH_SECONDS} s, the clip has {frames} frames, one a second: "
            "give the audio of this clip only"
        )
    if short == "last":
        return torch.cat([patches, patches[-1:].expand(frames - count, -1, -1, -1)])
    return torch.cat([patches, patches.new_zeros(frames - count, *patches.shape[1:])])


def cached(folder: str | None, files: Sequence[Path], how: str, compute: Callable[[], Tensor]) -> Tensor:
    """Return the result of ``compute`` from a cache folder, which any number of processes may share.

    Args:
        folder: Cache folder, created if missing; None disables the cache.
        files: Inputs of the computation: the result is recomputed if their path, size or modification time changes.
        how: Settings of the computation, part of the cache key.
        compute: Computes a float tensor.

    Raises:
        DataError: When the folder cannot be written.
    """
    if folder is None or not all(path.is_file() for path in files):
        return compute()  # it raises the error that names the missing file
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    kept = Path(folder) / f"{hashlib.sha256(repr((how, facts)).encode()).hexdigest()[:32]}.npy"
    try:
        return torch.from_numpy(np.load(kept, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        result = compute()
    try:
        with replacing(kept) as temporary:
            np.save(temporary, result.numpy())
    except OSError as error:
        raise DataError(f"cannot write {kept.parent} ({error.strerror}): give another cache folder, or none") from None
    return result
