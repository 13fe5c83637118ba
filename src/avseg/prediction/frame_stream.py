"""One pass through a video: yield the regions of every frame, in constant memory.

- Samples. The model input is the frame displayed at ``(k + 1/2) / fps`` seconds after the first frame, resized to the
  size of the training data, and the 0.96 s of sound centred on the same time. If the last frame starts more than half a
  step after the last sample, it is a sample too, so that no frame is more than half a step from a sample. While a frame
  stays on display, only the first and the last of its samples are predicted: no mask depends on the others. Samples are
  batched into clips of the length of the training data; the last clip may be shorter.
- Frames between samples. Probabilities, not masks, are interpolated linearly in time between the adjacent samples;
  frames before the first or after the last sample take the nearest one. The result is enlarged bilinearly to the size
  of the frame and then thresholded (:func:`avseg.prediction.regions.find_regions`).
- Silence. Where the sound around a sample is below ``silence_gate``, the mask is empty.
- Uncertainty, if requested, is interpolated in the same way and reduced in size
  (:func:`avseg.prediction.uncertainty.pack`).
- Memory. The frames of one clip and about 2 s of sound are held, for a video of any length.
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

from avseg.errors import CheckpointError, ConfigError, did_you_mean
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
from avseg.prediction.uncertainty import pack, predicted_maps

Damaged = Literal["error", "skip"]
Show = Literal["masks", "uncertainty"]

_USUAL_FRAMES = 5
"""Samples in a clip of AVSBench, for a model whose card has no data."""


@dataclass(frozen=True)
class Options:
    """Settings of a prediction.

    Attributes:
        fps: Samples per second of video.
        missing_audio: Without a sound track, raise an error or use silence.
        damaged: Where the file cannot be decoded, raise an error, or omit that part and add a note.
        show: The masks, or masks and uncertainty.
        silence_gate: Level in dBFS, as root mean square over the 0.975 s around a sample, below which the mask is
            empty; None disables the gate.
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
            if (value := getattr(self, name)) not in (choices := get_args(kind)):
                raise ConfigError(f"unknown {name} {value!r}. {did_you_mean(value, choices)}")


class _SamplePrediction(NamedTuple):
    """Prediction of one sample: (K, h, w) probabilities, and (h, w) uncertainty if it is requested."""

    time: float
    probabilities: NDArray[np.float32]
    uncertainty: NDArray[np.float32] | None


class FrameStream:
    """Iterator over the predicted frames of a video; it can be iterated once.

    Args:
        path: The video.
        model: Model in evaluation mode.
        options: Settings.
        note: Called with each warning.

    Attributes:
        info: Properties declared by the file.
        end: End of the last frame so far, in seconds since the start of the file.

    Raises:
        MediaError: When the file is not a video, or has no sound and ``missing_audio`` is ``"error"``.
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
        before: _SamplePrediction | None = None
        for after in self._predict_samples():
            yield from self._frames(before or after, after, until=after.time)
            before = after
        if before is not None:
            yield from self._frames(before, before, until=math.inf)
        self._check_end()

    def _frames(self, before: _SamplePrediction, after: _SamplePrediction, until: float) -> Iterator[Frame]:
        """Yield the decoded frames up to ``until``, interpolated between two samples."""
        span = after.time - before.time
        while self._waiting and self._waiting[0] <= until:
            time = self._waiting.popleft()
            share = min(max((time - before.time) / span, 0.0), 1.0) if span > 0 else 0.0
            probabilities = _blend(before.probabilities, after.probabilities, share)
            uncertainty = None
            if before.uncertainty is not None and after.uncertainty is not None:
                uncertainty = pack(_blend(before.uncertainty, after.uncertainty, share))
            yield Frame(time, find_regions(probabilities, self.info.size, uncertainty), uncertainty)

    def _predict_samples(self) -> Iterator[_SamplePrediction]:
        data = self._model.card.get("data") or {}
        length, size = int(data.get("frames", _USUAL_FRAMES)), data.get("size", USUAL_SIZE)
        samples = sample(self._pictures(), self._options.fps)
        uncertain = self._options.show == "uncertainty"
        while clip := list(islice(samples, length)):
            inputs, waves = make_clip(clip, self._sound, size)
            with torch.inference_mode():
                prediction = self._model(inputs.to(self._device), maps=uncertain)
                probabilities = prediction.probabilities[0].float().cpu().numpy()
            if not np.isfinite(probabilities).all():  # NaN compares as background: the masks would be empty
                raise CheckpointError(
                    f"{self._model.name} predicts NaN or infinity between {clip[0][0]:.2f} and {clip[-1][0]:.2f} s: "
                    "load other weights, or compute in float32"
                )
            if self._options.silence_gate is not None:
                _gate(probabilities, waves, self._options.silence_gate)
            maps = predicted_maps(prediction, self._model.name) if uncertain else [None] * len(clip)
            for (time, _), p, found in zip(clip, probabilities, maps, strict=True):
                yield _SamplePrediction(time, p, found)

    def _pictures(self) -> Iterator[Picture]:
        for picture in pictures(self._path, self._complain):
            self._waiting.append(picture.time)
            self.end = picture.end
            yield picture

    def _check_end(self) -> None:
        """Report a file that ends before its declared duration, and a silent sound track."""
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
    """Empty, in place, the masks of the samples (T, K, h, w) whose sound (T, n) is below a level in dBFS."""
    quiet = (waves.double().square().mean(1) < 10.0 ** (dbfs / 10.0)).numpy()
    probabilities[quiet] = 0.0
    if probabilities.shape[1] > 1:
        probabilities[quiet, 0] = 1.0


def _blend(before: NDArray[np.float32], after: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    return before + (after - before) * np.float32(share)


def _refuse(message: str) -> None:
    refuse(f"{message}: copy it again, or skip that part with damaged='skip' (--damaged skip)")
