"""Key layout shared by the released checkpoints of TPAVI and of PCMANet, whose code derives from it."""

import re
from collections.abc import Mapping

from torch import Tensor

from avseg.interface import Source
from avseg.nn.visual import VisualBackbone, VisualName, original_source

DEAD_COPY = ("resnet.layer3_2.", "resnet.layer4_2.")
"""Prefixes of a second copy of the last ResNet stages, which is stored and counted in the tables, but never run."""


def visual_of(state: Mapping[str, Tensor]) -> VisualName:
    """Return the name of the visual backbone in a checkpoint."""
    return "resnet50" if any(k.startswith("resnet.") for k in state) else "pvt_v2_b5"


def visual_source(visual: str, key: str) -> Source:
    """Return the location of a tensor of ``model.visual`` in the checkpoint.

    Args:
        visual: Name of the visual backbone.
        key: A key of ``VisualBackbone(visual).state_dict()``.
    """
    original = original_source(visual, key)
    if visual.startswith("pvt"):
        return original._replace(key=f"encoder_backbone.{original.key}")
    return original._replace(key="resnet." + re.sub(r"^(layer[34])\.", r"\1_1.", original.key))


def rows(state: Mapping[str, Tensor], pattern: str, default: int) -> int:
    """Return the number of rows of the first tensor whose key matches, else ``default`` (loading reports its key)."""
    return next((v.shape[0] for k, v in state.items() if re.fullmatch(pattern, k)), default)


def dead_copy(visual: str) -> int:
    """Return the number of parameters of :data:`DEAD_COPY`, which papers count."""
    if not visual.startswith("resnet"):
        return 0
    stages = VisualBackbone(visual).net.encoder.stages
    return sum(p.numel() for stage in stages[2:] for p in stage.parameters())
