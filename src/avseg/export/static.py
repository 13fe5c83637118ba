"""The form of a model that is exported: dense, and with shapes that do not depend on values."""

import copy
import dataclasses

from torch import Tensor, nn

from avseg.interface import AVSModel, Clip


class LogitsOnly(nn.Module):
    """A model as a function of tensors, the signature that ``torch.export`` takes.

    Args:
        model: The model, see :func:`static_form`.
    """

    def __init__(self, model: AVSModel) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, frames: Tensor, audio: Tensor) -> Tensor:
        """Return logits (B, T, K, H, W) of the frames and the audio of a :class:`Clip` without padding."""
        logits: Tensor = self.model(Clip(frames, audio)).logits
        return logits


def static_form(model: AVSModel) -> AVSModel:
    """Return a copy on the CPU, in float32 and evaluation mode, whose shapes do not depend on values.

    A model whose ``Config`` has the field ``gather`` is built again with ``gather=False``, which computes all queries
    and has equal logits.
    """
    if "gather" not in type(model).Config.__dataclass_fields__:
        return copy.deepcopy(model).cpu().float().eval()
    static = type(model)(dataclasses.replace(model.config, gather=False), model.classes)
    static.load_state_dict(model.state_dict())
    return static.eval()
