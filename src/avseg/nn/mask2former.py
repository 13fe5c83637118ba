"""Mask2Former (Cheng et al., arXiv 2112.01527), built from the modules of transformers.

It has a pixel decoder of multi-scale deformable attention, and a transformer decoder with masked attention: queries
attend within the mask predicted by the previous layer. Both are modules of transformers under their original names, so
that its pretrained weights load. The loop over decoder layers is ours, because models add audio cross-attention to it.
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
"""Number of resolutions that decoder layers attend to in turn: strides 32, 16, 8."""
GROUPS = 32
"""Groups of the group norms in the pixel decoder, whose width is a multiple."""


class PixelFeatures(NamedTuple):
    """Outputs of the pixel decoder for n images.

    Attributes:
        masks: E_v (n, d, H / 4, W / 4), multiplied with mask embeddings to get mask logits.
        levels: (n, d, h, w) at strides 32, 16, 8, keys and values of the decoder.
    """

    masks: Tensor
    levels: tuple[Tensor, ...]

    def of(self, index: Tensor) -> "PixelFeatures":
        """Select images by index."""
        return PixelFeatures(self.masks[index], tuple(level[index] for level in self.levels))


class QueryOutputs(NamedTuple):
    """Outputs of the decoder before the first layer and after each of L layers.

    Attributes:
        queries: (L + 1, n, N, d), after the layer norm; inputs of a class head.
        masks: Logits (L + 1, n, N, H / 4, W / 4).
        embeddings: Mask embeddings of the last layer (n, N, d).
    """

    queries: Tensor
    masks: Tensor
    embeddings: Tensor


class MaskTransformer(Mask2FormerPreTrainedModel):  # type: ignore[no-untyped-call]
    """Pixel decoder and transformer decoder of Mask2Former, without backbone and class head.

    Args:
        channels: Channels of the backbone maps at strides 4, 8, 16, 32.
        width: d.
        queries: N.
        layers: L, layers of the transformer decoder.
        pixel_layers: Layers of the pixel decoder.
        heads: Heads of all attention layers.
        feedforward: Width of the feed-forward blocks of the transformer decoder; half of it in the pixel decoder.
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
            decoder_layers=layers + 1,  # transformers counts the masks predicted before the first layer
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
        # The initial weights of transformers; post_init skips most modules in a class outside of transformers.
        self.apply(self._init_weights)
        _start_wide(self.pixel_level_module)

    @property
    def queries(self) -> tuple[Tensor, Tensor]:
        """Return the class-agnostic queries and their position embeddings, (N, d) each."""
        module = self.transformer_module
        return module.queries_features.weight, module.queries_embedder.weight

    def pixels(self, features: tuple[Tensor, ...]) -> PixelFeatures:
        """Run the pixel decoder on backbone maps (n, C_i, h_i, w_i), shallowest first.

        It runs in float32, as in the release of Mask2Former, because sampling positions need the precision.

        Raises:
            ConfigError: When a group norm would normalise a single value.
        """
        count, _, height, width = features[-1].shape
        if count * height * width * self.config.feature_size == GROUPS:
            raise ConfigError(
                f"one frame of this size leaves one value per group of channels at stride 32, got maps of "
                f"{height}x{width}: give more frames or larger frames"
            )
        with full_precision(features[0]):
            out = self.pixel_level_module["decoder"]([f.float() for f in features])
        return PixelFeatures(out.mask_features, tuple(out.multi_scale_features))

    def decode(
        self, pixels: PixelFeatures, queries: Tensor, positions: Tensor, before: Callable[[int, Tensor], Tensor]
    ) -> QueryOutputs:
        """Run the decoder layers.

        Args:
            pixels: Outputs of the pixel decoder for n images.
            queries: (n, N, d).
            positions: (n, N, d), added to queries in every attention.
            before: Called as ``before(i, queries)`` before layer ``i``; maps (n, N, d) to the same shape.
        """
        decoder = self.transformer_module.decoder
        keys, places = self._keys(pixels.levels)
        positions = positions.transpose(0, 1)
        normed, embeddings, masks = self.predict_masks(queries, pixels.masks)
        outputs = [(normed, masks)]
        for i, layer in enumerate(decoder.layers):
            level = i % LEVELS
            queries = layer(
                before(i, queries).transpose(0, 1),
                level_index=level,
                position_embeddings=places,
                query_position_embeddings=positions,
                encoder_hidden_states=keys,
                encoder_attention_mask=self._outside(masks, pixels.levels[level].shape[-2:]),
            )[0].transpose(0, 1)
            normed, embeddings, masks = self.predict_masks(queries, pixels.masks)
            outputs.append((normed, masks))
        return QueryOutputs(torch.stack([q for q, _ in outputs]), torch.stack([m for _, m in outputs]), embeddings)

    def predict_masks(self, queries: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return normed queries and mask embeddings (n, N, d), and mask logits (n, N, h, w).

        Args:
            queries: (n, N, d).
            features: E_v (n, d, h, w).
        """
        decoder: Any = self.transformer_module.decoder
        normed: Tensor = decoder.layernorm(queries)
        embeddings: Tensor = decoder.mask_predictor.mask_embedder(normed)
        return normed, embeddings, torch.einsum("nqd,ndhw->nqhw", embeddings, features)

    def _keys(self, levels: tuple[Tensor, ...]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the keys of each level and their position embeddings, (h · w, n, d) each."""
        module = self.transformer_module
        keys, places = [], []
        for level, project, kind in zip(levels, module.input_projections, module.level_embed.weight, strict=True):
            keys.append((project(level) + kind[:, None, None]).flatten(2).permute(2, 0, 1))
            places.append(self.places(level).flatten(2).permute(2, 0, 1))
        return keys, places

    def places(self, maps: Tensor) -> Tensor:
        """Return sine position embeddings (1, d, h, w) for maps (n, d, h, w)."""
        place: Tensor = self.transformer_module.position_embedder(
            torch.Size((1, *maps.shape[1:])), maps.device, maps.dtype
        )
        return place

    def _outside(self, masks: Tensor, size: torch.Size) -> Tensor:
        """Return the attention mask (n · heads, N, h · w) bool: positions outside the mask of a query, unless empty."""
        outside = interpolate(masks.detach(), size, mode="bilinear").flatten(2) < 0
        outside = outside & ~outside.all(-1, keepdim=True)
        return outside.repeat_interleave(self.config.num_attention_heads, 0)


def sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the sizes of a :class:`MaskTransformer` from its state dict; 0 if a tensor is missing."""
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
    """Initialise a pixel decoder as in the release of Mask2Former, with which training converges faster.

    Transformers initialises convolutions and feed-forward layers with a standard deviation of 0.02, because it expects
    pretrained weights.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_uniform_(part.weight, a=1)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, Mask2FormerPixelDecoderEncoderLayer):
            for layer in (part.fc1, part.fc2):
                nn.init.xavier_uniform_(layer.weight)
