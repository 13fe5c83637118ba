"""The encoders of a model and their settings."""

import dataclasses

import pytest
import torch

import avseg
from avseg.errors import ConfigError
from avseg.models import list_models, model_class
from avseg.nn.audio import AudioEncoder
from avseg.nn.encoders import EncoderConfig, build_encoders
from avseg.nn.visual import VisualBackbone

CONFIG = EncoderConfig(visual="resnet18", audio="compact", train_audio=True, stereo=True)


def test_encoders_are_those_of_the_settings() -> None:
    torch.manual_seed(0)
    visual, audio = build_encoders(CONFIG, training="frozen")
    torch.manual_seed(0)
    expected = VisualBackbone("resnet18", "frozen"), AudioEncoder("compact", train=True, stereo=True)
    for ours, theirs in zip((visual, audio), expected, strict=True):
        state = theirs.state_dict()
        assert ours.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[key]) for key, value in ours.state_dict().items())
    assert not any(p.requires_grad for p in visual.parameters())
    assert all(p.requires_grad for p in audio.parameters())


def test_dimension_of_embeddings_is_that_of_the_settings() -> None:
    _, audio = build_encoders(EncoderConfig(visual="resnet18", audio="none", audio_dim=7))
    assert audio.dim == 7


@pytest.mark.parametrize("name", list_models())
def test_every_model_has_the_settings_of_the_encoders(name: str) -> None:
    fields = {f.name for f in dataclasses.fields(model_class(name).Config)}
    assert fields >= {f.name for f in dataclasses.fields(EncoderConfig)}


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize(
    ("setting", "value", "closest"), [("audio", "vgish", "vggish"), ("visual", "resnet5", "resnet")]
)
def test_unknown_encoder_is_an_error(name: str, setting: str, value: str, closest: str) -> None:
    with pytest.raises(ConfigError, match=rf"{setting} = '{value}'.*Did you mean '{closest}"):
        avseg.build(name, **{setting: value})
    with pytest.raises(ConfigError, match=rf"{setting} = '{value}'.*Did you mean '{closest}"):
        model_class(name).Config(**{setting: value})
