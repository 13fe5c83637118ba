"""The pictures of a composed clip: whole photographs, mosaics of photographs, and cut-outs before a photograph."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from avseg.interface import IGNORE
from avseg.synthesis.stage import Actor, Camera, Pose, Setting, setting_size
from avseg.synthesis.stock import Stock, StockImage

Kind = Literal["photo", "pair", "mosaic", "paste"]

_SMALLEST = 0.006
"""Part of the picture that an object must cover; smaller ones are ignored in the masks."""
_KEPT = 0.55
"""Part of its main class that a crop of a photograph must keep."""
_LARGEST_SHARE = 0.85
"""Part of the picture that a pasted object may cover in height or width."""


class Layer(NamedTuple):
    """An object in front of the setting.

    Attributes:
        number: Number of the object, from 1.
        image: RGBA.
        pose: Its position and size in the middle of the clip.
        drift: Change of x, y, size and angle from the first frame to the last.
    """

    number: int
    image: Image.Image
    pose: Pose
    drift: tuple[float, float, float, float]


@dataclass
class Composition:
    """Pictures of a clip before the camera.

    Attributes:
        setting: Photographs that fill the picture, with the numbers of the objects in them.
        layers: Objects in front of it.
        classes: Class number of object k + 1.
        moving: Numbers of objects that move while they sound.
        files: Files used.
    """

    setting: Setting
    layers: list[Layer] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    moving: set[int] = field(default_factory=set)
    files: list[str] = field(default_factory=list)


class Composer:
    """Compose the pictures of clips.

    Args:
        stock: Photographs and cut-outs.
        size: Width and height of the pictures.
        weights: Class name → factor of its probability to be shown.
        picture_weights: Beginning of a file's name → factor of its probability among the pictures of its class.
    """

    def __init__(
        self, stock: Stock, size: tuple[int, int], weights: Mapping[str, float], picture_weights: Mapping[str, float]
    ) -> None:
        self.stock, self.size = stock, size
        self.weights, self._picture_weights = weights, picture_weights
        self._photos = self._chances({n: len(p) for n, p in stock.photos.items()})
        self._cutouts = self._chances(
            {n: len(stock.cutouts.get(n, ())) + len(stock.photos.get(n, ())) for n in stock.classes}
        )

    def _chances(self, counts: Mapping[int, int]) -> dict[int, float]:
        """Return class → probability: the root of its pictures, a third of that for classes without sound."""
        weight = {
            n: count**0.5
            * self.weights.get(self.stock.classes[n].name, 1.0)
            * (1.0 if self.stock.sounds_of(n) else 0.33)
            for n, count in counts.items()
            if count
        }
        total = sum(weight.values())
        return {n: w / total for n, w in weight.items()}

    def compose(self, rng: np.random.Generator, kind: Kind) -> Composition:
        """Return the pictures of one clip."""
        width, height = setting_size(self.size)
        scene = Composition(Setting(Image.new("RGB", (width, height)), Image.new("L", (width, height))))
        if kind in ("photo", "paste"):
            self._fill(rng, scene, [(0, 0, width, height)])
        else:
            self._fill(rng, scene, _tiles(rng, width, height, 2 if kind == "pair" else int(rng.integers(2, 5))))
        if kind == "paste":
            self._paste(rng, scene)
        return scene

    def _fill(self, rng: np.random.Generator, scene: Composition, boxes: Sequence[tuple[int, int, int, int]]) -> None:
        """Fill boxes of the setting with photographs of different classes."""
        shown: list[int] = []
        for left, top, right, bottom in boxes:
            number = _pick(rng, self._photos, without=shown)
            photo = self._picture(rng, self.stock.photos[number])
            scene.files.append(photo.file)
            picture, labels = _cropped(rng, self.stock.planes(photo), number, (right - left, bottom - top))
            shown += np.unique(labels).tolist()
            scene.setting.image.paste(picture, (left, top))
            instances = self._numbered(scene, labels)
            if scene.setting.instances is not None:
                scene.setting.instances.paste(Image.fromarray(instances), (left, top))

    def _picture(self, rng: np.random.Generator, pictures: Sequence[StockImage]) -> StockImage:
        """Return one of the pictures of a class."""
        factors = self._picture_weights.items()
        names = [picture.file.rsplit("/", 1)[-1] for picture in pictures]
        weights = np.array([next((f for start, f in factors if name.startswith(start)), 1.0) for name in names])
        return pictures[int(rng.choice(len(pictures), p=weights / weights.sum()))]

    def _numbered(self, scene: Composition, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return labels as numbers of new objects; those too small to see are ignored."""
        table = np.zeros(256, np.uint8)
        table[IGNORE] = IGNORE
        for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
            if label in (0, IGNORE):
                continue
            if count < _SMALLEST * self.size[0] * self.size[1]:
                table[label] = IGNORE
                continue
            scene.classes.append(int(label))
            table[label] = len(scene.classes)
        return table[labels]

    def _paste(self, rng: np.random.Generator, scene: Composition) -> None:
        """Put one to three cut-outs before the setting; sometimes two of one class, of which one moves."""
        twins = rng.random() < 0.2
        count = 2 if twins else int(rng.choice([1, 1, 2, 3]))
        number = 0
        for k in range(count):
            number = number if twins and k else _pick(rng, self._cutouts, without=scene.classes)
            image, file = self._cut(rng, number)
            if image is None:
                continue
            scene.files.append(file)
            scene.classes.append(number)
            place = len(scene.classes)
            scene.layers.append(Layer(place, *self._place(rng, scene, image)))
            if twins:
                scene.moving.add(place)

    def _cut(self, rng: np.random.Generator, number: int) -> tuple[Image.Image | None, str]:
        """Return a cut-out of a class with a soft border and sometimes a shadow."""
        ready, photos = self.stock.cutouts.get(number, ()), self.stock.photos.get(number, ())
        stamp = bool(ready) and (not photos or rng.random() < max(0.35, len(ready) / (len(ready) + len(photos))))
        chosen = self._picture(rng, ready if stamp else photos)
        planes = self.stock.planes(chosen)
        image = Image.fromarray(np.ascontiguousarray(planes), "RGBA") if stamp else _cut_from(rng, planes, number)
        if image is None:
            return None, ""
        image = _coloured(rng, image)
        return (_shadowed(rng, image) if rng.random() < 0.4 else image), chosen.file

    def _place(
        self, rng: np.random.Generator, scene: Composition, image: Image.Image
    ) -> tuple[Image.Image, Pose, tuple[float, float, float, float]]:
        """Return the cut-out, its pose, and its drift; before a person, often where it would be held."""
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        size = float(rng.uniform(0.25, 1.0)) * _LARGEST_SHARE
        x, y = (float(v) for v in rng.uniform(0.15, 0.85, 2))
        person = next((k + 1 for k, c in enumerate(scene.classes[:-1]) if self.stock.classes[c].name == "person"), None)
        if person is not None and scene.setting.instances is not None and rng.random() < 0.7:
            box = scene.setting.instances.point([int(v == person) * 255 for v in range(256)]).getbbox()
            if box is not None:
                x, y, size = _held(rng, box, scene.setting.instances.size)
        moves = 0.0 if rng.random() < 0.5 else 1.0
        dx, dy, growth, turn = (float(v) * moves for v in rng.uniform(-1, 1, 4) * (0.12, 0.08, 0.1, 8.0))
        return image, Pose(x, y, size, float(rng.normal(0, 8))), (dx, dy, growth, turn)

    def render(
        self, rng: np.random.Generator, scene: Composition, sounding: Mapping[int, Sequence[bool]], frames: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the frames (T, H, W, 3) and the number of the object at each pixel (T, H, W).

        Args:
            rng: Source of chance.
            scene: From :meth:`compose`.
            sounding: Number of an object → whether it sounds in each frame.
            frames: T.
        """
        camera = Camera(rng, self.size)
        camera.hold() if rng.random() < 0.4 else None
        finish = _look(rng)
        shots = []
        for k in range(frames):
            part = k / max(1, frames - 1)
            actors = [
                _posed(rng, layer, part, layer.number in scene.moving and sounding[layer.number][k])
                for layer in scene.layers
            ]
            shots.append(camera.shoot(scene.setting, actors, part))
        return np.stack([finish(picture) for picture, _ in shots]), np.stack([instances for _, instances in shots])


def _pick(rng: np.random.Generator, chances: Mapping[int, float], without: Sequence[int]) -> int:
    numbers = [n for n in chances if n not in without] or list(chances)
    weights = np.array([chances[n] for n in numbers])
    return int(rng.choice(numbers, p=weights / weights.sum()))


def _tiles(rng: np.random.Generator, width: int, height: int, count: int) -> list[tuple[int, int, int, int]]:
    """Return two to four boxes that fill a picture, left to right, then top to bottom."""
    x, y = (round(edge * float(rng.uniform(0.4, 0.6))) for edge in (width, height))
    if count == 2:
        sides = [(0, 0, x, height), (x, 0, width, height)]
        return sides if rng.random() < 0.7 else [(0, 0, width, y), (0, y, width, height)]
    top = [(0, 0, x, y), (x, 0, width, y)]
    return [*top, (0, y, width, height)] if count == 3 else [*top, (0, y, x, height), (x, y, width, height)]


def _cropped(
    rng: np.random.Generator, planes: NDArray[np.uint8], number: int, size: tuple[int, int]
) -> tuple[Image.Image, NDArray[np.uint8]]:
    """Return a random part of a photograph that keeps most of its main class, resized to (width, height)."""
    height, width = planes.shape[:2]
    inside = planes[..., 3] == number
    total = max(1, int(inside.sum()))
    box = (0, 0, width, height)
    for _ in range(6):
        share, aspect = float(rng.uniform(0.4, 1.0)), float(np.exp(rng.uniform(-0.35, 0.35)))
        wide = min(width, round((share * width * height * aspect) ** 0.5))
        tall = min(height, round((share * width * height / aspect) ** 0.5))
        left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - tall + 1))
        kept = int(inside[top : top + tall, left : left + wide].sum())
        if kept >= _KEPT * total:
            box = (left, top, left + wide, top + tall)
            break
    picture = Image.fromarray(np.ascontiguousarray(planes[..., :3])).resize(size, Image.Resampling.BILINEAR, box=box)
    labels = Image.fromarray(np.ascontiguousarray(planes[..., 3])).resize(size, Image.Resampling.NEAREST, box=box)
    if rng.random() < 0.5:
        picture, labels = (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in (picture, labels))
    return _coloured(rng, picture), np.asarray(labels)


def _cut_from(rng: np.random.Generator, planes: NDArray[np.uint8], number: int) -> Image.Image | None:
    """Return the pixels of a class, or of one instance of it, as RGBA; None when there are too few."""
    inside = planes[..., 3] == number
    if planes.shape[2] > 4:
        instances = [i for i in np.unique(planes[..., 4][inside]).tolist() if i not in (0, IGNORE)]
        if instances:
            inside = inside & (planes[..., 4] == instances[int(rng.integers(len(instances)))])
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if min(len(rows), len(columns)) < 16:
        return None
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    alpha = Image.fromarray(inside[box].astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(1.0))
    # Half of the blurred border is taken away: it shows the old background.
    alpha = alpha.point([max(0, min(255, 2 * (v - 127))) for v in range(256)])
    image = Image.fromarray(np.ascontiguousarray(planes[(*box, slice(3))]))
    image.putalpha(alpha)
    return image


def _coloured(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Return a picture with another brightness, contrast and saturation; alpha is kept."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    out = image.convert("RGB")
    for enhance, spread in ((ImageEnhance.Brightness, 0.15), (ImageEnhance.Contrast, 0.15), (ImageEnhance.Color, 0.25)):
        out = enhance(out).enhance(float(np.exp(rng.normal(0.0, spread))))
    if alpha is not None:
        out.putalpha(alpha)
    return out


def _shadowed(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Return a cut-out with a soft shadow on one side; the shadow is too faint to count as the object."""
    margin = max(4, max(image.size) // 8)
    canvas = Image.new("L", (image.width + 2 * margin, image.height + 2 * margin))
    shift = tuple(margin + round(float(v) * margin * 0.6) for v in rng.uniform(-1, 1, 2))
    canvas.paste(image.getchannel("A"), (shift[0], shift[1]))
    strength = float(rng.uniform(0.15, 0.45))
    dark = canvas.filter(ImageFilter.GaussianBlur(margin / 3)).point([round(strength * v) for v in range(256)])
    out = Image.new("RGBA", canvas.size)
    out.putalpha(dark)
    out.alpha_composite(image, (margin, margin))
    return out


def _held(
    rng: np.random.Generator, box: tuple[int, int, int, int], size: tuple[int, int]
) -> tuple[float, float, float]:
    """Return x, y and size of an object held by a person of this bounding box, in parts of the picture."""
    left, top, right, bottom = box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1]
    x = (left + right) / 2 + float(rng.normal(0, 0.12)) * (right - left)
    y = top + float(rng.uniform(0.35, 0.9)) * (bottom - top)
    side = max(right - left, bottom - top) * float(rng.uniform(0.35, 1.0))
    return float(np.clip(x, 0.05, 0.95)), float(np.clip(y, 0.05, 0.95)), float(np.clip(side, 0.15, _LARGEST_SHARE))


def _posed(rng: np.random.Generator, layer: Layer, part: float, active: bool) -> Actor:
    """Return the layer where it is when this part of the clip is over; an active one is shaken."""
    shake = rng.normal(0, 1, 3) * (0.02, 0.02, 4.0) * active
    x, y, size, angle = (value + (part - 0.5) * change for value, change in zip(layer.pose, layer.drift, strict=True))
    pose = Pose(x + float(shake[0]), y + float(shake[1]), max(0.1, size), angle + float(shake[2]))
    return Actor(layer.number, layer.image, pose, pose)


def _look(rng: np.random.Generator) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Return the camera and codec of one clip: exposure, blur, noise, compression."""
    gain, lift = float(np.exp(rng.normal(0, 0.12))), float(rng.normal(0, 8))
    tint = np.exp(rng.normal(0, 0.05, 3)).astype(np.float32)
    blur = float(rng.uniform(0.4, 1.4)) if rng.random() < 0.3 else 0.0
    noise = float(rng.uniform(1, 8)) if rng.random() < 0.3 else 0.0
    quality = int(rng.integers(20, 70)) if rng.random() < 0.35 else 0
    grey = rng.random() < 0.03
    table = [np.clip(np.arange(256) * gain * float(t) + lift, 0, 255).astype(np.uint8) for t in tint]

    def finish(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        out = Image.fromarray(np.stack([table[c][picture[..., c]] for c in range(3)], -1))
        if grey:
            out = out.convert("L").convert("RGB")
        if blur:
            out = out.filter(ImageFilter.GaussianBlur(blur))
        if noise:
            noisy = np.asarray(out) + noise * rng.standard_normal((*picture.shape[:2], 1), dtype=np.float32)
            out = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        if quality:
            out.save(buffer := io.BytesIO(), "JPEG", quality=quality)
            out = Image.open(buffer)
        return np.asarray(out)

    return finish
