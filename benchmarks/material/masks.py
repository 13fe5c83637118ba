"""Masks with class numbers: conversion, repair of pseudo-masks, and people in images of objects."""

import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from avseg.errors import DataError

Array = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

BORDER = 255
"""Value of ignored pixels."""
SMALLEST, LARGEST = 0.03, 0.92
"""Shares of the image between which a pseudo-mask is plausible."""
PERSON = 15
"""Class of people in PASCAL VOC."""


def renumber(mask: Array, numbers: dict[int, int]) -> Array:
    """Return a mask whose values are replaced by class numbers; values that are not named become 0."""
    table = np.zeros(256, np.uint8)
    for value, number in numbers.items():
        table[value] = number
    return table[mask]


def plausible(mask: Bools) -> bool:
    """Return whether a pseudo-mask has a plausible area and leaves at least one side of the image free."""
    touching = mask[0].any() and mask[-1].any() and mask[:, 0].any() and mask[:, -1].any()
    return bool(SMALLEST <= mask.mean() <= LARGEST and not touching)


def without_islands(mask: Bools, share: float = 0.05) -> Bools:
    """Return a mask without the components that are smaller than a share of the largest one."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept: Bools = (sizes >= share * sizes.max())[labels] & mask
    return kept


def black_corners(image: Array, darkest: int = 16) -> Bools:
    """Return the black areas that touch the corners of an image, as left by rotating it."""
    labels, _ = ndimage.label(image.max(axis=2) <= darkest)
    corners = {int(labels[y, x]) for y in (0, -1) for x in (0, -1)} - {0}
    found: Bools = ndimage.binary_dilation(np.isin(labels, list(corners)), iterations=2)
    return found


def uncornered(image: Array, mask: Bools) -> tuple[Array, Bools] | None:
    """Fill the black corners of a rotated image with the colours of the nearest background, and unmark them.

    Returns:
        Image and mask, or None when less than 2 % of the image is background.
    """
    black = black_corners(image)
    background = ~black & ~ndimage.binary_dilation(mask, iterations=3)
    if background.mean() < 0.02:
        return None
    y, x = ndimage.distance_transform_edt(~background, return_distances=False, return_indices=True)
    # Blurred, because the nearest pixel of each place makes long streaks.
    smooth = ndimage.gaussian_filter(image[y, x].astype(np.float32), (6, 6, 0))
    return np.where(black[..., None], smooth.round(), image).astype(np.uint8), mask & ~black


@dataclass(frozen=True)
class Saliency:
    """U²-Net (``u2netp.onnx``), which marks the salient object of an image.

    Attributes:
        path: The ONNX file.
    """

    path: Path

    @cached_property
    def session(self) -> Any:
        """Return an onnxruntime session with one thread."""
        runtime = load("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        return runtime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])

    def __call__(self, image: Array) -> Bools:
        """Return the salient pixels of an image that is padded to a square with a margin of 15 %."""
        height, width = image.shape[:2]
        side = round(1.3 * max(height, width))
        top, left = (side - height) // 2, (side - width) // 2
        rows, columns = (top, side - height - top), (left, side - width - left)
        square = np.pad(image, (rows, columns, (0, 0)), mode="edge")
        pixels = np.asarray(Image.fromarray(square).resize((320, 320), Image.Resampling.LANCZOS), np.float32)
        pixels = (pixels / pixels.max() - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        name = self.session.get_inputs()[0].name
        scores = self.session.run(None, {name: pixels.transpose(2, 0, 1)[None].astype(np.float32)})[0][0, 0]
        scores = (scores - scores.min()) / max(float(np.ptp(scores)), 1e-6)
        whole = np.asarray(Image.fromarray(scores).resize((side, side), Image.Resampling.BILINEAR))
        return without_islands(whole[top : top + height, left : left + width] > 0.5)


@dataclass(frozen=True)
class People:
    """DeepLab v3 for PASCAL VOC (``.tflite``), of which only the class person is used.

    Attributes:
        path: The TFLite file.
    """

    path: Path

    @cached_property
    def interpreter(self) -> Any:
        """Return an ai-edge-litert interpreter with one thread."""
        interpreter = load("ai_edge_litert.interpreter").Interpreter(str(self.path), num_threads=1)
        interpreter.allocate_tensors()
        return interpreter

    def __call__(self, image: Array) -> Bools:
        """Return the pixels of people in an image."""
        given, found = self.interpreter.get_input_details()[0], self.interpreter.get_output_details()[0]
        height, width = (int(size) for size in given["shape"][1:3])
        resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        self.interpreter.set_tensor(given["index"], resized[None])
        self.interpreter.invoke()
        person = (self.interpreter.get_tensor(found["index"])[0] == PERSON).astype(np.uint8)
        whole = Image.fromarray(person).resize((image.shape[1], image.shape[0]), Image.Resampling.NEAREST)
        return without_islands(np.asarray(whole) > 0)


def with_person(mask: Array, people: Bools, number: int, *, apart: bool) -> Array | None:
    """Add people to the mask of an object that they hold or ride.

    Args:
        mask: Class numbers.
        people: Pixels of people; fewer than 2 % of the image are not used.
        number: Class number of people.
        apart: True for objects that the person model keeps apart from people, so people count inside the object's mask
            too. Otherwise the people's pixels outside the object's mask are ignored, as the model takes some
            instruments for people.

    Returns:
        The mask; None when people and an object that is not kept apart overlap by more than half of either, as the mask
        is then likely to cover the person too, or the person's pixels the object.
    """
    if people.mean() < 0.02:
        return mask
    inside = people & (mask > 0)
    if not apart and inside.sum() > 0.5 * min(people.sum(), (mask > 0).sum()):
        return None
    if apart:
        return np.where(people, np.uint8(number), mask)
    return np.where(people & ~inside, np.uint8(BORDER), mask)


def load(name: str) -> Any:
    """Import an optional module.

    Raises:
        DataError: When it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0].replace("_", "-")
        raise DataError(f"{package} is not installed, and an option needs it: pip install {package}") from error
