"""Predict a live source: every sample as soon as its picture and its sound have come.

- Samples are those of :mod:`avseg.prediction.frame_stream`: the picture shown at ``(k + 1/2) / fps`` seconds after the
  first one. It is known when the next picture comes. Only these pictures get masks; there is no interpolation, which
  would wait for the next sample.
- Sound. A patch of 0.96 s is computed from 0.975 s of samples, which end ``lookahead`` seconds after the time of the
  picture: with 0, they are past sound only; with 0.4875, they are centred on the picture as for a file, and the masks
  are those of :func:`avseg.predict`. Onsets are not refined by the level of the sound, since a pause of 1 s is only
  known when it is over.
- Latency, from the arrival of a picture until its masks are returned, is at most one picture interval + ``lookahead`` +
  one block of sound + twice the time of a prediction, if ``late`` is ``"drop"``: a sample is then left out when the
  next one has come.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from avseg.errors import ConfigError, MediaError, did_you_mean
from avseg.interface import AVSModel, Clip
from avseg.media.live import Feed, ReceivedFeed
from avseg.media.sound import Sound, silence
from avseg.media.video import Picture
from avseg.mel import PATCH_SAMPLES, SAMPLE_RATE
from avseg.prediction.frame_stream import Options, Predictor
from avseg.prediction.regions import Frame
from avseg.prediction.sampling import is_number, make_clip, sample
from avseg.prediction.uncertainty import pack

Late = Literal["wait", "drop"]

LOOKAHEAD = PATCH_SAMPLES / 2 / SAMPLE_RATE
"""Seconds of sound after a sample in the window of a file: the largest lookahead."""
_QUIETEST = 1e-6
"""Root mean square of digital silence, -120 dBFS."""


class LivePrediction(NamedTuple):
    """Prediction for one picture of a live source.

    Attributes:
        frame: Its time and regions.
        picture: The picture.
        level: Level of its sound in dBFS, root mean square over the window.
    """

    frame: Frame
    picture: Picture
    level: float


class LiveStream:
    """Iterator over the predictions of a live source; it can be iterated once.

    Args:
        feed: The source.
        model: Model in evaluation mode.
        options: Settings; ``timing`` is always that of the window.
        note: Called with each warning.
        lookahead: Seconds of sound after a sample for which the model waits, from 0 to :data:`LOOKAHEAD`.
        late: Predict all samples and let the source wait (``"wait"``), or read the source at its own speed and leave
            out the samples that are late (``"drop"``).
        context: Samples in a clip: the new one and those before it.

    Attributes:
        dropped: Samples that were left out.
        source: The feed that is read.

    Raises:
        ConfigError: When a setting is invalid.
        MediaError: When the source has no sound and ``missing_audio`` is ``"error"``.
    """

    def __init__(
        self,
        feed: Feed,
        model: AVSModel,
        options: Options,
        note: Callable[[str], None],
        *,
        lookahead: float = 0.0,
        late: Late = "wait",
        context: int = 1,
    ) -> None:
        check_live(lookahead, late, context)
        if not feed.has_sound:
            if options.missing_audio == "error":
                raise MediaError(
                    f"{feed.name} has no sound: give a source with sound, or use silence with missing_audio='silence' "
                    "(--missing_audio silence)"
                )
            note(f"{feed.name} has no sound: the model input is silence")
        self.source = ReceivedFeed(feed) if late == "drop" and not isinstance(feed, ReceivedFeed) else feed
        self.dropped = 0
        self._predictor, self._options = Predictor(model, options), options
        self._late, self._shift = late, lookahead - LOOKAHEAD
        self._recent: deque[tuple[float, Clip, Tensor]] = deque(maxlen=context)

    def __iter__(self) -> Iterator[LivePrediction]:
        feed, step = self.source, 1 / self._options.fps
        if isinstance(feed, ReceivedFeed):
            self._predictor.warm_up()
            feed.start()
        try:
            pictures = feed.pictures()
            first = next(pictures, None)
            if first is None:
                raise MediaError(f"{feed.name} ended before its first picture")
            sound = Sound(feed.blocks()) if feed.has_sound else silence()
            for time, picture in sample(chain([first], pictures), self._options.fps):
                if self._late == "drop" and feed.newest >= time + step:
                    self.dropped += 1
                    continue
                yield self._prediction(time, picture, sound)
        finally:
            feed.close()

    def _prediction(self, time: float, picture: Picture, sound: Sound) -> LivePrediction:
        inputs, waves = make_clip([(time, picture)], sound, self._predictor.size, self._shift)
        self._recent.append((time, inputs, waves))
        times, clips, sounds = zip(*self._recent, strict=True)
        clip = Clip(torch.cat([c.frames for c in clips], 1), torch.cat([c.audio for c in clips], 1))
        found = self._predictor.predict(clip, torch.cat(sounds), times)[-1]
        guide = self._predictor.guide(picture, picture.size)
        uncertainty = None if found.uncertainty is None else pack(found.uncertainty)
        regions, probability = self._predictor.segment(found.probabilities, guide, picture.size, uncertainty)
        level = 20 * math.log10(max(float(waves.double().square().mean().sqrt()), _QUIETEST))
        return LivePrediction(Frame(picture.time, regions, uncertainty, probability), picture, level)


def check_live(lookahead: object, late: object, context: object) -> None:
    """Raise ConfigError unless the settings of a live source are valid."""
    if not is_number(lookahead) or not 0 <= lookahead <= LOOKAHEAD:
        raise ConfigError(f"lookahead must be from 0 to {LOOKAHEAD} s, got {lookahead!r}")
    if late not in (choices := get_args(Late)):
        raise ConfigError(f"unknown late {late!r}. {did_you_mean(str(late), choices)}")
    if isinstance(context, bool) or not isinstance(context, int) or context < 1:
        raise ConfigError(f"context must be a number of samples, 1 or more, got {context!r}")
