"""Make ``docs/images/failures.png``: pictures and sounds for which masks of the bundled model are often wrong.

Run ``python examples/failure_pictures.py docs/images/failures.png`` in the root of the repository. The pictures come
from the packages scikit-image and matplotlib, the speech from espeak-ng, the other sounds from :mod:`avseg.synthesis`.
Each cell shows a still scene with the predicted mask and, below it, the sound and the correct result.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import torch
from make_example import speak
from matplotlib.cbook import get_sample_data
from matplotlib.font_manager import findfont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import avseg
from avseg.figures.cells import highlight
from avseg.interface import Clip
from avseg.media.images import normalise
from avseg.mel import SAMPLE_RATE, log_mel_at
from avseg.synthesis.sprites.sounds import engine, meow, ring
from avseg.synthesis.sprites.traits import Traits

SECONDS = 5
CELL = (320, 180)
"""Width and height of a scene in the picture."""
_TEXT = 40
"""Height of the lines below a scene."""
_COLUMNS = 3


@dataclass(frozen=True)
class Case:
    """A scene and its sound.

    Attributes:
        scene: 16:9 picture.
        sound: Samples at 16 kHz.
        words: Name of the sound.
        correct: Objects that a correct mask shows.
    """

    scene: Image.Image
    sound: NDArray[np.floating]
    words: str
    correct: str


def abreast(*pictures: Image.Image) -> Image.Image:
    """Return a scene of 1280 × 720 with the pictures side by side, each cropped at its centre."""
    scene, wide = Image.new("RGB", (1280, 720)), 1280 // len(pictures)
    for place, picture in enumerate(pictures):
        factor = max(wide / picture.width, 720 / picture.height)
        width, height = wide / factor, 720 / factor
        left, top = (picture.width - width) / 2, (picture.height - height) / 2
        part = picture.resize((wide, 720), Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        scene.paste(part, (place * wide, 0))
    return scene


def small(picture: Image.Image, ground: Image.Image, share: float) -> Image.Image:
    """Return a scene with a picture at this share of its height in the lower right corner."""
    scene = abreast(ground)
    side = round(720 * share)
    scene.paste(picture.resize((round(side * picture.width / picture.height), side)), (900, 690 - side))
    return scene


def cases() -> list[Case]:
    """Return the scenes in the order of the cells."""
    portrait, cat = Image.fromarray(skimage.data.astronaut()), Image.fromarray(skimage.data.chelsea())
    standing = Image.fromarray(skimage.data.camera()).convert("RGB")
    with get_sample_data("grace_hopper.jpg") as file:
        officer = Image.open(file).convert("RGB")
    cup, rocket = Image.fromarray(skimage.data.coffee()), Image.fromarray(skimage.data.rocket())
    with tempfile.TemporaryDirectory() as folder:
        speech = speak("Good morning. This is the news of today, and here is the weather.", Path(folder))
    voice, bell = _sound(meow, 3), _sound(ring, 5)
    both = _filled(speech) / np.abs(speech).max() + _filled(voice) / np.abs(voice).max()
    return [
        Case(
            abreast(portrait, officer),
            speech,
            "speech of one person",
            "one of both: the picture does not show which",
        ),
        Case(abreast(portrait, cat), both, "speech and meows", "person and cat"),
        Case(abreast(portrait), speech, "speech of a narrator", "nothing"),
        Case(abreast(standing), speech, "speech", "the man"),
        Case(small(cat, rocket, 0.3), voice, "meows", "the cat"),
        Case(abreast(cup, cat), bell, "bell outside the picture", "nothing"),
        Case(abreast(cup, cup, cat), voice, "meows", "the cat"),
        Case(abreast(rocket), _sound(engine, 4), "engine", "the rocket"),
        Case(abreast(portrait, cup, cat), speech, "speech", "the person"),
    ]


def _sound(make: Callable[[Traits, int], NDArray[np.float64]], seed: int) -> NDArray[np.float64]:
    return make(Traits(np.random.default_rng(seed), "test"), SECONDS * SAMPLE_RATE)


def _filled(sound: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.resize(sound, SECONDS * SAMPLE_RATE)


@torch.inference_mode()
def masked(model: avseg.AVSModel, case: Case, size: int) -> Image.Image:
    """Return the scene with the mask of the middle frame of the clip."""
    pixels = torch.from_numpy(np.array(case.scene.resize((size, size), Image.Resampling.BICUBIC)))
    sound = _filled(case.sound)
    waveform = torch.from_numpy((0.4 * sound / np.abs(sound).max()).astype(np.float32))
    audio = log_mel_at(waveform, torch.arange(SECONDS) + 0.5)
    frames = normalise(pixels[None].expand(SECONDS, -1, -1, -1))
    mask = model(Clip(frames[None], audio[None])).masks[0, SECONDS // 2].numpy()
    return highlight(np.asarray(case.scene), mask, CELL)


def main() -> None:
    """Write the picture."""
    model = avseg.load("small")
    size = model.card["data"]["size"]
    font = ImageFont.truetype(findfont("DejaVu Sans"), 12)
    shown = cases()
    rows = -(-len(shown) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * (CELL[0] + 8) - 8, rows * (CELL[1] + _TEXT)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, case in enumerate(shown):
        left, top = number % _COLUMNS * (CELL[0] + 8), number // _COLUMNS * (CELL[1] + _TEXT)
        sheet.paste(masked(model, case, size), (left, top))
        draw.text((left, top + CELL[1] + 2), f"sound: {case.words}", "black", font)
        draw.text((left, top + CELL[1] + 18), f"correct: {case.correct}", "black", font)
    sheet.save(sys.argv[1], optimize=True)


if __name__ == "__main__":
    main()
