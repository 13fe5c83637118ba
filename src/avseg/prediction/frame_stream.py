"""One pass through a video: yield the regions of every frame, in constant memory.

- Samples. The model input is the frame displayed at ``(k + 1/2) / fps`` seconds after the first frame, resized to the
  size of the training data, and the 0.96 s of sound centred on the same time. If the last frame starts more than half a
  step after the last sample, it is a sample too, so that no frame is more than half a step from a sample. While a frame
  stays on display, only the first and the last of its samples are predicted: no mask depends on the others. Samples are
  batched into clips of the length of the training data; the last clip may be shorter.
- Frames between samples. Probabilities, not masks, are interpolated linearly in time between the adjacent samples;
  frames before the first or after the last sample take the nearest one. The result is enlarged along the edges of the
  frame (:mod:`avseg.prediction.upsampling`) and then thresholded (:func:`avseg.prediction.regions.find_regions`).
- Onsets. A frame has an empty mask where the sound is inactive (:mod:`avseg.prediction.activity`), because the window
  of the model reaches 0.48 s beyond an onset or offset.
- Silence. If the sound around a sample is below ``silence_gate``, the mask is empty.
- Weak masks. If no pixel of a sample is more probable than ``peak_gate``, the mask is empty.
- Uncertainty, if requested, is interpolated in the same way and reduced in size
  (:func:`avseg.prediction.uncertainty.pack`).
- Memory. The frames of one clip, those in between at a reduced size, and about 2 s of sound are held, for a video of
  any length.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avseg.errors import CheckpointError, ConfigError, did_you_mean
from avseg.fast_paths import Mode, Precision, device_of, dtype_of
from avseg.interface import AVSModel, Clip
from avseg.media.container import ignore, refuse
from avseg.media.sound import Sound, sound_blocks
from avseg.media.video import Picture, pictures, probe
from avseg.mel import BANDS, FRAMES
from avseg.prediction import grey_maps, soft_masks
from avseg.prediction.activity import Activity
from avseg.prediction.grey_maps import GreyMap
from avseg.prediction.objects import NamedObject, highest
from avseg.prediction.regions import Frame, Maps, Region, find_regions, possible_labels
from avseg.prediction.sampling import (
    USUAL_SIZE,
    MissingAudio,
    check_settings,
    is_number,
    make_clip,
    open_sound,
    sample,
)
from avseg.prediction.uncertainty import UncertaintyMap, pack, predicted_maps
from avseg.prediction.upsampling import FAINT, guide_size, refined
from avseg.threads import ahead

Damaged = Literal["error", "skip"]
Show = Literal["masks", "uncertainty"]
Upsampling = Literal["guided", "bilinear"]
Timing = Literal["refined", "window"]

_USUAL_FRAMES = 5
"""Samples in a clip of AVSBench, for a model whose card has no data."""
_AHEAD = 4
"""Frames that are decoded in advance."""


@dataclass(frozen=True)
class Options:
    """Settings of a prediction, in Python and on the command line.

    Attributes:
        fps: Samples per second of video that the model predicts.
        missing_audio: Without a sound track, raise an error or use silence.
        damaged: If a part of the file cannot be decoded, raise an error, or skip that part and add a note.
        show: masks, or uncertainty for masks and uncertainty, of a model that estimates it: stripes in overlay.mp4,
            grey images in uncertainty/, more rows in summary.png.
        silence_gate: Level in dBFS, as root mean square over the window of a sample, below which masks are empty; null
            (in Python, None) disables the gate.
        timing: Onsets and offsets refined by the level of the sound (:mod:`avseg.prediction.activity`), or from the
            0.96 s window of the model alone.
        threshold: Probability above which a pixel belongs to a mask, between 0 and 1; lower values give larger masks.
            With several classes, the probability of the background is multiplied by threshold / (1 - threshold) before
            the comparison.
        upsampling: From the size of the model to that of the frame: guided, along the edges of the frame, or bilinear.
        precision: float32, or bf16, which is faster on processors that have it.
        gated: Compute the finest stage of the decoder at uncertain pixels only (PCMANet).
        peak_gate: Probability. If no pixel of a sample exceeds it, the mask of the sample is empty: fewer masks of
            objects that make no sound. null (in Python, None) takes the value in the model's card: 0.8 for small, 0,
            which disables the gate, for a card without one.
    """

    fps: float = 1.0
    missing_audio: MissingAudio = "error"
    damaged: Damaged = "error"
    show: Show = "masks"
    silence_gate: float | None = -60.0
    timing: Timing = "refined"
    threshold: float = 0.5
    upsampling: Upsampling = "guided"
    precision: Precision = "float32"
    gated: bool = False
    peak_gate: float | None = None

    def __post_init__(self) -> None:
        check_settings(self.fps, self.missing_audio)
        if self.silence_gate is not None and not is_number(self.silence_gate):
            raise ConfigError(f"silence_gate must be a level in dBFS such as -60, or null, got {self.silence_gate!r}")
        if self.peak_gate is not None and (not is_number(self.peak_gate) or not 0 <= self.peak_gate < 1):
            raise ConfigError(f"peak_gate must be a probability from 0 to below 1, or null, got {self.peak_gate!r}")
        if not is_number(self.threshold) or not 0 < self.threshold < 1:
            raise ConfigError(f"threshold must be a probability above 0 and below 1, got {self.threshold!r}")
        for name, kind in (
            ("damaged", Damaged),
            ("show", Show),
            ("timing", Timing),
            ("upsampling", Upsampling),
            ("precision", Precision),
        ):
            if (value := getattr(self, name)) not in (choices := get_args(kind)):
                raise ConfigError(f"unknown {name} {value!r}. {did_you_mean(value, choices)}")

    @property
    def modes(self) -> list[Mode]:
        """Return the modes of :func:`avseg.optimize` in addition to ``exact``."""
        modes: list[Mode] = []
        if self.gated:
            modes.append("gated")
        if self.precision == "bf16":
            modes.append("bf16")
        return modes


class SamplePrediction(NamedTuple):
    """Prediction of one sample: (K, h, w) probabilities, (h, w) uncertainty if it is requested, and named objects."""

    time: float
    probabilities: NDArray[np.float32]
    uncertainty: NDArray[np.float32] | None
    objects: tuple[NamedObject, ...] = ()


class Predictor:
    """Run a model on clips of samples, and convert its probabilities to regions.

    Args:
        model: Model in evaluation mode.
        options: Settings.

    Attributes:
        frames: Samples per clip in the training data.
        size: Height and width of the frames of a clip, or one number for both.
    """

    def __init__(self, model: AVSModel, options: Options) -> None:
        data = model.card.get("data") or {}
        frames = data.get("frames")
        self.frames = frames if isinstance(frames, int) else _USUAL_FRAMES  # AVSBench: a folder
        self.size = data.get("size", USUAL_SIZE)
        self._model, self._options = model, options
        self._peak = (model.card.get("peak_gate") or 0.0) if options.peak_gate is None else options.peak_gate
        self._device, self._dtype = device_of(model), dtype_of(model)

    def predict(self, inputs: Clip, waves: Tensor, times: Sequence[float]) -> list[SamplePrediction]:
        """Return the prediction of every sample of a clip.

        Args:
            inputs: The clip of T samples.
            waves: (T, n) sound of each sample, for the silence gate.
            times: Time of each sample in seconds.

        Raises:
            CheckpointError: When the model predicts NaN or infinity.
        """
        uncertain = self._options.show == "uncertainty"
        with torch.inference_mode():
            prediction = self._model(inputs.to(self._device, self._dtype), maps=uncertain)
            probabilities = prediction.probabilities[0].float().cpu().numpy()
            scores = self._model.object_scores(prediction)
        if not np.isfinite(probabilities).all():  # NaN compares as background: the masks would be empty
            raise CheckpointError(
                f"{self._model.name} predicts NaN or infinity between {times[0]:.2f} and {times[-1]:.2f} s: "
                "load other weights, or compute in float32"
            )
        if self._options.silence_gate is not None:
            quiet = waves.double().square().mean(1) < 10.0 ** (self._options.silence_gate / 10.0)
            _empty_samples(probabilities, quiet.numpy())
        _empty_samples(probabilities, _peaks(probabilities) <= self._peak)
        maps = predicted_maps(prediction, self._model.name) if uncertain else [None] * len(times)
        names = self._model.object_names
        rows = [[]] * len(times) if scores is None else scores[0].cpu().tolist()
        objects = [highest(names, row) if row else () for row in rows]
        return [SamplePrediction(*row) for row in zip(times, probabilities, maps, objects, strict=True)]

    def warm_up(self) -> None:
        """Run the model once: the first run is slower."""
        height, width = self.size if isinstance(self.size, Sequence) else (self.size, self.size)
        frames = torch.zeros(1, 1, 3, height or USUAL_SIZE, width or USUAL_SIZE)
        with torch.inference_mode():
            self._model(Clip(frames, torch.zeros(1, 1, 1, FRAMES, BANDS)).to(self._device, self._dtype))

    def guide(self, picture: Picture, size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Return the guide of a frame (H, W) for :meth:`segment`; None without guided upsampling."""
        return picture.reduced(guide_size(size)) if self._options.upsampling == "guided" else None

    def segment(
        self,
        probabilities: Maps,
        guide: NDArray[np.uint8] | None,
        size: tuple[int, int],
        uncertainty: UncertaintyMap | None = None,
    ) -> tuple[tuple[Region, ...], GreyMap]:
        """Return the regions of a frame of (H, W), and the probability that a pixel sounds."""
        threshold = self._options.threshold
        labels = None
        if len(probabilities) > 1:
            labels = possible_labels(probabilities, threshold)
            probabilities = probabilities[labels]
        foreground = _foreground(probabilities, labels)
        if guide is not None and foreground.max() > FAINT:
            probabilities = refined(probabilities, guide)
        regions = find_regions(probabilities, size, uncertainty, threshold=threshold, labels=labels)
        return regions, grey_maps.pack(foreground, soft_masks.LONGEST)


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
        _check_rate(options.fps, float(self.info.rate), path)
        self.end = 0.0
        self._path, self._options, self._note = path, options, note
        self._predictor = Predictor(model, options)
        self._complain = note if options.damaged == "skip" else _refuse
        self._waiting: deque[tuple[float, NDArray[np.uint8] | None]] = deque()
        self._sound = open_sound(path, options.missing_audio, self._complain, note)
        self._activity: Activity | None = None
        if options.timing == "refined" and self.info.sample_rate is not None:
            self._activity = Activity(Sound(sound_blocks(path, ignore)), options.fps)

    def __iter__(self) -> Iterator[Frame]:
        before: SamplePrediction | None = None
        for after in self._predict_samples():
            yield from self._frames(before or after, after, until=after.time)
            before = after
        if before is not None:
            yield from self._frames(before, before, until=math.inf)
        self._check_end()

    def _frames(self, before: SamplePrediction, after: SamplePrediction, until: float) -> Iterator[Frame]:
        """Yield the decoded frames up to ``until``, interpolated between two samples."""
        span = after.time - before.time
        while self._waiting and self._waiting[0][0] <= until:
            time, guide = self._waiting.popleft()
            share = min(max((time - before.time) / span, 0.0), 1.0) if span > 0 else 0.0
            probabilities = _blend(before.probabilities, after.probabilities, share)
            if self._activity is not None and not self._activity.at(time):
                _empty(probabilities)
            uncertainty = None
            if before.uncertainty is not None and after.uncertainty is not None:
                uncertainty = pack(_blend(before.uncertainty, after.uncertainty, share))
            regions, probability = self._predictor.segment(probabilities, guide, self.info.size, uncertainty)
            nearest = before if share < 0.5 else after
            yield Frame(time, regions, uncertainty, probability, nearest.objects if regions else ())

    def _predict_samples(self) -> Iterator[SamplePrediction]:
        samples = sample(self._pictures(), self._options.fps)
        while clip := list(islice(samples, self._predictor.frames)):
            inputs, waves = make_clip(clip, self._sound, self._predictor.size)
            yield from self._predictor.predict(inputs, waves, [time for time, _ in clip])

    def _pictures(self) -> Iterator[Picture]:
        for picture in ahead(pictures(self._path, self._complain), _AHEAD):
            self._waiting.append((picture.time, self._predictor.guide(picture, self.info.size)))
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


