"""Make ``portrait_and_cat.mp4``: a portrait and a cat side by side, with speech, meows and a bell outside the picture.

Run ``python examples/make_example.py OUTPUT.mp4``. The pictures come from the package scikit-image, the speech from the
program espeak-ng (Debian package of the same name), the meows and the bell from :mod:`avseg.synthesis`. Everything is
computed, so the same versions of these give the same pictures and samples.

======== ==================================
seconds  sound
======== ==================================
0-1      silence
1-3      speech
3-4      silence
4-6      meows
6-8      bell, which is not in the picture
8-10     speech and meows
======== ==================================
"""

import argparse
import math
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from avseg.media.sound import read_sound
from avseg.mel import SAMPLE_RATE
from avseg.synthesis.sprites.sounds import meow, ring
from avseg.synthesis.sprites.traits import Traits

SECONDS, RATE = 10, 25
HALF = (320, 360)
"""Width and height in pixels of each picture."""
SENTENCES = ("Good morning. How are you today?", "Come here, little one. Dinner is ready.")
_PORTRAIT, _CAT = (16.0, 8.0, 440.0, 495.0), (96.0, 6.0, 256.0, 288.0)
"""Left, top, width and height of the visible part of each picture, before it moves."""
_SWAY = 0.02
"""Largest movement to either side, in widths of the visible part."""


def frames() -> Iterator[NDArray[np.uint8]]:
    """Yield the (360, 640, 3) RGB pixels of each frame."""
    portrait, cat = Image.fromarray(skimage.data.astronaut()), Image.fromarray(skimage.data.chelsea())
    for index in range(SECONDS * RATE):
        time = index / RATE
        halves = [
            _view(portrait, _PORTRAIT, math.sin(2 * math.pi * time / 10)),
            _view(cat, _CAT, math.sin(2 * math.pi * time / 8 + 2)),
        ]
        yield np.concatenate(halves, 1)


def _view(picture: Image.Image, part: tuple[float, float, float, float], sway: float) -> NDArray[np.uint8]:
    left, top, width, height = part
    left += _SWAY * width * sway
    return np.asarray(picture.resize(HALF, Image.Resampling.BICUBIC, (left, top, left + width, top + height)))


def soundtrack(speech: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return the samples at 16 kHz.

    Args:
        speech: The spoken sentences at 16 kHz, in -1..1; each is cut after two seconds.
    """
    track = np.zeros(SECONDS * SAMPLE_RATE)
    _add(track, speech[0], start=1.0, level=0.5)
    _add(track, meow(_traits(3), 2 * SAMPLE_RATE), start=4.0, level=0.4)
    _add(track, ring(_traits(5), 2 * SAMPLE_RATE), start=6.0, level=0.4)
    _add(track, speech[1], start=8.0, level=0.4)
    _add(track, meow(_traits(8), 2 * SAMPLE_RATE), start=8.0, level=0.3)
    return track


def _traits(seed: int) -> Traits:
    return Traits(np.random.default_rng(seed), "test")


def _add(track: NDArray[np.float64], sound: NDArray[np.floating], *, start: float, level: float) -> None:
    """Add at most two seconds of a sound in place, scaled to a peak of ``level``, with a fade-out of 0.1 s."""
    sound = sound[: 2 * SAMPLE_RATE] * (level / np.abs(sound).max())
    fade = np.minimum(1.0, np.arange(len(sound), 0, -1) / (0.1 * SAMPLE_RATE))
    first = round(start * SAMPLE_RATE)
    track[first : first + len(sound)] += sound * fade


def speak(sentence: str, folder: Path) -> NDArray[np.float32]:
    """Return a sentence spoken by espeak-ng, at 16 kHz, without the silence before and after it."""
    file = folder / "speech.wav"
    subprocess.run(["espeak-ng", "-v", "en-us+f3", "-s", "165", "-w", str(file), sentence], check=True)
    sound = read_sound(file)
    audible = np.flatnonzero(np.abs(sound) > 0.01)
    return sound[audible[0] : audible[-1] + 1]


def write(path: Path, track: NDArray[np.float64]) -> None:
    """Write :func:`frames` as H.264 and the samples (n,) at 16 kHz as AAC."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", RATE, {"crf": "24", "preset": "slow", "threads": "1"})
        video.width, video.height, video.pix_fmt = 2 * HALF[0], HALF[1], "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono", options={"b": "64k"})
        for image in frames():
            container.mux(video.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(video.encode(None))
        samples = av.AudioFrame.from_ndarray(track[None].astype(np.float32), format="fltp", layout="mono")
        samples.sample_rate, samples.pts = SAMPLE_RATE, 0
        for frame in (samples, None):
            container.mux(audio.encode(frame))


def main() -> None:
    """Write the video."""
    parser = argparse.ArgumentParser(description="Make the example video.")
    parser.add_argument("output", type=Path, help="The mp4 file to write.")
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        speech = [speak(sentence, Path(folder)) for sentence in SENTENCES]
    write(output, soundtrack(speech))


if __name__ == "__main__":
    main()
