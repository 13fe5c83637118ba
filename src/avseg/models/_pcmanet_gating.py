"""Gated decoding of PCMANet: compute O_1 at the pixels that are not confident in O_2, and copy O_2 elsewhere.

Ours; the paper computes every output at all pixels. See :mod:`avseg.models.pcmanet` for the symbols.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from avseg.models._pcmanet_parts import AVGA, GF, QSCA, mask_at, resize
from avseg.nn.pixel_rows import conv_rows, grow, rows_of

_DENSE = 0.4
"""Share of pixels that are not confident above which computing all pixels is faster."""


class FinestStage(NamedTuple):
    """Modules of stage 1, which has the largest maps.

    Attributes:
        reduce: Convolution from the map of the backbone to F_1.
        avga: AVGA, from F_1 to V_1; None without it.
        qsca: QSCA, from V_1 to G_1.
        gf: GF, from V_1, level 2 and G_1 to level 1.
        head: Convolutions from level 1 to O_1.
    """

    reduce: nn.Sequential
    avga: AVGA | None
    qsca: QSCA
    gf: GF
    head: nn.Sequential


class ClipAudio(NamedTuple):
    """Audio of the clips.

    Attributes:
        first: A (B, T, C).
        stage: A_1 (B, T, C).
        valid: (B, T) bool; False marks padding frames.
    """

    first: Tensor
    stage: Tensor
    valid: Tensor


def is_sparse(unsure: Tensor) -> bool:
    """Return whether so few pixels are not confident, (N, h, w) bool, that computing only these is faster."""
    return bool(unsure.float().mean() <= _DENSE)


def late_output(
    stage: FinestStage,
    maps: Tensor,
    deeper: Tensor,
    coarse: Tensor,
    unsure: Tensor,
    mask: Tensor | None,
    audio: ClipAudio,
) -> Tensor:
    """Return O_1 (N, K, h, w) with V_1 and G_1 computed near the pixels that are not confident.

    Args:
        stage: The modules, with AVGA.
        maps: The map of the backbone (N, C_1, h, w).
        deeper: Level 2 (N, C, h', w').
        coarse: O_2 (N, K, h', w').
        unsure: (N, h, w) bool, the pixels that are not confident.
        mask: M_1 (N, 1, h', w'); None selects all tokens as queries.
        audio: Audio of the clips.
    """
    assert stage.avga is not None  # PCMANet._late
    near = _near(unsure)
    needed = grow(near)
    frames = near.nonzero()[:, 0]
    reduced = conv_rows(stage.reduce, rows_of(maps, needed), needed, near)
    fused = stage.avga.rows(reduced, audio.first.flatten(0, 1), frames)
    keep = None if mask is None else mask_at(mask, maps.shape)[:, 0][near]
    clips = frames.div(audio.valid.shape[1], rounding_mode="floor")
    guide = stage.qsca.rows(fused, audio.stage, keep, audio.valid, clips)
    return _output_rows(stage, fused, deeper, guide, coarse, near, unsure)


def gated_output(
    stage: FinestStage, fused: Tensor, deeper: Tensor, guide: Tensor, coarse: Tensor, unsure: Tensor
) -> Tensor:
    """Return O_1 (N, K, h, w), computed at the pixels that are not confident and copied from O_2 elsewhere.

    Args:
        stage: The modules.
        fused: V_1 (N, C, h, w).
        deeper: Level 2 (N, C, h', w').
        guide: G_1 (N, C, h, w).
        coarse: O_2 (N, K, h', w').
        unsure: (N, h, w) bool, the pixels that are not confident.
    """
    if not is_sparse(unsure):
        dense: Tensor = stage.head(stage.gf(fused, deeper, guide))
        return torch.where(unsure[:, None], dense, resize(coarse, fused.shape))
    near = _near(unsure)
    return _output_rows(stage, rows_of(fused, near), deeper, rows_of(guide, near), coarse, near, unsure)


def _near(unsure: Tensor) -> Tensor:
    """Return the mask grown three times, by one pixel for each 3 × 3 convolution of GF and head in sequence."""
    return grow(grow(grow(unsure)))


def _output_rows(
    stage: FinestStage,
    fused: Tensor,
    deeper: Tensor,
    guide: Tensor,
    coarse: Tensor,
    near: Tensor,
    unsure: Tensor,
) -> Tensor:
    """Return O_1 (N, K, h, w), computed at the pixels ``unsure`` and copied from O_2 elsewhere.

    Args:
        stage: The modules.
        fused: V_1 at the pixels ``near``, (P, C).
        deeper: Level 2 (N, C, h', w').
        guide: G_1 at the same pixels, (P, C).
        coarse: O_2 (N, K, h', w').
        near: ``_near(unsure)``, (N, h, w) bool.
        unsure: (N, h, w) bool.
    """
    gf = stage.gf
    copied = resize(coarse, near.shape)
    for_head, for_fuse = grow(unsure), grow(grow(unsure))
    total = fused[for_fuse[near]]
    inputs = (gf.deeper, rows_of(resize(deeper, near.shape), near)), (gf.guide, guide)
    for block, rows_near in inputs:
        if block is not None:
            total = total + conv_rows(block, rows_near, near, for_fuse)
    out = conv_rows(stage.head, conv_rows(gf.fuse, total, for_fuse, for_head), for_head, unsure)
    return copied.movedim(1, -1).masked_scatter(unsure.unsqueeze(-1), out.to(copied.dtype)).movedim(-1, 1)
