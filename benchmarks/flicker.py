"""Measure the flicker of masks, and smoothing over time: ``python benchmarks/flicker.py STOCK OUT.json [--clips 16]``.

STOCK is a folder made by ``collect_material.py``. Each clip is one test photograph with its mask, under a camera that
moves 2 pixels per frame at 12.5 frames per second over a larger picture, with noise on every frame, and a recording of
its class that sounds all the time. So the true mask only moves, by a known number of pixels.

- ``consistency``: mean IoU of the masks of neighbouring samples, after compensation of the motion; 1 is no flicker.
- ``j``: mean IoU of masks and ground truth.

The probabilities of a sample are kept (``none``), averaged with those before and after it with weights 1 : 2 : 1
(``mean3``) or 1 : 1 : 1 : 1 : 1 (``mean5``), or mixed with the past only, half and half (``past``). The same with the
motion compensated (``mean3 compensated``) shows the limit for any smoothing along the motion.
"""

import shlex
import sys
import tempfile
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from _video import write_video
from avseg.checkpoints.store import load
from avseg.flags import read_yaml
from avseg.interface import AVSModel
from avseg.media.images import enlarged, read_labels
from avseg.media.sound import read_sound
from avseg.media.video import pictures
from avseg.mel import SAMPLE_RATE
from avseg.prediction.frame_stream import Options, Predictor
from avseg.prediction.sampling import make_clip, open_sound, sample
from avseg.provenance import provenance, write_result

SIZE = (240, 320)
RATE, SECONDS, STEP, NOISE = Fraction(25, 2), 5, 2, 4.0
CLASSES = ("person", "dog", "cat", "bird", "car", "piano", "saxophone", "helicopter")
Maps = NDArray[np.float32]


def clips(stock: Path, folder: Path, count: int) -> Iterator[tuple[Path, NDArray[np.bool_]]]:
    """Write clips; yield each with the mask of the whole picture under the camera."""
    rng = np.random.default_rng(5)
    classes = {row["name"]: row for row in read_yaml(stock / "classes.yaml")["classes"]}
    frames = round(SECONDS * RATE)
    for number in range(count):
        row = classes[CLASSES[number % len(CLASSES)]]
        photos = sorted((stock / "test/images" / row["name"]).glob("*.jpg"))
        kind = next(name for name in row["sounds"] if (stock / "test/sounds" / name).is_dir())
        sounds = sorted((stock / "test/sounds" / kind).iterdir())
        photo = photos[int(rng.integers(len(photos)))]
        wide = (SIZE[1] + STEP * frames, SIZE[0])
        picture = np.asarray(Image.open(photo).convert("RGB").resize(wide), np.float32)
        labels = Image.fromarray(read_labels(photo.with_suffix(".png"))).resize(wide, Image.Resampling.NEAREST)
        wave = read_sound(sounds[int(rng.integers(len(sounds)))])
        path = folder / f"{number}.mkv"
        sound = np.resize(wave, SECONDS * SAMPLE_RATE).astype(np.float32)
        write_video(path, _noisy_views(picture, rng), sound, rate=RATE, size=SIZE, codec="ffv1", pix_fmt="bgr0")
        yield path, np.asarray(labels) == row["number"]


def _noisy_views(picture: Maps, rng: np.random.Generator) -> Iterator[av.VideoFrame]:
    """Yield the frames of a camera that moves over a picture, with noise."""
    for index in range(round(SECONDS * RATE)):
        view = picture[:, STEP * index : STEP * index + SIZE[1]]
        noisy = np.clip(view + NOISE * rng.standard_normal(view.shape, np.float32), 0, 255).astype(np.uint8)
        yield av.VideoFrame.from_ndarray(noisy, format="rgb24")


