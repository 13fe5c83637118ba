"""Make the pictures of docs/outputs.md: one of each output of the example video.

Run ``python examples/output_pictures.py docs/images/outputs`` in the root of the repository. The bundled model predicts
``portrait_and_cat.mp4``; every picture is made from the files that ``result.save`` writes.
"""

import json
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from matplotlib.font_manager import findfont
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import avseg
from avseg.colours import palette
from avseg.media.video import pictures_at

VIDEO = Path(__file__).with_name("portrait_and_cat.mp4")
SECOND = 2.0
"""Time of the frame that is shown: the portrait speaks."""
FRAME = 50
"""Index of the same frame."""
SIZE = (480, 270)
"""Width and height of a picture."""


def shown(path: Path) -> Image.Image:
    """Return the frame of a video."""
    return Image.fromarray(next(pictures_at(path, [SECOND])))


def on_checkerboard(image: Image.Image) -> Image.Image:
    """Return an image with alpha on grey squares."""
    rows, columns = np.mgrid[: image.height, : image.width] // 16
    squares = np.where((rows + columns) % 2, np.uint8(205), np.uint8(245))
    ground = Image.fromarray(squares).convert("RGBA")
    return Image.alpha_composite(ground, image).convert("RGB")


def with_alpha(folder: Path) -> Image.Image:
    """Return the frame of alpha.mov."""
    with av.open(str(folder / "alpha.mov")) as container:
        frame = next(islice(container.decode(video=0), FRAME, None))
        return on_checkerboard(Image.fromarray(frame.to_ndarray(format="rgba")))


def outlined(folder: Path, polygons: list[list[list[float]]], points: bool) -> Image.Image:
    """Return the frame of the output frames with polygons."""
    with Image.open(folder / f"frames/{FRAME:06d}.png") as frame:
        image = frame.convert("RGB")
    draw, colour = ImageDraw.Draw(image), tuple(palette(2)[1].tolist())
    for polygon in polygons:
        corners = [(x, y) for x, y in polygon]
        draw.line([*corners, corners[0]], fill=colour, width=3)
        for x, y in corners if points else ():
            draw.rectangle((x - 3, y - 3, x + 3, y + 3), fill="white", outline=colour)
    return image


def coco(folder: Path) -> Image.Image:
    """Return the polygons of coco_polygons.json."""
    annotations = json.loads((folder / "coco_polygons.json").read_text())["annotations"]
    found = [
        np.reshape(flat, (-1, 2)).tolist()
        for annotation in annotations
        if annotation["image_id"] == FRAME
        for flat in annotation["segmentation"]
    ]
    return outlined(folder, found, points=False)


def labelme(folder: Path) -> Image.Image:
    """Return the polygons of labelme/000050.json."""
    shapes = json.loads((folder / f"labelme/{FRAME:06d}.json").read_text())["shapes"]
    return outlined(folder, [shape["points"] for shape in shapes], points=True)


def text(contents: Mapping[str, str], lines: int) -> Image.Image:
    """Return an image of the first lines of text files: name → content."""
    image = Image.new("RGB", (2 * SIZE[0], 2 * SIZE[1]), "white")
    draw, top, size = ImageDraw.Draw(image), 20, 20
    font = ImageFont.truetype(findfont("DejaVu Sans Mono"), size)
    for name, content in contents.items():
        draw.text((24, top), name, "#767676", font)
        for line in content.splitlines()[:lines]:
            top += round(1.4 * size)
            draw.text((24, top), line, "black", font)
        top += 2 * size
    return image


def files(folder: Path, *names: str, lines: int = 7) -> Image.Image:
    """Return an image of the first lines of text files of the outputs."""
    return text({name: (folder / name).read_text(encoding="utf-8") for name in names}, lines)


def document(folder: Path) -> Image.Image:
    """Return an image of result.json, indented, with the first region of the frame; long strings are cut."""
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    frame = content["frames"][FRAME]
    excerpt = {key: content[key] for key in ("format", "size", "class_names", "end")}
    excerpt["intervals"] = [*content["intervals"][:1], "…"]
    excerpt["frames"] = ["…", {**frame, "regions": frame["regions"][:1]}, "…"]
    return text({"result.json": re.sub(r'([^"]{28})[^"]{20,}', r"\1…", pretty(excerpt))}, lines=30)


def pretty(value: Any, depth: int = 0) -> str:
    """Return JSON with one line per key, and short values on one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) < 60 or not isinstance(value, dict | list):
        return line
    pairs = value.items() if isinstance(value, dict) else [(None, item) for item in value]
    indent = "  " * (depth + 1)
    rows = [indent + ("" if key is None else f'"{key}": ') + pretty(item, depth + 1) for key, item in pairs]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(rows) + f"\n{indent[2:]}{closing}"


def subtitled(folder: Path) -> Image.Image:
    """Return the frame with its subtitle of intervals.srt, as a player shows it."""
    image = shown(VIDEO)
    cue = (folder / "intervals.srt").read_text().split("\n\n")[0].splitlines()
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(36)
    draw.text((image.width // 2, image.height - 30), cue[2], "white", font, "mm", stroke_width=3, stroke_fill="black")
    return image


def probabilities(folder: Path) -> Image.Image:
    """Return the probabilities in result.npz."""
    with np.load(folder / "result.npz") as data:
        values: NDArray[np.uint8] = data["probability"][FRAME]
    return Image.fromarray(values).resize((2 * SIZE[0], 2 * SIZE[1]), Image.Resampling.NEAREST).convert("RGB")


def opened(path: Path) -> Image.Image:
    """Return an image file as RGB, one with alpha on a checkerboard."""
    with Image.open(path) as image:
        return on_checkerboard(image) if image.mode == "RGBA" else image.convert("RGB")


PICTURES: dict[str, Callable[[Path], Image.Image]] = {
    "overlay": lambda folder: shown(folder / "overlay.mp4"),
    "masks": lambda folder: opened(folder / f"masks/{FRAME:06d}.png"),
    "summary": lambda folder: opened(folder / "summary.png"),
    "json": document,
    "frames": lambda folder: opened(folder / f"frames/{FRAME:06d}.png"),
    "matte": lambda folder: shown(folder / "matte.mp4"),
    "alpha": with_alpha,
    "cutout": lambda folder: opened(folder / f"cutout/{FRAME:06d}.png"),
    "redact": lambda folder: shown(folder / "redact.mp4"),
    "coco": coco,
    "labelme": labelme,
    "csv": lambda folder: files(folder, "intervals.csv", "regions.csv"),
    "srt": subtitled,
    "edl": lambda folder: files(folder, "intervals.edl", lines=12),
    "npz": probabilities,
}


def main(out: str) -> None:
    """Predict, save, and write the pictures."""
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as parent:
        outputs = {name: {"mode": "pixelate"} if name == "redact" else {} for name in PICTURES}
        folder = avseg.predict(VIDEO, progress=True).save(Path(parent) / "out", outputs)
        for name, picture in PICTURES.items():
            image = picture(folder)
            image.thumbnail((640, 480) if name == "summary" else SIZE, Image.Resampling.LANCZOS)
            image.save(target / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    main(sys.argv[1])
