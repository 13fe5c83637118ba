"""Visual backbones: from images to four feature maps at strides 4, 8, 16, 32.

ResNet (He et al., arXiv 1512.03385), PVT-v2 (Wang et al., arXiv 2106.13797) and Swin (Liu et al., arXiv 2103.14030)
of transformers; EfficientNet-Lite0 (Tan and Le, arXiv 1905.11946) of :mod:`avseg.nn.efficientnet`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from avseg.errors import ConfigError, did_you_mean
from avseg.interface import Source
from avseg.nn.efficientnet import EfficientNetLite0, original_key
from avseg.nn.keys import rename

VisualName = Literal[
    "resnet18", "resnet34", "resnet50", "resnet101",
    "pvt_v2_b0", "pvt_v2_b1", "pvt_v2_b2", "pvt_v2_b3", "pvt_v2_b4", "pvt_v2_b5",
    "swin_tiny", "swin_base",
    "efficientnet_lite0",
]  # fmt: skip

VisualTraining = Literal["full", "fixed_norm", "deep", "frozen"]
"""Trained parts of a backbone: ``full``, all of it; ``fixed_norm``, all but the statistics of its batch norms;
``deep``, of the latter only the stages with strides 16 and 32; ``frozen``, nothing."""

_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_DROP_PATH = 0.1
_PVT_SMALLEST = 29
"""Smallest height and width for PVT-v2: its first stage reduces a map of stride 4 by a kernel of 8 x 8."""


@dataclass(frozen=True)
class _Recipe:
    """Settings of one backbone and the source of its ImageNet weights."""

    hub: str
    settings: Mapping[str, Any]


def _resnet(hub: str, depths: list[int], bottleneck: bool) -> _Recipe:
    sizes = [256, 512, 1024, 2048] if bottleneck else [64, 128, 256, 512]
    kind = "bottleneck" if bottleneck else "basic"
    return _Recipe(hub, {"depths": depths, "hidden_sizes": sizes, "layer_type": kind})


def _pvt(hub: str, depths: list[int], narrow: bool = False, wide_mlp: bool = True) -> _Recipe:
    sizes = [32, 64, 160, 256] if narrow else [64, 128, 320, 512]
    mlp = [8, 8, 4, 4] if wide_mlp else [4, 4, 4, 4]
    return _Recipe(hub, {"depths": depths, "hidden_sizes": sizes, "mlp_ratios": mlp, "drop_path_rate": _DROP_PATH})


def _swin(hub: str, depths: list[int], width: int, heads: list[int]) -> _Recipe:
    return _Recipe(hub, {"depths": depths, "embed_dim": width, "num_heads": heads, "drop_path_rate": _DROP_PATH})


_RECIPES: dict[str, _Recipe] = {
    "resnet18": _resnet("microsoft/resnet-18", [2, 2, 2, 2], bottleneck=False),
    "resnet34": _resnet("microsoft/resnet-34", [3, 4, 6, 3], bottleneck=False),
    "resnet50": _resnet("microsoft/resnet-50", [3, 4, 6, 3], bottleneck=True),
    "resnet101": _resnet("microsoft/resnet-101", [3, 4, 23, 3], bottleneck=True),
    "pvt_v2_b0": _pvt("OpenGVLab/pvt_v2_b0", [2, 2, 2, 2], narrow=True),
    "pvt_v2_b1": _pvt("OpenGVLab/pvt_v2_b1", [2, 2, 2, 2]),
    "pvt_v2_b2": _pvt("OpenGVLab/pvt_v2_b2", [3, 4, 6, 3]),
    "pvt_v2_b3": _pvt("OpenGVLab/pvt_v2_b3", [3, 4, 18, 3]),
    "pvt_v2_b4": _pvt("OpenGVLab/pvt_v2_b4", [3, 8, 27, 3]),
    "pvt_v2_b5": _pvt("OpenGVLab/pvt_v2_b5", [3, 6, 40, 3], wide_mlp=False),
    "swin_tiny": _swin("microsoft/swin-tiny-patch4-window7-224", [2, 2, 6, 2], 96, [3, 6, 12, 24]),
    "swin_base": _swin("microsoft/swin-base-patch4-window7-224", [2, 2, 18, 2], 128, [4, 8, 16, 32]),
    "efficientnet_lite0": _Recipe("efficientnet_lite0", {}),
}


Between = Callable[[int, Tensor], Tensor]
"""Replaces the map (N, C_i, h_i, w_i) of stage i = 1..4, for the next stage and for the caller."""


class VisualBackbone(nn.Module):
    """Visual backbone with four feature maps and random weights; reads no file.

    Args:
        name: One of :data:`VisualName`.
        training: Trained parts. Batch norms with fixed statistics stay in evaluation mode.

    Attributes:
        channels: Channels of the maps at strides 4, 8, 16, 32.
        hub: Source of the ImageNet weights for :func:`avseg.checkpoints.pretrained.load_visual`: a Hub id, or for
            EfficientNet-Lite0 the name of an installed package's weights.
    """

    def __init__(self, name: str, training: VisualTraining = "full") -> None:
        super().__init__()
        if name not in _RECIPES:
            raise ConfigError(f"unknown visual backbone {name!r}. {did_you_mean(name, _RECIPES)}")
        recipe = _RECIPES[name]
        self.hub = recipe.hub
        settings: dict[str, Any] = {**recipe.settings, "out_features": _STAGES}
        self.net: Any
        self._walk: Callable[[Any, Tensor, Between], Iterator[Tensor]]
        if name == "efficientnet_lite0":
            self.net, self._walk = EfficientNetLite0(), EfficientNetLite0.walk
        elif name.startswith("resnet"):
            from transformers import ResNetBackbone, ResNetConfig  # takes 3 s, which efficientnet_lite0 does not need

            self.net, self._walk = ResNetBackbone(ResNetConfig(**settings)), _walk_resnet
        elif name.startswith("pvt"):
            from transformers import PvtV2Backbone, PvtV2Config

            self.net, self._walk = PvtV2Backbone(PvtV2Config(**settings)), _walk_pvt
            _original_epsilons(self.net)
        else:
            from transformers import SwinBackbone, SwinConfig

            self.net, self._walk = SwinBackbone(SwinConfig(**settings)), _walk_swin
            # Each stage has its own norm; the last norm, of the classifier, would never receive a gradient.
            self.net.swin.layernorm = nn.Identity()
        self.channels: tuple[int, ...] = tuple(self.net.channels)
        self._kind = training
        self.requires_grad_(training != "frozen")
        if training == "deep":
            for module in _early(name, self.net):
                module.requires_grad_(False)
        self.train()  # here, because Lightning keeps the mode it finds: fixed batch norms must not update

    def train(self, mode: bool = True) -> "VisualBackbone":
        """Set training mode, for the parts of the backbone that are trained."""
        super().train(mode and self._kind != "frozen")
        if self._kind in ("fixed_norm", "deep"):
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, frames: Tensor, between: Between | None = None) -> tuple[Tensor, ...]:
        """Return four maps (N, C_i, H / 2^(i+1), W / 2^(i+1)) of normalised images (N, 3, H, W), shallowest first.

        Args:
            frames: N images.
            between: Replaces the map of each stage before the next stage; for Swin, the map before the stage's norm.

        Raises:
            ConfigError: When the images are smaller than the first attention window of PVT-v2.
        """
        if self._walk is _walk_pvt and min(frames.shape[-2:]) < _PVT_SMALLEST:
            raise ConfigError(
                f"PVT-v2 needs images of {_PVT_SMALLEST} x {_PVT_SMALLEST} pixels or more, got "
                f"{' x '.join(map(str, frames.shape[-2:]))}: enlarge them (--data.size)"
            )
        if between is None:
            out = self.net(frames)
            maps: tuple[Tensor, ...] = out if isinstance(out, tuple) else out.feature_maps
            return maps
        return tuple(self._walk(self.net, frames, between))


def _early(name: str, net: Any) -> list[nn.Module]:
    """Return the parts of a backbone before its stage with stride 16."""
    if name == "efficientnet_lite0":
        return [net.stem, *net.stages[:2]]
    if name.startswith("resnet"):
        return [net.embedder, *net.encoder.stages[:2]]
    if name.startswith("pvt"):
        return list(net.encoder.layers[:2])
    norms = list(net.hidden_states_norms.values())
    return [net.swin.embeddings, *net.swin.encoder.layers[:2], *norms[:2]]


def _walk_resnet(net: Any, x: Tensor, between: Between) -> Iterator[Tensor]:
    x = net.embedder(x)
    for i, stage in enumerate(net.encoder.stages, 1):
        x = between(i, stage(x))
        yield x


def _walk_pvt(net: Any, x: Tensor, between: Between) -> Iterator[Tensor]:
    for i, layer in enumerate(net.encoder.layers, 1):
        (tokens,), height, width = layer(x, False)
        x = between(i, _as_map(tokens, (height, width)))
        yield x


def _walk_swin(net: Any, x: Tensor, between: Between) -> Iterator[Tensor]:
    tokens, size = net.swin.embeddings(x)
    norms = net.hidden_states_norms.values()
    for i, (layer, norm) in enumerate(zip(net.swin.encoder.layers, norms, strict=True), 1):
        for block in layer.blocks:
            tokens, _ = block(tokens, size, always_partition=True)
        tokens = between(i, _as_map(tokens, size)).flatten(2).mT
        yield _as_map(norm(tokens), size)
        if layer.downsample is not None:
            tokens, size = layer.downsample(tokens, size), ((size[0] + 1) // 2, (size[1] + 1) // 2)


def _as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Reshape (N, h · w, C) to (N, C, h, w)."""
    maps: Tensor = tokens.mT.unflatten(2, size)
    return maps.contiguous()


