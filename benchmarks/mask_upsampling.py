"""Measure contours before and after guided upsampling: ``python benchmarks/mask_upsampling.py OUT.json``.

Scenes of 1280 × 720 are composed from pictures of scikit-image: the silhouette of ``skimage.data.horse``, scaled and
rotated at random and filled with one picture, in front of another one, with an antialiased border. So the ground truth
is exact. The probability on the grid of a model, 56 × 56 cells, is simulated in three ways:

- ``area``: the share of each cell that the object covers, the best possible prediction;
- ``blurred``: the same, blurred by 0.8 cells;
- ``displaced``: the contour is displaced by a smooth random field of 12 pixels (root mean square), then blurred.

``texture`` compares soft masks whose probability varies smoothly around 0.8 inside the object: the root mean square of
the difference from the bilinear value more than 30 pixels inside the object, of the fitted values and of those of the
outputs (:func:`avseg.prediction.upsampling.without_texture`). ``band_soft`` is ``band`` of the same above 0.5.

``band`` is the Jaccard index within 12 pixels of the contour of the ground truth, ``frame`` that of the whole frame,
means over scenes. ``milliseconds`` is processor time per frame.
"""

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter, map_coordinates

from avseg.media.images import enlarged
from avseg.prediction.upsampling import guide_size, refined, without_texture
from avseg.provenance import provenance, write_result

SIZE = (720, 1280)
GRID, OUTPUT = (56, 56), (224, 224)
BAND = 12
"""Pixels on both sides of the contour."""
SCENES = 8
Mask = NDArray[np.bool_]
Maps = NDArray[np.float32]


def pictures() -> list[NDArray[np.uint8]]:
    """Return pictures of (720, 1280, 3)."""
    names = ("astronaut", "chelsea", "coffee", "rocket", "camera", "grass", "brick", "gravel")
    return [_covering(Image.fromarray(getattr(skimage.data, name)()).convert("RGB")) for name in names]


def _covering(picture: Image.Image) -> NDArray[np.uint8]:
    factor = max(SIZE[1] / picture.width, SIZE[0] / picture.height)
    width, height = (max(whole, round(n * factor)) for n, whole in zip(picture.size, SIZE[::-1], strict=True))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))[: SIZE[0], : SIZE[1]]


def scenes(count: int) -> Iterator[tuple[Mask, NDArray[np.uint8], np.random.Generator]]:
    """Yield ground truth and picture of scenes, with the generator of their random numbers."""
    rng, shown = np.random.default_rng(0), pictures()
    silhouette = skimage.data.horse()  # type: ignore[no-untyped-call]
    horse = Image.fromarray(np.where(silhouette, 0, 255).astype(np.uint8))
    for _ in range(count):
        mask = _placed(horse, rng)
        front, back = rng.choice(len(shown), 2, replace=False)
        share = gaussian_filter(mask.astype(np.float32), 1.0)[..., None]
        yield mask, (shown[front] * share + shown[back] * (1 - share)).astype(np.uint8), rng


def _placed(silhouette: Image.Image, rng: np.random.Generator) -> Mask:
    scale = rng.uniform(0.5, 0.9) * SIZE[0] / silhouette.height
    size = round(silhouette.width * scale * rng.uniform(0.8, 1.2)), round(silhouette.height * scale)
    turned = silhouette.resize(size, Image.Resampling.BILINEAR).rotate(rng.uniform(-25, 25), expand=True)
    frame = Image.new("L", SIZE[::-1])
    room = (max(1, SIZE[1] - turned.width), max(1, SIZE[0] - turned.height))
    frame.paste(turned, (int(rng.integers(room[0])), int(rng.integers(room[1]))))
    return np.asarray(frame) > 127


def predicted(mask: Mask, kind: str, rng: np.random.Generator) -> Maps:
    """Return the simulated output of a model, (1, 224, 224)."""
    values = mask.astype(np.float32)
    if kind == "displaced":
        rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
        values = map_coordinates(values, [rows + _smooth(rng), columns + _smooth(rng)], order=1, mode="nearest")
    grid = np.asarray(Image.fromarray(values).resize(GRID[::-1], Image.Resampling.BOX))
    if kind != "area":
        grid = gaussian_filter(grid, 0.8)
    return enlarged(grid, OUTPUT)[None]