def _foreground(probabilities: Maps, labels: list[int] | None) -> Maps:
    """Return the probability of any sounding class, (h, w); the first of several channels is the background."""
    first: Maps = probabilities[0]
    return first if labels is None else np.asarray(1 - first, np.float32)


def _peaks(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the highest probability of any sounding class in each sample of (T, K, h, w)."""
    several = probabilities.shape[1] > 1
    found: NDArray[np.float32] = (1 - probabilities[:, 0].min((1, 2))) if several else probabilities.max((1, 2, 3))
    return found


def _empty_samples(probabilities: NDArray[np.float32], chosen: NDArray[np.bool_]) -> None:
    """Empty, in place, the masks of some samples (T,) of (T, K, h, w)."""
    emptied = probabilities[chosen]
    _empty(emptied)
    probabilities[chosen] = emptied


def _empty(probabilities: NDArray[np.float32]) -> None:
    """Empty, in place, the masks of probabilities (..., K, h, w)."""
    probabilities[...] = 0.0
    if probabilities.shape[-3] > 1:
        probabilities[..., 0, :, :] = 1.0


def _check_rate(fps: float, rate: float, path: Path) -> None:
    """Raise ConfigError for more samples than frames; one per second is always allowed, as in a slide show."""
    if fps > max(1.0, rate) * 1.001:
        raise ConfigError(
            f"fps {fps:g} is above the {rate:g} frames per second of {path.name}: give {max(1.0, rate):g} or less"
        )


def _blend(before: NDArray[np.float32], after: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    return before + (after - before) * np.float32(share)


def _refuse(message: str) -> None:
    refuse(f"{message}: copy it again, or skip that part with damaged='skip' (--damaged skip)")
