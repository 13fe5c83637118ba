"""Audio encoders: a log-mel patch becomes D numbers.

``vggish`` is the VGG-like network of Hershey et al., arXiv 1609.09430, whose AudioSet weights the field uses
frozen. ``compact`` is ours: small enough to train along and to ship in a package. ``mobile`` has the layout of YAMNet
and scores the classes of AudioSet, see :mod:`avseg.nn.mobile_audio`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from avseg.errors import ConfigError
from avseg.mel import BANDS
from avseg.nn.mobile_audio import MobileAudio

AudioName = Literal["vggish", "compact", "mobile", "none"]

EMBEDDING = 128
"""D of ``vggish`` and ``compact``."""


def _vgg_features(widths: tuple[int | None, ...]) -> nn.Sequential:
    """3×3 convolutions with ReLU; None stands for a 2×2 max pooling."""
    layers: list[nn.Module] = []
    channels = 1
    for width in widths:
        if width is None:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


class VGGish(nn.Module):
    """(N, 1, 96, 64) log-mel → (N, 128), never negative. Key names are those of the public weights."""

    def __init__(self) -> None:
        super().__init__()
        self.features = _vgg_features((64, None, 128, None, 256, 256, None, 512, 512, None))
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 6 * 4, 4096), nn.ReLU(),
            nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, EMBEDDING), nn.ReLU(),
        )  # fmt: skip

    channels, dim = 512, EMBEDDING

    def forward(self, mel: Tensor) -> Tensor:
        """One embedding per patch."""
        return self.embed(self.features(mel))

    def embed(self, maps: Tensor) -> Tensor:
        """(N, 512, 6, 4), flattened time first, channels last → (N, 128)."""
        out: Tensor = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
        return out


class CompactAudio(nn.Module):
    """(N, 1, 96, 64) log-mel → (N, 128) with 0.3 M parameters: four strided convolutions, pooled over time."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm2d(1)]
        channels = 1
        for width in (24, 48, 96, 128):
            layers += [
                nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        self.features = nn.Sequential(*layers)
        self.project = nn.Linear(2 * channels * BANDS // 2**4, EMBEDDING)

    channels, dim = 128, EMBEDDING

    def forward(self, mel: Tensor) -> Tensor:
        """One embedding per patch."""
        return self.embed(self.features(mel))

    def embed(self, maps: Tensor) -> Tensor:
        """(N, 128, 6, 4) → (N, 128). Bands are kept apart: where a sound lies in frequency says what it is."""
        pooled = torch.cat([maps.mean(2), maps.amax(2)], 1)
        out: Tensor = self.project(pooled.flatten(1))
        return out


_Net = VGGish | CompactAudio | MobileAudio


class AudioFeatures(NamedTuple):
    """What an :class:`AudioEncoder` says of a clip.

    Attributes:
        embeddings: (B, T, D).
        maps: (B, T, C, t, f): the same before it was pooled, over time and frequency; 1 × 1 of given embeddings.
    """

    embeddings: Tensor
    maps: Tensor


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norms neither measure nor learn what passes through: for sounds that will not come at inference."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


class AudioEncoder(nn.Module):
    """The audio side of a model: embeds log-mel patches, passes embeddings through.

    Args:
        name: ``vggish``, ``compact``, ``mobile``, or ``none`` for a model that is given embeddings.
        train: Whether its weights learn; otherwise it is frozen, in evaluation mode for good.
        dim: D of the embeddings when ``name`` is ``none``.
        stereo: Hear two channels, each embedded on its own and put side by side: D doubles.
        scores: Train the AudioSet classifier of ``mobile`` too, for models that use :meth:`scores`.
    """

    def __init__(
        self, name: AudioName, *, train: bool, dim: int = EMBEDDING, stereo: bool = False, scores: bool = False
    ) -> None:
        super().__init__()
        encoders: dict[str, type[_Net]] = {"vggish": VGGish, "compact": CompactAudio, "mobile": MobileAudio}
        self.net = encoders[name]() if name in encoders else None
        self.ears = 2 if stereo else 1
        self.dim = dim if self.net is None else self.net.dim * self.ears
        self.channels = dim if self.net is None else self.net.channels * self.ears
        self.learns = train
        self.requires_grad_(train)
        if isinstance(self.net, MobileAudio) and not scores:
            self.net.scores.requires_grad_(False)  # unused parameters would stop distributed training

    def train(self, mode: bool = True) -> "AudioEncoder":
        """Training mode, for an encoder that learns."""
        return super().train(mode and self.learns)

    def forward(self, audio: Tensor) -> Tensor:
        """(B, T, 1, 96, 64) log-mel, (B, T, 2, 96, 64) in stereo, or (B, T, D) embeddings → (B, T, D).

        Raises:
            ConfigError: When there is no encoder for log-mel, or D or the number of channels is another.
        """
        return self._embeddings(audio) if audio.ndim == 3 else self.features(audio).embeddings

    def features(self, audio: Tensor) -> AudioFeatures:
        """The embeddings, and the maps they are pooled from.

        Args:
            audio: As for :meth:`forward`; embeddings alone if there is no encoder.

        Raises:
            ConfigError: As :meth:`forward`, and when embeddings are given to an encoder that would have made the map.
        """
        if audio.ndim == 3:
            if self.net is not None:
                raise ConfigError(
                    f"this model listens to the map of its audio encoder: give log-mel, got {tuple(audio.shape)}"
                )
            return AudioFeatures(self._embeddings(audio), audio[..., None, None])
        if self.net is None:
            raise ConfigError(
                f"this model has no audio encoder: give embeddings (B, T, {self.dim}), or convert it again with "
                "VGGish's weights (avseg convert --vggish FILE)"
            )
        if audio.shape[2] > self.ears:
            raise ConfigError(
                f"this model hears one channel, got {audio.shape[2]}: average them, or build it with stereo=True"
            )
        net, (b, t) = self.net, audio.shape[:2]
        audio = audio.expand(-1, -1, self.ears, -1, -1)  # one channel is heard by both ears
        with torch.set_grad_enabled(self.learns and torch.is_grad_enabled()):
            maps = net.features(audio.flatten(0, 2).unsqueeze(1))
            return AudioFeatures(net.embed(maps).view(b, t, -1), maps.view(b, t, -1, *maps.shape[2:]))

    def scores(self, embeddings: Tensor) -> Tensor:
        """Return the logits of the AudioSet classes, in the order of :func:`avseg.nn.mobile_audio.audioset_classes`.

        Args:
            embeddings: (B, T, D) from :meth:`forward`; in stereo, the mean of the two channels is scored.

        Returns:
            (B, T, 521).

        Raises:
            ConfigError: When the encoder has no classifier, or D is another.
        """
        if not isinstance(self.net, MobileAudio):
            raise ConfigError("this audio encoder does not score AudioSet classes: build the model with audio='mobile'")
        each = self._embeddings(embeddings).unflatten(-1, (self.ears, self.net.dim))
        logits: Tensor = self.net.scores(each.mean(-2))
        return logits

    def _embeddings(self, audio: Tensor) -> Tensor:
        """Given embeddings, if they are as long as the model's."""
        if audio.shape[2] != self.dim:
            raise ConfigError(f"audio embeddings have D = {audio.shape[2]}, this model was built for {self.dim}")
        return audio
