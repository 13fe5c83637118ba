"""The visual and the audio encoder of a model, and their settings."""

from dataclasses import dataclass

from avseg.nn.audio import AudioEncoder, AudioName
from avseg.nn.visual import VisualBackbone, VisualName, VisualTraining
from avseg.settings import check_choices


@dataclass(frozen=True)
class EncoderConfig:
    """Settings of the encoders, which all models share.

    Attributes:
        visual: Visual backbone.
        audio: Audio encoder: ``vggish``, ``compact``, ``mobile``, or ``none`` for a model that takes embeddings.
        train_audio: Train the audio encoder; the papers freeze theirs.
        audio_dim: D of the embeddings when ``audio`` is ``none``.
        stereo: Encode two audio channels with the same encoder (ours; VPO has stereo sound).
    """

    visual: VisualName = "resnet50"
    audio: AudioName = "vggish"
    train_audio: bool = False
    audio_dim: int = 128
    stereo: bool = False

    def __post_init__(self) -> None:
        check_choices(self)


def build_encoders(
    config: EncoderConfig, *, training: VisualTraining = "full", scores: bool = False
) -> tuple[VisualBackbone, AudioEncoder]:
    """Return the visual and the audio encoder with random weights.

    Args:
        config: Settings of a model.
        training: Part of the backbone that is trained.
        scores: Add the scores of AudioSet's classes to the audio encoder, see :class:`~avseg.nn.audio.AudioEncoder`.
    """
    visual = VisualBackbone(config.visual, training)
    audio = AudioEncoder(
        config.audio, train=config.train_audio, dim=config.audio_dim, stereo=config.stereo, scores=scores
    )
    return visual, audio
