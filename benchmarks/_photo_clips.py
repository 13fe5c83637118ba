"""Clips of one photograph and one recording of its class, from the parts of a stock that are never trained on.

Scripts that measure a model on these clips share a command line, :func:`measure_photo_clips`.
"""

import shlex
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import avseg
from _common import mistakes_in_a_line
from avseg.interface import AVSModel, Clip
from avseg.media.images import normalise
from avseg.mel import SAMPLE_RATE, log_mel_at
from avseg.provenance import provenance, write_result
from avseg.synthesis.stock import Stock, StockImage, open_stock

PARTS = ("research", "test")
FRAMES = 5
_SMALLEST = 0.03
"""Share of a photograph that its object covers at least."""


class PhotoClip(NamedTuple):
    """A photograph with a recording.

    Attributes:
        name: Class of the photograph in the stock.
        number: Its number in the masks.
        planes: (H, W, 4 or more): RGB, then the number of the class of each pixel.
        wave: Recording at 16 kHz.
    """

    name: str
    number: int
    planes: NDArray[np.uint8]
    wave: NDArray[np.float32]


def photo_clips(root: Path, names: Sequence[str], most: int) -> list[PhotoClip]:
    """Return the clips of classes of a stock, at most ``most`` of each; classes without recordings have none."""
    stocks = [open_stock(root, part) for part in PARTS]
    numbers = {c.name: number for number, c in stocks[0].classes.items()}
    found = []
    for name in names:
        number = numbers[name]
        waves = recordings(stocks, stocks[0].classes[number].sounds)
        if not waves:
            continue
        order = np.random.default_rng(number).permutation(len(waves))
        photos = (s.planes(p) for s in stocks for p in s.photos.get(number, ()) if _covers(s, p, number))
        found += [
            PhotoClip(name, number, planes, waves[order[k % len(waves)]])
            for k, planes in enumerate(islice(photos, most))
        ]
    return found


def recordings(stocks: Sequence[Stock], kinds: Sequence[str]) -> list[NDArray[np.float32]]:
    """Return the recordings of some sound classes."""
    return [s.wave(r) for s in stocks for kind in kinds for r in s.recordings.get(kind, ())]


def _covers(stock: Stock, photo: StockImage, number: int) -> bool:
    return bool((stock.planes(photo)[..., 3] == number).mean() >= _SMALLEST)


def still_clip(model: AVSModel, planes: NDArray[np.uint8], wave: NDArray[np.float32]) -> Clip:
    """Return the clip of a photograph at the size of a model; a short recording is repeated, its peak is 0.5."""
    size = model.card["data"]["size"]
    picture = Image.fromarray(np.ascontiguousarray(planes[..., :3]))
    frame = torch.from_numpy(np.array(picture.resize((size, size), Image.Resampling.BICUBIC)))
    sound = torch.from_numpy(np.resize(wave, FRAMES * SAMPLE_RATE))
    audio = log_mel_at(sound / sound.abs().max().clamp(min=1e-6) / 2, torch.arange(FRAMES) + 0.5)
    return Clip(normalise(frame.expand(FRAMES, -1, -1, -1))[None], audio[None])


def sounding(wave: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the frames of :func:`still_clip` whose second of sound is at most 20 dB below the loudest one."""
    seconds = np.resize(wave, (FRAMES, SAMPLE_RATE)).astype(np.float64)
    power = (seconds**2).mean(1)
    return np.asarray(power >= 0.01 * power.max())


def measure_photo_clips(
    script: str,
    description: str | None,
    measure: Callable[[AVSModel, Path, int], dict[str, Any]],
    argv: Sequence[str],
) -> tuple[dict[str, Any], Path]:
    """Run a script with the command line ``STOCK OUT.json``.

    Args:
        script: Name of the script without its suffix.
        description: Help text.
        measure: Function of model, stock and largest number of clips of a class.
        argv: Arguments of the script.

    Returns:
        The numbers that were measured, and the JSON file that was written.
    """
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("stock", type=Path, help="folder made by collect_material.py")
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("--model", default="small", help="model of one class")
    parser.add_argument("--most", type=int, default=20, help="largest number of clips of a class")
    words = parser.parse_args(argv)
    with mistakes_in_a_line():
        numbers = measure(avseg.load(words.model), words.stock, words.most)
        command = shlex.join(["python", f"benchmarks/{script}.py", "STOCK", str(words.out)])
        config = {"model": words.model, "parts": list(PARTS), "most": words.most}
        write_result(words.out, {**provenance(command), "config": config, "numbers": numbers})
    return numbers, words.out