def predicted(path: Path, model: AVSModel, fps: float) -> tuple[Maps, list[int]]:
    """Return the probability of every sample, (T, H, W), and the position of the camera in pixels."""
    predictor, sound = Predictor(model, Options(fps)), open_sound(path, "error")
    samples = list(sample(pictures(path), fps))
    found = []
    for first in range(0, len(samples), predictor.frames):
        part = samples[first : first + predictor.frames]
        inputs, waves = make_clip(part, sound, predictor.size)
        found += predictor.predict(inputs, waves, [time for time, _ in part])
    positions = [STEP * round(picture.time * float(RATE)) for _, picture in samples]
    return np.stack([enlarged(one.probabilities[0], SIZE[::-1]) for one in found]), positions


def smoothed(maps: Maps, weights: tuple[float, ...], positions: list[int] | None = None) -> Maps:
    """Return weighted means over time, centred; with positions, along the motion of the camera."""
    half, result = len(weights) // 2, np.zeros_like(maps)
    for k in range(len(maps)):
        others = [min(max(k + offset, 0), len(maps) - 1) for offset in range(-half, half + 1)]
        for weight, other in zip(weights, others, strict=True):
            moved = 0 if positions is None else positions[other] - positions[k]
            result[k] += np.float32(weight) * _moved(maps[other], moved)
    return result


def _moved(image: Maps, by: int) -> Maps:
    """Return an image whose content moves ``by`` pixels to the right; columns without content repeat the border."""
    columns = np.clip(np.arange(image.shape[1]) - by, 0, image.shape[1] - 1)
    return image[:, columns]


def mixed(maps: Maps) -> Maps:
    """Return the mean of every sample and the smoothed one before it."""
    result = maps.copy()
    for k in range(1, len(maps)):
        result[k] = (maps[k] + result[k - 1]) / 2
    return result


def scores(maps: Maps, positions: list[int], truth: NDArray[np.bool_]) -> tuple[list[float], list[float]]:
    """Return the IoU of neighbouring masks along the motion, and that of masks and ground truth."""
    masks = maps > 0.5
    along = []
    for (a, at), (b, then) in pairwise(zip(masks, positions, strict=True)):
        by = then - at
        one, other = a[:, by:], b[:, : SIZE[1] - by]
        if (one | other).any():
            along.append(float((one & other).sum() / (one | other).sum()))
    right = [_iou(mask, truth[:, at : at + SIZE[1]]) for mask, at in zip(masks, positions, strict=True)]
    return along, [value for value in right if value is not None]


def _iou(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float | None:
    return float((mask & truth).sum() / (mask | truth).sum()) if truth.any() else None


def measure(stock: Path, count: int, rates: list[float]) -> list[dict[str, Any]]:
    """Return one row per rate and kind of smoothing."""
    model = load("small", optimize="exact")
    found: dict[tuple[float, str], list[tuple[list[float], list[float]]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for path, truth in clips(stock, Path(folder), count):
            for fps in rates:
                maps, at = predicted(path, model, fps)
                ways = {
                    "none": maps,
                    "past": mixed(maps),
                    "mean3": smoothed(maps, (0.25, 0.5, 0.25)),
                    "mean5": smoothed(maps, (0.2,) * 5),
                    "mean3 compensated": smoothed(maps, (0.25, 0.5, 0.25), at),
                }
                for name, values in ways.items():
                    found[fps, name].append(scores(values, at, truth))
    return [
        {
            "fps": fps,
            "smoothing": name,
            "consistency": round(float(np.mean([x for along, _ in rows for x in along])), 4),
            "lowest": round(float(np.percentile([x for along, _ in rows for x in along], 5)), 4),
            "j": round(float(np.mean([x for _, right in rows for x in right])), 4),
        }
        for (fps, name), rows in found.items()
    ]


def main(argv: list[str]) -> None:
    """Measure and write."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("stock", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--fps", type=float, nargs="+", default=[1.0, 4.0, 8.0])
    given = parser.parse_args(argv)
    rows = measure(given.stock, given.clips, given.fps)
    words = ["python", "benchmarks/flicker.py", "STOCK", given.out.name, "--clips", str(given.clips)]
    command = shlex.join([*words, "--fps", *(f"{fps:g}" for fps in given.fps)])
    write_result(given.out, provenance(command) | {"config": {"model": "small"}, "numbers": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
