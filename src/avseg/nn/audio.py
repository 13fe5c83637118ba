"""Audio encoders, from log-mel patches to embeddings of D numbers.

``vggish`` is the VGG-like network of Hershey et al., arXiv 1609.09430, which audio-visual segmentation papers use with
frozen AudioSet weights. ``compact`` is ours, small enough to be trained with the model and shipped in a package.
``mobile`` has the layout of YAMNet and scores the classes of AudioSet, see :mod:`avseg.nn.mobile_audio`.
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
    """Build 3×3 convolutions with ReLU; None stands for a 2×2 max pooling."""
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
    """VGGish: log-mel (N, 1, 96, 64) → embedding (N, 128), never negative. Keys are those of the public weights."""

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
        """Return the embedding (N, 128) of each patch."""
        return self.embed(self.features(mel))

    def embed(self, maps: Tensor) -> Tensor:
        """Map (N, 512, 6, 4) to (N, 128); maps are flattened in the order time, frequency, channels."""
        out: Tensor = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
        return out


class CompactAudio(nn.Module):
    """Log-mel (N, 1, 96, 64) → embedding (N, 128): four strided convolutions, pooled over time; 0.3 M parameters."""

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
        """Return the embedding (N, 128) of each patch."""
        return self.embed(self.features(mel))

    def embed(self, maps: Tensor) -> Tensor:
        """Map (N, 128, 6, 4) to (N, 128). Frequency bands are not pooled, because they distinguish sounds."""
        pooled = torch.cat([maps.mean(2), maps.amax(2)], 1)
        out: Tensor = self.project(pooled.flatten(1))
        return out


_Net = VGGish | CompactAudio | MobileAudio


class AudioFeatures(NamedTuple):
    """Outputs of an :class:`AudioEncoder`.

    Attributes:
        embeddings: (B, T, D).
        maps: (B, T, C, t, f), features over time and frequency before pooling; 1 × 1 if the clip has embeddings.
    """

    embeddings: Tensor
    maps: Tensor


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Use batch norms in evaluation mode, so that inputs that do not occur at inference do not change statistics."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


class AudioEncoder(nn.Module):
    """Audio encoder of a model: embeds log-mel patches, and returns given embeddings unchanged.

    Args:
        name: ``vggish``, ``compact``, ``mobile``, or ``none`` for a model that takes embeddings.
        train: Train the weights; otherwise the encoder is frozen and stays in evaluation mode.
        dim: D of the embeddings when ``name`` is ``none``.
        stereo: Embed two channels separately and concatenate the embeddings, which doubles D.
        scores: Train the AudioSet classifier of ``mobile`` too, for models that use :meth:`scores`.

    Attributes:
        dim: D of the embeddings.
        channels: C of the maps.
        audio_channels: 1, or 2 in stereo.
        trainable: True if the weights are trained.
    """

    def __init__(
        self, name: AudioName, *, train: bool, dim: int = EMBEDDING, stereo: bool = False, scores: bool = False
    ) -> None:
        super().__init__()
        encoders: dict[str, type[_Net]] = {"vggish": VGGish, "compact": CompactAudio, "mobile": MobileAudio}
        self.net = encoders[name]() if name in encoders else None
        self.audio_channels = 2 if stereo else 1
        self.dim = dim if self.net is None else self.net.dim * self.audio_channels
        self.channels = dim if self.net is None else self.net.channels * self.audio_channels
        self.trainable = train
        self.requires_grad_(train)
        if isinstance(self.net, MobileAudio) and not scores:
            self.net.scores.requires_grad_(False)  # unused parameters would stop distributed training
        self.train()  # here, because Lightning keeps the mode it finds: batch norms of a frozen encoder must not update

    def train(self, mode: bool = True) -> "AudioEncoder":
        """Set training mode; a frozen encoder stays in evaluation mode."""
        return super().train(mode and self.trainable)

    def forward(self, audio: Tensor) -> Tensor:
        """Return embeddings (B, T, D).

        Args:
            audio: Log-mel (B, T, 1, 96, 64), in stereo (B, T, 2, 96, 64), or embeddings (B, T, D).

        Raises:
            ConfigError: When there is no encoder for log-mel, or D or the number of channels does not match.
        """
        return self._embeddings(audio) if audio.ndim == 3 else self.features(audio).embeddings

    def features(self, audio: Tensor) -> AudioFeatures:
        """Return the embeddings, and the maps before pooling.

        Args:
            audio: As for :meth:`forward`; with an encoder it must be log-mel.

        Raises:
            ConfigError: As for :meth:`forward`, and when embeddings are given to a model with an encoder.
        """
        if audio.ndim == 3:
            if self.net is not None:
                raise ConfigError(
                    f"this model uses the feature maps of its audio encoder: give log-mel, got {tuple(audio.shape)}"
                )
            return AudioFeatures(self._embeddings(audio), audio[..., None, None])
        if self.net is None:
            raise ConfigError(
                f"this model has no audio encoder: give embeddings (B, T, {self.dim}), or convert it again with "
                "VGGish's weights (avseg convert --vggish FILE)"
            )
        if audio.shape[2] > self.audio_channels:
            raise ConfigError(
                f"this model takes one audio channel, got {audio.shape[2]}: average them, or build it with stereo=True"
            )
        net, (b, t) = self.net, audio.shape[:2]
        audio = audio.expand(-1, -1, self.audio_channels, -1, -1)  # mono is used for both channels of stereo
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            maps = net.features(audio.flatten(0, 2).unsqueeze(1))
            return AudioFeatures(net.embed(maps).view(b, t, -1), maps.reshape(b, t, -1, *maps.shape[2:]))

    def scores(self, embeddings: Tensor) -> Tensor:
        """Return the logits of the AudioSet classes, in the order of :func:`avseg.nn.mobile_audio.audioset_classes`.

        Args:
            embeddings: (B, T, D) from :meth:`forward`; in stereo, the mean of the two channels is scored.

        Returns:
            (B, T, 521).

        Raises:
            ConfigError: When the encoder has no classifier, or D does not match.
        """
        if not isinstance(self.net, MobileAudio):
            raise ConfigError("this audio encoder does not score AudioSet classes: build the model with audio='mobile'")
        each = self._embeddings(embeddings).unflatten(-1, (self.audio_channels, self.net.dim))
        logits: Tensor = self.net.scores(each.mean(-2))
        return logits

    def _embeddings(self, audio: Tensor) -> Tensor:
        """Return given embeddings after a check of their D."""
        if audio.shape[2] != self.dim:
            raise ConfigError(f"audio embeddings have D = {audio.shape[2]}, this model was built for {self.dim}")
        return audio
