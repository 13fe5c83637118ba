"""avseg: audio-visual segmentation. Mark, pixel by pixel, what sounds in a video."""

from avseg.errors import AvsegError
from avseg.interface import AVSModel, Clip, Prediction, Target
from avseg.mel import log_mel
from avseg.models import build, list_models
from avseg.release import from_release
from avseg.store import load

__all__ = [
    "AVSModel",
    "AvsegError",
    "Clip",
    "Prediction",
    "Target",
    "build",
    "from_release",
    "list_models",
    "load",
    "log_mel",
]
