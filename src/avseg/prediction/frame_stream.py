"""One pass through a video: pictures and sound in, a frame of masks out for every picture, in constant memory.

How it looks and listens:

- Samples. The model sees what is on screen at ``(k + 1/2) / fps`` seconds after the first picture, squashed to the
  size it was trained at, and hears the 0.96 s of sound centred on that very moment. When the last picture lies more
  than half a step after the last sample, it is a sample too: no picture is further than half a step from one. While
  a picture stays on screen, only the first and the last of its samples are taken: no mask depends on the others.
  Samples go through the model in clips of the length it was trained with; the last clip may be shorter.
- Pictures between samples. Probabilities, not masks, are blended linearly in time between the sample before and the
  sample after; before the first and after the last sample, the nearest counts. The blend is enlarged bilinearly to
  the picture's own size and only there becomes a mask (:func:`avseg.prediction.regions.find_regions`).
- Silence. Where the sound around a sample is below ``silence_gate``, nothing is marked, whatever the model predicts.
- Uncertainty, when it is to be shown, is blended like a probability, and made small
  (:func:`avseg.prediction.uncertainty.pack`).
- Memory. The pictures of one clip and about 2 s of sound are held, however long the video is.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avseg.errors import ConfigError, did_you_mean
from avseg.interface import AVSModel
from avseg.media.container import refuse
from avseg.media.video import Picture, pictures, probe
from avseg.prediction.regions import Frame, find_regions
from avseg.prediction.sampling import (
    USUAL_SIZE,
    MissingAudio,
    check_settings,
    is_number,
    make_clip,
    open_sound,
    sample,
)
from avseg.prediction.uncertainty import answered, pack

Damaged = Literal["error", "skip"]
Show = Literal["masks", "uncertainty"]

_USUAL_FRAMES = 5
"""Samples in a clip of AVSBench, for a model whose card names no data."""


@dataclass(frozen=True)
class Options:
    """How to go through a video.

    Attributes:
        fps: Samples per second of video.
        missing_audio: Without a sound track, refuse, or let the model hear silence.
        damaged: Where something cannot be decoded, refuse, or leave that part out and note it.
        show: What to keep of the model's answers: the masks, or its uncertainty as well.
        silence_gate: Level in dBFS, as root mean square over the 0.975 s around a sample, below which nothing is
            marked; None marks what the model predicts.
    """

    fps: float = 1.0
    missing_audio: MissingAudio = "error"
    damaged: Damaged = "error"
    show: Show = "masks"
    silence_gate: float | None = -60.0

    def __post_init__(self) -> None:
        check_settings(self.fps, self.missing_audio)
        if self.silence_gate is not None and not is_number(self.silence_gate):
            raise ConfigError(f"silence_gate must be a level in dBFS such as -60, or null, got {self.silence_gate!r}")
        for name, kind in (("damaged", Damaged), ("show", Show)):
            if (said := getattr(self, name)) not in (choices := get_args(kind)):
                raise ConfigError(f"unknown {name} {said!r}. {did_you_mean(said, choices)}")


class _Answer(NamedTuple):
    """What the model says about one moment: (K, h, w) probabilities, (h, w) uncertainty if that is to be shown."""

    time: float
    probabilities: NDArray[np.float32]
    uncertainty: NDArray[np.float32] | None


class FrameStream:
    """The pass; iterate over it once.

    Args:
        path: The video.
        model: In evaluation mode.
        options: How.
        note: Is told what the user should know of.

    Attributes:
        info: What the file says about itself.
        end: When the last picture so far goes, in seconds since the start of the file.

    Raises:
        MediaError: When the file is no video, or has no sound and silence was not asked for.
    """

    def __init__(self, path: Path, model: AVSModel, options: Options, note: Callable[[str], None]) -> None:
        self.info = probe(path)
        self.end = 0.0
        self._path, self._model, self._options, self._note = path, model, options, note
        self._complain = note if options.damaged == "skip" else _refuse
        self._device = next(model.parameters(), torch.empty(0)).device
        self._waiting: deque[float] = deque()
        self._sound = open_sound(path, options.missing_audio, self._complain, note)

    def __iter__(self) -> Iterator[Frame]:
        before: _Answer | None = None
        for after in self._answers():
            yield from self._frames(before or after, after, until=after.time)
            before = after
        if before is not None:
            yield from self._frames(before, before, until=math.inf)
        self._check_end()

    def _frames(self, before: _Answer, after: _Answer, until: float) -> Iterator[Frame]:
        """The pictures that waited for ``after``."""
        span = after.time - before.time
        while self._waiting and self._waiting[0] <= until:
            time = self._waiting.popleft()
            share = min(max((time - before.time) / span, 0.0), 1.0) if span > 0 else 0.0
            probabilities = _blend(before.probabilities, after.probabilities, share)
            doubt = None
            if before.uncertainty is not None and after.uncertainty is not None:
                doubt = pack(_blend(before.uncertainty, after.uncertainty, share))
            yield Frame(time, find_regions(probabilities, self.info.size, doubt), doubt)

    def _answers(self) -> Iterator[_Answer]:
        data = self._model.card.get("data") or {}
        length, size = int(data.get("frames", _USUAL_FRAMES)), data.get("size", USUAL_SIZE)
        samples = sample(self._pictures(), self._options.fps)
        doubting = self._options.show == "uncertainty"
        while clip := list(islice(samples, length)):
            inputs, waves = make_clip(clip, self._sound, size)
            with torch.inference_mode():
                answer = self._model(inputs.to(self._device), maps=doubting)
                probabilities = answer.probabilities[0].float().cpu().numpy()
            if self._options.silence_gate is not None:
                _gate(probabilities, waves, self._options.silence_gate)
            doubts = answered(answer, self._model.name) if doubting else [None] * len(clip)
            for (time, _), p, doubt in zip(clip, probabilities, doubts, strict=True):
                yield _Answer(time, p, doubt)

    def _pictures(self) -> Iterator[Picture]:
        for picture in pictures(self._path, self._complain):
            self._waiting.append(picture.time)
            self.end = picture.end
            yield picture

    def _check_end(self) -> None:
        """Complain of a file that says it is longer; a player would stop in silence, too."""
        declared = self.info.duration or 0.0
        missing = 1.0 + 0.02 * declared
        if declared - self.end > missing:
            self._sound.finish()
        reached = max(self.end, self._sound.end)
        if declared - reached > missing:
            self._complain(
                f"{self._path} is cut off or damaged: it declares {declared:.1f} s and ends after {reached:.1f} s"
            )
        if self.info.sample_rate is not None and self._sound.silent:
            self._note(f"{self._path.name} has a silent sound track: nothing in it is louder than -80 dB")


def _gate(probabilities: NDArray[np.float32], waves: Tensor, dbfs: float) -> None:
    """Mark nothing, in place, in the frames (T, K, h, w) whose sound (T, n) is below a level in dBFS."""
    quiet = (waves.double().square().mean(1) < 10.0 ** (dbfs / 10.0)).numpy()
    probabilities[quiet] = 0.0
    if probabilities.shape[1] > 1:
        probabilities[quiet, 0] = 1.0


def _blend(before: NDArray[np.float32], after: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    return before + (after - before) * np.float32(share)


def _refuse(message: str) -> None:
    refuse(f"{message}: copy it again, or say damaged skip (--damaged skip) to leave that part out")
