"""One log-mel patch for each frame of a clip, and a folder that remembers patches."""

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
    """The patches AVSBench's code gives its frames: frame k hears 0.96 k … 0.96 (k + 1) s.

    Args:
        waveform: (n,) at 16 kHz.
        frames: T.
        short: What a frame hears when the sound has ended: ``"last"``, its last patch once more (S4, MS3), or
            ``"zero"``, log-mel 0 (AVSBench-semantic), which is not silence.
        path: Named in the error.

    Returns:
        (T, 1, 96, 64).

    Raises:
        DataError: When the sound has no patch at all, or more than there are frames: it is not this clip's.
    """
    return one_per_frame(log_mel(waveform, SAMPLE_RATE), frames, short, path)


def one_per_frame(patches: Tensor, frames: int, short: Short, path: Path) -> Tensor:
    """As many patches as frames, see :func:`consecutive`."""
    count = len(patches)
    if not count:
        raise DataError(f"{path} is too short for one patch of {PATCH_SECONDS} s: give the sound of the clip")
    if count > frames:
        raise DataError(
            f"{path} holds {count} patches of {PATCH_SECONDS} s, the clip has {frames} frames, one a second: "
            "give the sound of the clip alone"
        )
    if short == "last":
        return torch.cat([patches, patches[-1:].expand(frames - count, -1, -1, -1)])
    return torch.cat([patches, patches.new_zeros(frames - count, *patches.shape[1:])])


def remembered(folder: str | None, files: Sequence[Path], how: str, compute: Callable[[], Tensor]) -> Tensor:
    """What ``compute`` gives, kept in a folder for the next time; any number of processes may share it.

    Args:
        folder: Created if missing; None keeps nothing.
        files: What the result is made from: it is computed anew when their path, size or time of change differ.
        how: What else decides it.
        compute: Makes a float tensor.

    Raises:
        DataError: When the folder cannot be written.
    """
    if folder is None or not all(path.is_file() for path in files):
        return compute()  # which says what is missing
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
        raise DataError(f"cannot write {kept.parent} ({error.strerror}): give another cache, or none") from None
    return result
