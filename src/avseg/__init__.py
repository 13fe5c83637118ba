"""avseg: audio-visual segmentation. Segment the sounding objects in a video, pixel by pixel.

Submodules are imported on first use, so that ``import avseg`` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avseg import metrics
    from avseg.checkpoints.release import from_release
    from avseg.checkpoints.store import load
    from avseg.errors import AvsegError
    from avseg.fast_paths import optimize
    from avseg.interface import AVSModel, Clip, Prediction, Target
    from avseg.media.live import Live
    from avseg.mel import log_mel
    from avseg.models import build, list_models
    from avseg.pipeline.batch import predict_many
    from avseg.pipeline.predict import predict, stream
    from avseg.pipeline.result import Result
    from avseg.pipeline.rows import RowPredictor
    from avseg.prediction.frame_stream import Options
    from avseg.prediction.sampling import clip_from_video

__all__ = [
    "AVSModel",
    "AvsegError",
    "Clip",
    "Live",
    "Options",
    "Prediction",
    "Result",
    "RowPredictor",
    "Target",
    "build",
    "clip_from_video",
    "from_release",
    "list_models",
    "load",
    "log_mel",
    "metrics",
    "optimize",
    "predict",
    "predict_many",
    "stream",
]

_HOMES = {
    "AVSModel": "interface",
    "AvsegError": "errors",
    "Clip": "interface",
    "Live": "media.live",
    "Options": "prediction.frame_stream",
    "Prediction": "interface",
    "Result": "pipeline.result",
    "RowPredictor": "pipeline.rows",
    "Target": "interface",
    "build": "models",
    "clip_from_video": "prediction.sampling",
    "from_release": "checkpoints.release",
    "list_models": "models",
    "load": "checkpoints.store",
    "log_mel": "mel",
    "optimize": "fast_paths",
    "predict": "pipeline.predict",
    "predict_many": "pipeline.batch",
    "stream": "pipeline.predict",
}


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return import_module("avseg.metrics")
    if name in _HOMES:
        return getattr(import_module(f"avseg.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'avseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
