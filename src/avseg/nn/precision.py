"""Where 16 bits are too few."""

import torch
from torch import Tensor


def full_precision(like: Tensor) -> torch.autocast:
    """A context in which nothing is computed with fewer bits than it has, on the device of a tensor."""
    return torch.autocast(like.device.type, enabled=False)
