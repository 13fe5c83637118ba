"""Mask2Former (Cheng et al., arXiv 2112.01527) from transformers' parts, open for queries that listen.

A pixel decoder of multi-scale deformable attention, and a transformer decoder whose queries look within the mask they
drew in the layer before. Both are transformers' modules under transformers' names, so that its pretrained weights fit;
the loop over decoder layers is ours, because between layers the queries do something else as well: they listen.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoder,
    Mask2FormerPixelDecoderEncoderLayer,
    Mask2FormerPreTrainedModel,
    Mask2FormerTransformerModule,
)

from avseg.errors import ConfigError
from avseg.nn.functional import full_precision

LEVELS = 3
"""Resolutions the queries look at in turn: strides 32, 16, 8."""
GROUPS = 32
"""Of the group norms in the pixel decoder; its width is a multiple."""


class PixelFeatures(NamedTuple):
    """What the pixel decoder says of n pictures.

    Attributes:
        masks: E_v (n, d, H / 4, W / 4), which mask embeddings are multiplied with.
        levels: (n, d, h, w) at strides 32, 16, 8, which queries look at.
    """

    masks: Tensor
    levels: tuple[Tensor, ...]

    def of(self, index: Tensor) -> "PixelFeatures":
        """Those of some of the pictures."""
        return PixelFeatures(self.masks[index], tuple(level[index] for level in self.levels))


class QueryOutputs(NamedTuple):
    """What queries became, before the first layer and after each of L.

    Attributes:
        queries: (L + 1, n, N, d), normalised: what a class head reads.
        masks: Logits (L + 1, n, N, H / 4, W / 4).
        embeddings: Mask embeddings of the last layer (n, N, d).
    """

    queries: Tensor
    masks: Tensor
    embeddings: Tensor


class MaskTransformer(Mask2FormerPreTrainedModel):  # type: ignore[no-untyped-call]
    """Pixel decoder and transformer decoder of Mask2Former, without backbone and class head.

    Args:
        channels: Of the backbone's maps at strides 4, 8, 16, 32.
        width: d.
        queries: N.
        layers: L, of the transformer decoder.
        pixel_layers: Of the pixel decoder.
        heads: Of all attentions.
        feedforward: Width inside the feed-forward blocks of the transformer decoder; half of it in the pixel decoder.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        *,
        width: int,
        queries: int,
        layers: int,
        pixel_layers: int,
        heads: int,
        feedforward: int,
    ) -> None:
        config = Mask2FormerConfig(
            feature_size=width,
            mask_feature_size=width,
            hidden_dim=width,
            num_queries=queries,
            decoder_layers=layers + 1,  # it counts the masks drawn before the first
            encoder_layers=pixel_layers,
            num_attention_heads=heads,
            dim_feedforward=feedforward,
            encoder_feedforward_dim=feedforward // 2,
        )
        super().__init__(config)
        decoder = Mask2FormerPixelDecoder(config, feature_channels=channels)
        self.pixel_level_module = nn.ModuleDict({"decoder": decoder})
        self.transformer_module = Mask2FormerTransformerModule(width, config)
        self.post_init()  # type: ignore[no-untyped-call]
        # Transformers' own initial weights: in a class that is not its own, post_init leaves most modules out.
        self.apply(self._init_weights)
        _start_wide(self.pixel_level_module)

    @property
    def queries(self) -> tuple[Tensor, Tensor]:
        """The class-agnostic queries and their positions, (N, d) each."""
        module = self.transformer_module
        return module.queries_features.weight, module.queries_embedder.weight

    def pixels(self, features: tuple[Tensor, ...]) -> PixelFeatures:
        """Maps of the backbone, (n, C_i, h_i, w_i), shallowest first → :class:`PixelFeatures`.

        In 32 bits, as in Mask2Former's own program: places between pixels need them.

        Raises:
            ConfigError: When a group norm would have one value.
        """
        count, _, height, width = features[-1].shape
        if count * height * width * self.config.feature_size == GROUPS:
            raise ConfigError(
                "one frame this small leaves a group of channels one value at stride 32: give more frames or pixels"
            )
        with full_precision(features[0]):
            out = self.pixel_level_module["decoder"]([f.float() for f in features])
        return PixelFeatures(out.mask_features, tuple(out.multi_scale_features))

    def decode(
        self, pixels: PixelFeatures, queries: Tensor, positions: Tensor, listen: Callable[[int, Tensor], Tensor]
    ) -> QueryOutputs:
        """Let queries listen, look and draw, layer after layer.

        Args:
            pixels: Of n pictures.
            queries: (n, N, d).
            positions: (n, N, d), added to queries wherever they ask.
            listen: What queries do at the beginning of layer ``i``: (n, N, d) → the same.
        """
        decoder = self.transformer_module.decoder
        keys, places = self._keys(pixels.levels)
        positions = positions.transpose(0, 1)
        draw = self.draw
        shown, embeddings, masks = draw(queries, pixels.masks)
        drawn = [(shown, masks)]
        for i, layer in enumerate(decoder.layers):
            level = i % LEVELS
            queries = layer(
                listen(i, queries).transpose(0, 1),
                level_index=level,
                position_embeddings=places,
                query_position_embeddings=positions,
                encoder_hidden_states=keys,
                encoder_attention_mask=self._outside(masks, pixels.levels[level].shape[-2:]),
            )[0].transpose(0, 1)
            shown, embeddings, masks = draw(queries, pixels.masks)
            drawn.append((shown, masks))
        return QueryOutputs(torch.stack([s for s, _ in drawn]), torch.stack([m for _, m in drawn]), embeddings)

    def draw(self, queries: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What queries (n, N, d) show, their mask embeddings, and logits (n, N, h, w) on a map (n, d, h, w)."""
        decoder: Any = self.transformer_module.decoder
        shown: Tensor = decoder.layernorm(queries)
        embeddings: Tensor = decoder.mask_predictor.mask_embedder(shown)
        return shown, embeddings, torch.einsum("nqd,ndhw->nqhw", embeddings, masks)

    def _keys(self, levels: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """What queries look at, and where it is: (h · w, n, d) for each level."""
        module = self.transformer_module
        keys, places = [], []
        for level, project, kind in zip(levels, module.input_projections, module.level_embed.weight, strict=True):
            keys.append((project(level) + kind[:, None, None]).flatten(2).permute(2, 0, 1))
            places.append(self.places(level).flatten(2).permute(2, 0, 1))
        return keys, places

    def places(self, maps: Tensor) -> Tensor:
        """Sine embeddings of the places of (n, d, h, w), (1, d, h, w)."""
        place: Tensor = self.transformer_module.position_embedder(
            torch.Size((1, *maps.shape[1:])), maps.device, maps.dtype
        )
        return place

    def _outside(self, masks: Tensor, size: torch.Size) -> Tensor:
        """Where a query may not look: outside of its mask, unless that is empty. (n · heads, N, h · w) bool."""
        outside = interpolate(masks.detach(), size, mode="bilinear").flatten(2) < 0
        outside = outside & ~outside.all(-1, keepdim=True)
        return outside.repeat_interleave(self.config.num_attention_heads, 0)


def sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """How large a :class:`MaskTransformer` is, as its state dict tells; 0 what it does not tell."""
    queries = state.get("transformer_module.queries_features.weight", torch.empty(0, 0))
    layer, pixel_layer = (
        re.compile(rf"{place}\.layers\.\d+\.fc1\.weight")
        for place in (r"transformer_module\.decoder", r"pixel_level_module\.decoder\.encoder")
    )
    inside = state.get("transformer_module.decoder.layers.0.fc1.weight", torch.empty(0))
    return {
        "queries": queries.shape[0],
        "channels": queries.shape[1],
        "layers": sum(layer.fullmatch(key) is not None for key in state),
        "pixel_layers": sum(pixel_layer.fullmatch(key) is not None for key in state),
        "feedforward": inside.shape[0],
    }


def _start_wide(module: nn.Module) -> None:
    """Initial weights of a pixel decoder as in Mask2Former's own program, which learns from them sooner.

    Transformers draws convolutions and feed-forward layers with a deviation of 0.02, since it means to load them.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_uniform_(part.weight, a=1)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, Mask2FormerPixelDecoderEncoderLayer):
            for layer in (part.fc1, part.fc2):
                nn.init.xavier_uniform_(layer.weight)
