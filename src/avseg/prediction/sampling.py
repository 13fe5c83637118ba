"""Convert a video to the input of a model: times, frames and log-mel patches.

The samples are the pictures shown at ``(k + 1/2) / fps`` seconds after the first picture, resized without keeping the
aspect ratio, each with the 0.96 s of sound centred on the same moment. :func:`avseg.predict` and
:func:`clip_from_video` share this code.
"""

import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, dropwhile, takewhile
from pathlib import Path
from typing import Literal, TypeGuard, get_args

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from avseg.errors import ConfigError, MediaError, did_you_mean
from avseg.interface import Clip
from avseg.media.container import Complain, ignore, refuse, video_path
from avseg.media.images import normalise
from avseg.media.sound import Sound, silence, sound_blocks
from avseg.media.video import Picture, pictures, probe
from avseg.mel import PATCH_SAMPLES, SAMPLE_RATE, log_mel_at

MissingAudio = Literal["error", "silence"]

USUAL_SIZE = 224
"""Height and width of the frames of AVSBench."""
_CENTRE = torch.tensor([PATCH_SAMPLES // 2 / SAMPLE_RATE])
"""Centre in seconds of the sound of one patch."""


def clip_from_video(
    path: str | Path,
    start: float = 0.0,
    seconds: float | None = None,
    fps: float = 1.0,
    size: int | tuple[int, int] = USUAL_SIZE,
    *,
    missing_audio: MissingAudio = "error",
) -> Clip:
    """Return the input of a model for a stretch of a video, with the preprocessing of :func:`avseg.predict`.

    The samples lie at ``start + (k + 1/2) / fps`` seconds after the first picture of the video, up to
    ``start + seconds``. If the video ends more than half a step after the last of them, its last picture is a sample
    too. With ``start=0`` these are the samples of :func:`avseg.predict`, which only leaves out repetitions of a picture
    that is shown for longer than three steps.

    Args:
        path: Any file FFmpeg reads.
        start: Seconds after the first picture.
        seconds: Length of the stretch; None goes on to the end of the video.
        fps: Samples per second of video.
        size: Height and width of the frames, or one number for both; a model expects what it was trained with.
        missing_audio: Without a sound track, raise (``"error"``), or use ``"silence"``.

    Returns:
        One clip of T samples: ``frames`` (1, T, 3, H, W) and ``audio`` (1, T, 1, 96, 64).

    Raises:
        MediaError: When the file is no video, has no sound, is damaged, or ends before ``start``.
        ConfigError: When a setting cannot work.
    """
    path = video_path(path)
    check_settings(fps, missing_audio)
    _check_stretch(start, seconds)
    sound = open_sound(path, missing_audio)
    shown = pictures(path)
    first = next(shown)
    begin, end = first.time + start, math.inf if seconds is None else first.time + start + seconds
    moments = sample(chain([first], shown), fps, offset=start, repeats=True)
    samples = list(takewhile(lambda moment: moment[0] < end, dropwhile(lambda moment: moment[0] < begin, moments)))
    if not samples:
        raise MediaError(f"{path} has no picture in the stretch that starts at {start} s: choose an earlier start")
    return make_clip(samples, sound, size)[0]


def make_clip(
    samples: Sequence[tuple[float, Picture]], sound: Sound, size: int | tuple[int, int], shift: float = 0.0
) -> tuple[Clip, Tensor]:
    """Return the clip of some samples, and the waveforms (T, 15600) of its log-mel patches.

    Args:
        samples: Moments in rising order, with the pictures shown then.
        sound: The sound track; none of its later moments was read before.
        size: Height and width of the frames, or one number for both.
        shift: Seconds from each moment to the centre of its sound.
    """
    frames = torch.stack([_resized(picture, size) for _, picture in samples])
    waveforms = torch.stack([sound.waveform_at(time + shift) for time, _ in samples])
    audio = torch.cat([log_mel_at(waveform, _CENTRE) for waveform in waveforms])
    return Clip(normalise(frames)[None], audio[None]), waveforms


def sample(
    shown: Iterator[Picture], fps: float, *, offset: float = 0.0, repeats: bool = False
) -> Iterator[tuple[float, Picture]]:
    """Yield the moments of the samples, with the picture shown at each.

    Args:
        shown: All pictures, in order; there is at least one.
        fps: Samples per second.
        offset: Seconds from the first picture to the start of the first step.
        repeats: Whether a picture that is shown for more than two steps gives a sample in each of them; otherwise only
            the first and the last of these are yielded.
    """
    picture = next(shown)
    start, count = picture.time + offset, 0
    due = start + 0.5 / fps
    for following in chain(shown, [None]):
        until = following.time if following else picture.end
        while due < until:
            yield due, picture
            count = count + 1 if repeats else max(count + 1, math.ceil((until - start) * fps - 0.5) - 1)
            due = start + (count + 0.5) / fps
        picture = following or picture
    if not count or picture.time > due - 0.5 / fps:
        yield picture.time, picture


def open_sound(
    path: Path, missing_audio: MissingAudio, complain: Complain = refuse, note: Callable[[str], None] = ignore
) -> Sound:
    """Return the sound track of a video, or silence if it has none and ``missing_audio`` allows it.

    Args:
        path: The video.
        missing_audio: Without a sound track, raise (``"error"``), or use ``"silence"``.
        complain: Called at damage, see :func:`avseg.media.container.decoded`.
        note: Called with a sentence when silence is used.

    Raises:
        MediaError: When there is no sound and ``missing_audio`` is ``"error"``.
    """
    blocks = sound_blocks(path, complain)
    first = next(blocks, None)
    if first is not None:
        return Sound(chain([first], blocks))
    declared = probe(path).sample_rate is not None
    problem = "a sound track, but nothing in it to decode" if declared else "no sound track"
    if missing_audio == "error":
        raise MediaError(
            f"{path} has {problem}: give a video with sound, or use silence with missing_audio='silence' "
            "(--missing_audio silence)"
        )
    note(f"{path.name} has {problem}: the model input is silence")
    return silence()


def check_settings(fps: object, missing_audio: object) -> None:
    """Raise ConfigError unless ``fps`` is a positive number and ``missing_audio`` one of its values."""
    if not is_number(fps) or fps <= 0:
        raise ConfigError(f"fps must be a number above 0, got {fps!r}")
    if missing_audio not in (choices := get_args(MissingAudio)):
        raise ConfigError(f"unknown missing_audio {missing_audio!r}. {did_you_mean(str(missing_audio), choices)}")


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a finite real number; True and False are not."""
    return not isinstance(value, bool) and isinstance(value, numbers.Real) and math.isfinite(value)


def _check_stretch(start: object, seconds: object) -> None:
    if not is_number(start) or start < 0:
        raise ConfigError(f"start must be a number of seconds, 0 or more, got {start!r}")
    if seconds is not None and (not is_number(seconds) or seconds <= 0):
        raise ConfigError(f"seconds must be a number above 0, or None, got {seconds!r}")


def _resized(picture: Picture, size: int | tuple[int, int]) -> Tensor:
    """Return a picture as (h, w, 3) uint8."""
    image = torch.from_numpy(picture.rgb()).movedim(-1, 0)[None]
    if 0 in (size if isinstance(size, Sequence) else (size,)):  # the model was trained at the stored size
        return image[0].movedim(0, -1)
    return interpolate(image, size=size, mode="bilinear", antialias=True)[0].movedim(0, -1)