def _original_epsilons(net: nn.Module) -> None:
    """Set eps of the norms in patch embedding and attention to 1e-5 as in the original; transformers has 1e-6."""
    for name, module in net.named_modules():
        if name.endswith(("patch_embedding.layer_norm", "attention.layer_norm")):
            module.eps = 1e-5


_RESNET_KEYS: tuple[tuple[str, str], ...] = (
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"^encoder\.stages\.(\d)\.layers\.", r"layer+\1."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"\.layer\.(\d)\.convolution\.", r".conv+\1."),
    (r"\.layer\.(\d)\.normalization\.", r".bn+\1."),
)
_PVT_KEYS: tuple[tuple[str, str], ...] = (
    (r"^encoder\.layers\.(\d)\.layer_norm\.", r"norm+\1."),
    (r"^encoder\.layers\.(\d)\.patch_embedding\.layer_norm\.", r"patch_embed+\1.norm."),
    (r"^encoder\.layers\.(\d)\.patch_embedding\.", r"patch_embed+\1."),
    (r"^encoder\.layers\.(\d)\.blocks\.", r"block+\1."),
    (r"\.layer_norm_([12])\.", r".norm\1."),
    (r"\.attention\.layer_norm\.", ".attn.norm."),
    (r"\.attention\.spatial_reduction\.", ".attn.sr."),
    (r"\.attention\.query\.", ".attn.q."),
    (r"\.attention\.(key|value)\.", ".attn.kv."),
    (r"\.attention\.proj\.", ".attn.proj."),
    (r"\.mlp\.dense([12])\.", r".mlp.fc\1."),
)
_SWIN_KEYS: tuple[tuple[str, str], ...] = (
    (r"^swin\.", ""),
    (r"\.attention\.q_proj\.", ".attention.self.query."),
    (r"\.attention\.k_proj\.", ".attention.self.key."),
    (r"\.attention\.v_proj\.", ".attention.self.value."),
    (r"\.attention\.relative_position_bias\.relative_", ".attention.self.relative_"),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


def original_source(name: str, key: str) -> Source:
    """Return the location of a tensor of :class:`VisualBackbone` in the files of the original authors.

    Args:
        name: The backbone. The keys are those of torchvision for ResNet, of the authors for PVT-v2, of the files of
            transformers for Swin (older than its keys in memory), and of EfficientNet-PyTorch for EfficientNet-Lite0.
        key: A key of ``VisualBackbone(name).state_dict()``.
    """
    half = {".key.": 0, ".value.": 1}.get(found[0]) if (found := re.findall(r"\.(?:key|value)\.", key)) else None
    key = key.removeprefix("net.")
    if name == "efficientnet_lite0":
        return Source(original_key(key))
    if name.startswith("swin"):
        return Source(rename(key, _SWIN_KEYS))
    key = rename(key, _RESNET_KEYS if name.startswith("resnet") else _PVT_KEYS)
    # "+3" marks an index that counts from 0 here and from 1 in the original.
    return Source(re.sub(r"\+(\d)", lambda m: str(int(m[1]) + 1), key), half)