def _smooth(rng: np.random.Generator) -> Maps:
    field = gaussian_filter(rng.standard_normal((90, 160)).astype(np.float32), 5)
    return enlarged(field * np.float32(12 / field.std()), SIZE[::-1])


def jaccard(found: Mask, truth: Mask) -> float:
    """Return the intersection over the union."""
    return float((found & truth).sum() / (found | truth).sum())


def bilinear(probability: Maps, _: NDArray[np.uint8]) -> Mask:
    """Return the mask before: enlarged bilinearly."""
    return enlarged(probability[0], SIZE[::-1]) > 0.5


def guided(probability: Maps, image: NDArray[np.uint8]) -> Mask:
    """Return the mask after: enlarged along the edges of the picture."""
    guide = np.asarray(Image.fromarray(image).resize(guide_size(SIZE)[::-1], Image.Resampling.BILINEAR))
    return enlarged(refined(probability, guide)[0], SIZE[::-1]) > 0.5


def texture(count: int) -> dict[str, float]:
    """Return the texture of the picture in soft masks, and their Jaccard index in the band."""
    rows = []
    noise = gaussian_filter(np.random.default_rng(1).standard_normal((14, 14)).astype(np.float32), 1)
    level = np.float32(0.8) + np.float32(0.1) * enlarged(noise, OUTPUT)
    for mask, image, rng in scenes(count):
        inside = binary_erosion(mask, iterations=30)
        band = binary_dilation(mask, iterations=BAND) & ~binary_erosion(mask, iterations=BAND)
        small = predicted(mask, "blurred", rng) * level
        guide = np.asarray(Image.fromarray(image).resize(guide_size(SIZE)[::-1], Image.Resampling.BILINEAR))
        plain, fitted = enlarged(small[0], guide.shape[1::-1]), refined(small, guide)[0]
        for name, found in (("fitted", fitted), ("outputs", without_texture(fitted, plain, 0.5))):
            whole, smooth = enlarged(found, SIZE[::-1]), enlarged(small[0], SIZE[::-1])
            error = float(np.sqrt(np.mean((whole - smooth)[inside] ** 2)))
            rows.append((name, error, jaccard((whole > 0.5) & band, mask & band)))
    return {
        f"{measure}_{name}": round(float(np.mean([row[k] for row in rows if row[0] == name])), 4)
        for name in ("fitted", "outputs")
        for k, measure in ((1, "texture"), (2, "band_soft"))
    }


def measure(count: int) -> dict[str, Any]:
    """Return kind of prediction → method → means over the scenes."""
    methods: dict[str, Callable[[Maps, NDArray[np.uint8]], Mask]] = {"bilinear": bilinear, "guided": guided}
    found: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for mask, image, rng in scenes(count):
        band = binary_dilation(mask, iterations=BAND) & ~binary_erosion(mask, iterations=BAND)
        for kind in ("area", "blurred", "displaced"):
            probability = predicted(mask, kind, rng)
            for name, method in methods.items():
                started = time.process_time()
                result = method(probability, image)
                spent = 1000 * (time.process_time() - started)
                scores = (jaccard(result & band, mask & band), jaccard(result, mask), spent)
                found.setdefault(kind, {}).setdefault(name, []).append(scores)
    keys = ("band", "frame", "milliseconds")
    return {
        kind: {
            name: dict(zip(keys, (round(float(x), 4) for x in np.mean(rows, 0)), strict=True))
            for name, rows in rows_of.items()
        }
        for kind, rows_of in found.items()
    }


def main(out: str) -> None:
    """Measure and write."""
    command = shlex.join(["python", "benchmarks/mask_upsampling.py", out])
    config = {"scenes": SCENES, "size": list(SIZE), "grid": list(GRID), "band": BAND, "pictures": "scikit-image"}
    write_result(
        Path(out), provenance(command) | {"config": config, "numbers": measure(SCENES), "soft_masks": texture(SCENES)}
    )


if __name__ == "__main__":
    main(sys.argv[1])
