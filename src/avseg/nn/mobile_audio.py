"""A small audio network with the layout of YAMNet, and the classes of AudioSet it scores.

Source of the layout: YAMNet (Google, Apache-2.0, tensorflow/models), which is MobileNet v1 (Howard et al., arXiv
1704.04861) on log-mel patches, trained on AudioSet (Gemmeke et al., 2017). The last pointwise convolution has 512
channels here, 1024 there. The distributed weights start from the dequantised weights of YAMNet and are then distilled
from it by ``benchmarks/distill_audio.py``.
"""

from functools import cache
from importlib.resources import files

from torch import Tensor, nn

from avseg.mel import OFFSET

AUDIOSET_CLASSES = 521
"""Number of AudioSet classes that YAMNet scores."""

_YAMNET_OFFSET = 0.001
_STEM = 32
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2))
"""Channels and stride of all depthwise-separable blocks but the last."""


@cache
def audioset_classes() -> tuple[str, ...]:
    """Return the display names of the 521 AudioSet classes in the order of the scores.

    Source: ``yamnet_class_map.csv`` of YAMNet.
    """
    text = files("avseg").joinpath("nn", "audioset_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


class YamnetLogMel(nn.Module):
    """Convert log(mel + 0.01) of :mod:`avseg.mel` to log(mel + 0.001), the input of YAMNet."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the converted patch, of the same shape and dtype."""
        # In 16 bits, exp(x) - 0.01 would have no correct digit for quiet sounds.
        mel = (x.float().exp() - OFFSET).clamp(min=0)
        return (mel + _YAMNET_OFFSET).log().to(x.dtype)


def _convolution(inputs: int, outputs: int, size: int, stride: int, groups: int = 1) -> list[nn.Module]:
    """Convolution with bias and ReLU, padded as TensorFlow's SAME: at stride 2, after the last row and column only."""
    padding = size // 2 if stride == 1 else 0
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding, groups=groups)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    before: list[nn.Module] = [nn.ZeroPad2d((0, 1, 0, 1))] if stride == 2 else []
    return [*before, convolution, nn.ReLU()]


class MobileAudio(nn.Module):
    """Depthwise-separable CNN: (N, 1, 96, 64) log-mel → (N, 512) embedding, never negative.

    Batch normalisation is folded into the convolutions, as in the published weights of YAMNet. The 512-channel network
    has 2.9 M parameters, the classifier included.

    Args:
        dim: Size of the embedding; 1024 is YAMNet itself.

    Attributes:
        features: Log-mel patches → maps (N, dim, 3, 2), time before frequency.
        scores: Linear classifier, embedding (N, dim) → logits (N, 521) of :func:`audioset_classes`.
    """

    def __init__(self, dim: int = 512) -> None:
        super().__init__()
        self.dim = self.channels = dim
        layers: list[nn.Module] = [YamnetLogMel(), *_convolution(1, _STEM, 3, 2)]
        inputs = _STEM
        for outputs, stride in (*_BLOCKS, (dim, 1)):
            layers += _convolution(inputs, inputs, 3, stride, groups=inputs)
            layers += _convolution(inputs, outputs, 1, 1)
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.scores = nn.Linear(dim, AUDIOSET_CLASSES)

    def forward(self, mel: Tensor) -> Tensor:
        """Return the embedding (N, dim) of each patch."""
        return self.embed(self.features(mel))

    def embed(self, maps: Tensor) -> Tensor:
        """Return the mean over time and frequency: (N, dim, t, f) → (N, dim)."""
        return maps.mean((2, 3))

    def convolutions(self) -> list[nn.Conv2d]:
        """Return the convolutions in order: the stem, then depthwise and pointwise of each block."""
        return [layer for layer in self.features if isinstance(layer, nn.Conv2d)]
