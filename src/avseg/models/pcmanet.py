"""PCMANet: Progressive Confident Masking Attention Network. Wang, Dong, Zhu, arXiv 2406.02345.

Stages i = 1..4 have stride 2^(i+1); stage 4 is the deepest and is computed first.

=========  ==================  =============================================================
paper      here                shape
=========  ==================  =============================================================
F_i        ``maps[i]``         (N, C, h_i, w_i), N = B · T frames
A, A_i     ``audio``           (B, T, C)
V_i        ``fused[i]``        (N, C, h_i, w_i), output of AVGA
M_i        ``mask``            (N, 1, h, w) bool, True = not confident yet: this token is a query
G_i        ``guide``           (N, C, h_i, w_i), output of QSCA
O_i        ``outputs[i]``      (N, K, h_i, w_i) logits
g, c       ``groups``, ``confidence``
=========  ==================  =============================================================

Differs from the paper:

1. Eq. (8) is a mean over pixels, not a sum. With a sum, the weight of Eq. (9) would depend on the image size.
2. Each QSCA has a linear layer for its audio input, as in the release; the paper does not mention one.
3. Visual queries attend to the audio of the whole clip, and audio queries to the visual tokens of the whole clip, as
   in the release.
4. With several classes the loss is cross-entropy only, and the confidence is the largest softmax probability.
5. Padding frames are not keys of the attention (``padding="mask"``), and the backbone does not process them; the
   paper does not mention them.

The authors' release differs further. Each difference is a field of ``Config`` whose default follows the paper;
``RELEASE`` holds the values of the release. One difference is not documented elsewhere: the release reshapes the (n, C)
output tokens of QSCA to (C, h, w) without transposing them, which scrambles the guides in space
(``transpose_tokens``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize, scaled_dot_product_attention

from avseg.errors import ConfigError, did_you_mean
from avseg.interface import Adopted, AVSModel, Clip, Prediction, Source, Target
from avseg.losses import bce, iou_loss, labelled, semantic_ce
from avseg.models._avsbench_keys import DEAD_COPY, dead_copy, rows, visual_of, visual_source
from avseg.nn.class_prior import PriorFusion, object_classes
from avseg.nn.encoders import EncoderConfig, build_encoders
from avseg.nn.fast_training import conv_resized
from avseg.nn.functional import has_padding, real_frames, with_padding
from avseg.nn.keys import rename
from avseg.nn.pixel_rows import conv_rows, grow, pointwise_rows, rows_of
from avseg.nn.visual import VisualTraining

STAGES = (4, 3, 2, 1)
"""Deepest first, the order of computation."""
_DENSE = 0.4
"""Share of uncertain pixels above which a gated decoder computes all pixels, which is then faster."""
_IN_MASK = 0.25
"""Share of a position that must be predicted to count in :meth:`PCMANet.object_scores`."""
PRIOR = 0
"""Key of the class prior among the attention maps of the stages."""


def _conv_bn_relu(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _resize(x: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Resize bilinearly to the last two entries of ``size``."""
    return interpolate(x, tuple(size[-2:]), mode="bilinear")


def _unit(x: Tensor, dim: int) -> Tensor:
    """Divide by the L2 norm along ``dim``; a zero vector stays zero."""
    # In float16 the smallest norm that normalize allows, 1e-12, is 0: a zero vector would become 0 / 0.
    return normalize(x.float(), dim=dim).to(x.dtype) if x.dtype == torch.float16 else normalize(x, dim=dim)


class AVGA(nn.Module):
    """Audio-Visual Group Attention, Fig. 3: weight each channel group by its cosine similarity to the audio."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.visual = _conv_bn_relu(channels, channels, 1, groups)
        self.audio = nn.Sequential(nn.Linear(channels, channels), nn.Linear(channels, channels // groups), nn.ReLU())
        self.mix = _conv_bn_relu(channels, channels, 1)

    def forward(self, maps: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, h, w) and (N, C) to V (N, C, h, w) and attention maps (N, g, h, w)."""
        grouped_NhwgD = self.visual(maps).movedim(1, -1).unflatten(-1, (self.groups, -1))
        dots = torch.einsum("nhwgd,nd->nhwg", grouped_NhwgD, _unit(self.audio(audio), 1))
        weighted, attention = self._weigh(grouped_NhwgD, dots)
        return self.mix(weighted.movedim(-1, 1)), attention.movedim(-1, 1)

    def rows(self, rows: Tensor, audio: Tensor, frames: Tensor) -> Tensor:
        """Map pixels (P, C) of the frames ``frames`` (P,), and the audio (N, C) of all frames, to V (P, C)."""
        grouped_PgD = pointwise_rows(self.visual, rows).unflatten(-1, (self.groups, -1))
        dots = torch.einsum("pgd,pd->pg", grouped_PgD, _unit(self.audio(audio), 1)[frames])
        return pointwise_rows(self.mix, self._weigh(grouped_PgD, dots)[0])

    def _weigh(self, grouped: Tensor, dots: Tensor) -> tuple[Tensor, Tensor]:
        """Weight groups (..., g, D) by their cosines; return (..., C) and the cosines (..., g)."""
        # A zero vector has the cosine 0. Its norm is clamped in float32, because 1e-12 is 0 in float16.
        norms = torch.linalg.vector_norm(grouped.float(), dim=-1).clamp(min=1e-12)
        attention = (dots / norms).to(grouped.dtype)
        return (attention.unsqueeze(-1) * grouped).flatten(-2), attention


class QSCA(nn.Module):
    """Query-Selected Cross-Attention, Eq. (1)–(6): only tokens that are not confident query the audio.

    Args:
        channels: C, divided among the heads.
        heads: Number of attention heads.
        update_audio: Compute A_{i-1} too; False leaves out its parameters.
        scatter_grad: Backpropagate through the scatter of selected tokens (paper), or detach it (release).
        transpose: Transpose output tokens before reshaping them to a map (paper); False follows the release.
        gather: Compute attention for selected queries only. False computes all queries and zeroes the others: equal
            values and static shapes, but no saving; needed for export.
    """

    def __init__(
        self, channels: int, heads: int, *, update_audio: bool, scatter_grad: bool, transpose: bool, gather: bool
    ) -> None:
        super().__init__()
        self.heads, self.scatter_grad = heads, scatter_grad
        self.transpose, self.gather = transpose, gather
        self.audio = nn.Linear(channels, channels)
        self.embed = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.visual_q = nn.Linear(channels, channels, bias=False)
        self.visual_kv = nn.Linear(channels, 2 * channels, bias=False) if update_audio else None
        self.audio_qkv = nn.Linear(channels, (3 if update_audio else 2) * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(
        self, maps: Tensor, audio: Tensor, mask: Tensor | None, valid: Tensor, pool: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Compute A_{i-1}, G_i = QSCA(A_i, V_i, M_i), Eq. (1).

        Args:
            maps: V_i (B · T, C, h, w).
            audio: A_i (B, T, C).
            mask: M_i (B · T, 1, h', w') bool of any size; None selects all tokens as queries.
            valid: (B, T) bool; False marks padding frames, which are not keys.
            pool: Pool tokens to this (h, w) before the attention (release); None keeps all tokens (paper).

        Returns:
            G_i (B · T, C, h, w), with ``pool`` of that size, and A_{i-1} (B, T, C) or None without ``update_audio``.
        """
        if pool is not None:
            maps = adaptive_avg_pool2d(maps, pool)
        tokens_BTNC = self.embed(maps.flatten(2).mT).unflatten(0, valid.shape)
        keep = None if mask is None else _mask_at(mask, maps.shape).flatten(1).view(tokens_BTNC.shape[:3])
        audio_BTC = self.audio(audio)
        audio_1, tokens_1 = self.norm(audio_BTC), self.norm(tokens_BTNC).flatten(1, 2)
        *q_a, k_a, v_a = (self._split(x) for x in self.audio_qkv(audio_1).chunk(2 if self.visual_kv is None else 3, -1))
        # In a clip of padding frames only, the padding is the keys, so that the unused output stays finite.
        keys = (valid | ~valid.any(1, keepdim=True))[:, None, None]
        attended = self._visual_queries(tokens_1, keep, k_a, v_a, keys).view(tokens_BTNC.shape)
        tokens_BTNC = (self.out(attended) + tokens_BTNC).flatten(0, 1)
        guide = (tokens_BTNC.mT if self.transpose else tokens_BTNC).reshape(maps.shape)
        updated = (
            None if self.visual_kv is None else self._audio_queries(q_a[0], self.visual_kv(tokens_1), keys) + audio_BTC
        )
        return guide, updated

    def rows(self, rows: Tensor, audio: Tensor, keep: Tensor | None, valid: Tensor, clips: Tensor) -> Tensor:
        """Compute G_i at selected pixels of V_i without pooled tokens.

        Args:
            rows: (P, C), pixels of V_i, in the order of the clips.
            audio: A_i (B, T, C).
            keep: (P,) bool, M_i at the pixels; None selects all as queries.
            valid: (B, T) bool; False marks padding frames, which are not keys.
            clips: (P,), clip of each pixel.

        Returns:
            (P, C).
        """
        tokens = self.embed(rows)
        audio_qkv = self.audio_qkv(self.norm(self.audio(audio)))
        k, v = (self._split(x) for x in audio_qkv.chunk(2 if self.visual_kv is None else 3, -1)[-2:])
        keys = (valid | ~valid.any(1, keepdim=True))[:, None, None]
        chosen = torch.ones_like(clips, dtype=torch.bool) if keep is None else keep
        counts = clips[chosen].bincount(minlength=len(audio)).tolist()
        selected = self._attend_each(self.norm(tokens)[chosen].split(counts), k, v, keys)
        attended = selected.new_zeros(tokens.shape)
        attended[chosen] = selected
        guide: Tensor = self.out(attended) + tokens
        return guide

    def _audio_queries(self, q: Tensor, kv: Tensor, keys: Tensor) -> Tensor:
        """Attend from the audio of a clip to all its visual tokens, Eq. (3a).

        Args:
            q: Q_a, split into heads.
            kv: K_v and V_v (B, T · N, 2 C).
            keys: (B, 1, 1, T) bool, frames that are keys.

        Returns:
            (B, T, C).
        """
        k, v = (self._split(x) for x in kv.chunk(2, -1))
        keys = keys.repeat_interleave(kv.shape[1] // keys.shape[-1], -1)
        attended: Tensor = self.out(_merge(scaled_dot_product_attention(q, k, v, keys)))
        return attended

    def _visual_queries(self, tokens: Tensor, keep: Tensor | None, k: Tensor, v: Tensor, keys: Tensor) -> Tensor:
        """Attend from selected visual tokens to the audio of their clip, Eq. (3b); other tokens get zeros."""
        if keep is None:
            return self._attend(tokens, k, v, keys)
        keep = keep.flatten(1)
        if self.gather:
            attended = self._attend_selected(tokens, keep, k, v, keys)
        else:
            attended = self._attend(tokens, k, v, keys) * keep.unsqueeze(-1)
        return attended if self.scatter_grad else attended.detach()

    def _attend(self, tokens: Tensor, k: Tensor, v: Tensor, keys: Tensor) -> Tensor:
        """Attend from visual tokens (B, n, C) to the audio of their clip; return (B, n, C)."""
        return _merge(scaled_dot_product_attention(self._split(self.visual_q(tokens)), k, v, keys))

    def _attend_selected(self, tokens: Tensor, keep: Tensor, k: Tensor, v: Tensor, keys: Tensor) -> Tensor:
        """Gather the tokens in ``keep`` (B, T · N), attend, and scatter, Eq. (4); the cost falls with their number."""
        selected = self._attend_each(tokens[keep].split(keep.sum(1).tolist()), k, v, keys)
        return selected.new_zeros(tokens.shape).masked_scatter(keep.unsqueeze(-1), selected)

    def _attend_each(self, per_clip: Sequence[Tensor], k: Tensor, v: Tensor, keys: Tensor) -> Tensor:
        """Attend from the tokens (n, C) of each clip to its audio; return those of all clips (Σ n, C)."""
        outputs = [
            self._attend(q[None], k[b : b + 1], v[b : b + 1], keys[b : b + 1])[0] for b, q in enumerate(per_clip)
        ]
        return torch.cat(outputs)

    def _split(self, x: Tensor) -> Tensor:
        """Reshape (B, n, C) to (B, heads, n, C / heads)."""
        return x.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)


def _merge(x: Tensor) -> Tensor:
    """Reshape (B, heads, n, C / heads) to (B, n, C)."""
    return x.transpose(1, 2).flatten(2)


def _mask_at(mask: Tensor, size: torch.Size) -> Tensor:
    """Resize a mask (N, 1, h, w) to the last two entries of ``size``, nearest neighbour."""
    return interpolate(mask.float(), tuple(size[-2:]), mode="nearest").bool()


class CIM(nn.Module):
    """Confidence-Induced Masking, Eq. (7): select the pixels that are not confident yet. No parameters.

    Args:
        confidence: c; a probability in (1 - c, c) is not confident.
        progression: Pixels that were confident in an earlier stage stay confident.
        closed: Count the bounds 1 - c and c as not confident (release).
    """

    def __init__(self, confidence: float, *, progression: bool, closed: bool) -> None:
        super().__init__()
        self.confidence, self.progression, self.closed = confidence, progression, closed

    def forward(self, mask: Tensor | None, output: Tensor) -> Tensor:
        """Map M_i (N, 1, h', w') bool or None (all ones), and O_i (N, K, h, w), to M_{i-1} (N, 1, h, w) bool."""
        one_class = output.shape[1] == 1
        p = output.float().sigmoid() if one_class else output.float().softmax(1).amax(1, keepdim=True)
        low, high = 1 - self.confidence, self.confidence
        unsure = (p >= low) & (p <= high) if self.closed else (p > low) & (p < high)
        return unsure & _mask_at(mask, output.shape) if self.progression and mask is not None else unsure


class GF(nn.Module):
    """Guided Fusion: conv(level + conv(upsampled deeper) + conv(guide)). The deepest level has no ``deeper``."""

    def __init__(self, channels: int, *, deeper: bool, guide: bool) -> None:
        super().__init__()
        self.deeper = _conv_bn_relu(channels, channels, 3) if deeper else None
        self.guide = _conv_bn_relu(channels, channels, 3) if guide else None
        self.fuse = _conv_bn_relu(channels, channels, 3)

    def forward(self, level: Tensor, deeper: Tensor | None, guide: Tensor | None) -> Tensor:
        """Fuse maps (N, C, h, w), of which ``deeper`` and ``guide`` may be smaller, to (N, C, h, w)."""
        total = level
        for block, other in ((self.deeper, deeper), (self.guide, guide)):
            if block is not None and other is not None:
                conv, norm, activation = block
                total = total + activation(norm(conv_resized(conv, other, (level.shape[2], level.shape[3]))))
        out: Tensor = self.fuse(total)
        return out


def _head(channels: int, classes: int) -> nn.Sequential:
    """Build the head of O_i: a 3×3 convolution to C / 2 channels and a 1×1 convolution to K logits."""
    return nn.Sequential(*_conv_bn_relu(channels, channels // 2, 3), nn.Conv2d(channels // 2, classes, 1))


class PCMANet(AVSModel):
    """PCMANet: group attention (AVGA), and cross-attention for pixels that are not confident yet (CIM, QSCA)."""

    @dataclass(frozen=True)
    class Config(EncoderConfig):
        """Settings of PCMANet; defaults follow the paper.

        Attributes:
            channels: C of all fused maps.
            groups: g of AVGA. The ResNet-50 of the release for S4 has 4.
            heads: Attention heads of QSCA.
            confidence: c, the threshold of CIM.
            avga: False: V_i is F_i plus the audio embedding at every pixel ("baseline" of Table IV).
            qsca: False: no guides; levels are fused as in FPN.
            select: False: all tokens are queries ("QSCA without mask").
            continuity: False: every QSCA takes the first audio A ("without continuity").
            progression: False: masks of different stages are independent ("CIM without progression").
            pool_tokens: Pool the tokens of QSCA to the size of the previous stage (release); False uses all tokens.
            scatter_grad: Backpropagate through the scatter of selected tokens; False follows the release.
            transpose_tokens: Restore the spatial order of the tokens after QSCA; False follows the release.
            closed_bounds: Count the probabilities c and 1 - c as not confident (release).
            unheard_audio: Compute audio outputs of QSCA that no later layer uses, such as A_0 (release); their
                parameters receive no gradient.
            padding: Padding frames: ``mask`` excludes them from the attention; ``zero`` sets their features to zero
                (release).
            gather: Compute attention for selected queries only; False for export.
            iou_smooth: Constant added to numerator and denominator of Eq. (9); 1 in the release.
            stage_weights: λ_1 … λ_4 of Eq. (11).
            class_prior: Add to V_i maps that locate the sounding AudioSet classes with an ImageNet classifier (ours,
                :mod:`avseg.nn.class_prior`); requires ``visual`` efficientnet_lite0 and ``audio`` mobile.
            embedding_dropout: With ``class_prior``, the probability of replacing the audio embeddings of a training
                clip by zeros, so that only the prior carries audio information.
        """

        visual_training: VisualTraining = "full"
        channels: int = 256
        groups: int = 8
        heads: int = 8
        confidence: float = 0.99
        avga: bool = True
        qsca: bool = True
        select: bool = True
        continuity: bool = True
        progression: bool = True
        pool_tokens: bool = False
        scatter_grad: bool = True
        transpose_tokens: bool = True
        closed_bounds: bool = False
        unheard_audio: bool = False
        padding: Literal["mask", "zero"] = "mask"
        gather: bool = True
        iou_smooth: float = 0.0
        stage_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
        class_prior: bool = False
        embedding_dropout: float = 0.0

        def __post_init__(self) -> None:
            super().__post_init__()
            for name, choices in (
                ("padding", ("mask", "zero")),
                ("visual_training", get_args(VisualTraining)),
            ):
                if getattr(self, name) not in choices:
                    raise ConfigError(f"{name} = {getattr(self, name)!r}. {did_you_mean(getattr(self, name), choices)}")
            for name in ("groups", "heads"):
                if getattr(self, name) < 1 or self.channels % getattr(self, name):
                    raise ConfigError(
                        f"channels = {self.channels} must be a multiple of {name} = {getattr(self, name)}"
                    )
            if not 0.5 <= self.confidence <= 1:
                raise ConfigError(f"confidence must be in 0.5..1, got {self.confidence}")
            if self.class_prior and (self.visual, self.audio, self.stereo) != ("efficientnet_lite0", "mobile", False):
                raise ConfigError(
                    "class_prior needs visual = 'efficientnet_lite0', audio = 'mobile' and stereo = False, "
                    f"got {self.visual!r}, {self.audio!r} and {self.stereo}"
                )
            if not 0 <= self.embedding_dropout < 1:
                raise ConfigError(f"embedding_dropout must be in [0, 1), got {self.embedding_dropout}")

    paper: ClassVar[str] = "2406.02345"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "backbone": ("visual",),
        "audio": ("audio",),
        "fusion": ("reduce", "audio_linear", "avga", "prior", "qsca", "cim"),
        "decoder": ("gf", "head"),
    }
    RELEASE: ClassVar[Mapping[str, object]] = {
        "pool_tokens": True,
        "scatter_grad": False,
        "transpose_tokens": False,
        "closed_bounds": True,
        "unheard_audio": True,
        "padding": "zero",
        "iou_smooth": 1.0,
    }
    """Settings in which the authors' release differs from the paper."""

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__(config, classes)
        c = config
        self.visual, self.audio = build_encoders(c, training=c.visual_training, scores=c.class_prior)
        self.reduce = _per_stage(lambda i: _conv_bn_relu(self.visual.channels[i - 1], c.channels, 3))
        self.audio_linear = nn.Linear(self.audio.dim, c.channels)
        self.avga = _per_stage(lambda i: AVGA(c.channels, c.groups)) if c.avga else None
        self.prior = PriorFusion(c.channels, STAGES) if c.class_prior else None
        self.qsca = _per_stage(self._new_qsca) if c.qsca else None
        self.cim = CIM(c.confidence, progression=c.progression, closed=c.closed_bounds)
        self.gf = _per_stage(lambda i: GF(c.channels, deeper=i < max(STAGES), guide=c.qsca))
        self.head = _per_stage(lambda i: _head(c.channels, classes))
        self._gate: CIM | None = None

    def gate(self, confidence: float | None = None) -> None:
        """Compute O_1, the costliest output, only at pixels that are not confident in O_2; elsewhere take O_2.

        Args:
            confidence: Threshold of this selection in 0.5 … 1, as c of Eq. (7); None takes c.

        Raises:
            ConfigError: When the model has no confidence masks, or the threshold is out of range.
        """
        c = self.config
        if not (c.qsca and c.select):
            raise ConfigError("gated needs the confidence masks of PCMANet: this model has qsca or select false")
        threshold = c.confidence if confidence is None else confidence
        if not 0.5 <= threshold <= 1:
            raise ConfigError(f"the confidence of gated must be in 0.5..1, got {threshold}")
        self._gate = CIM(threshold, progression=c.progression, closed=c.closed_bounds)

    def _new_qsca(self, stage: int) -> QSCA:
        c = self.config
        # No layer uses A_0; without continuity no layer uses any A_{i-1}.
        used = c.continuity and stage > min(STAGES)
        return QSCA(
            c.channels,
            c.heads,
            update_audio=used or c.unheard_audio,
            scatter_grad=c.scatter_grad,
            transpose=c.transpose_tokens,
            gather=c.gather,
        )

    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        """Predict masks for a clip of any T, H, W. ``target`` is not used.

        Returns:
            Prediction with ``aux``: O_2, O_3, O_4 at the size of the frames. ``scalars``: ``keep_ratio/4``, ``/3``,
            ``/2``, the share of pixels of O_i that are queries in the next stage. ``maps``: ``attention/avga1`` … ``4``
            (B, T, g, h, w), ``mask/cim4``, ``3``, ``2`` (B, T, 1, h, w), ``attention/prior`` (B, T, 4, h, w).
        """
        zero = self.config.padding == "zero"
        frames, valid = clip.frames.flatten(0, 1), clip.valid
        stages = self.visual(real_frames(clip.frames, valid))
        late = None if maps or not self._late() else with_padding(stages[0], valid)
        features = {
            i: with_padding(self.reduce[str(i)](f), valid)
            for i, f in enumerate(stages, 1)
            if late is None or i > min(STAGES)
        }
        embeddings = self.audio(clip.audio)
        if zero and has_padding(valid):
            features = {i: f * valid.flatten().view(-1, 1, 1, 1) for i, f in features.items()}
            embeddings = embeddings * valid.unsqueeze(-1)
        if zero:
            valid = torch.ones_like(valid)
        audio = self.audio_linear(self._dropped(embeddings))
        fused, attention = self._fuse(features, audio)
        objects: Tensor | None = None
        if self.prior is not None:
            scores = self.audio.scores(embeddings).flatten(0, 1)
            fused, attention[PRIOR], objects = self.prior(fused, with_padding(stages[-1], clip.valid), scores)
        outputs, masks = self._decode(fused, audio, valid, late)
        logits = {i: _resize(o, frames.shape).unflatten(0, valid.shape) for i, o in outputs.items()}
        seen = valid.flatten()
        return Prediction(
            logits=logits[1],
            aux=tuple(logits[i] for i in sorted(logits) if i > 1),
            scalars={f"keep_ratio/{i}": m[seen].float().mean() for i, m in masks.items()},
            maps=_named_maps(attention, masks, valid) if maps else {},
            state=objects,
        )

    def _late(self) -> bool:
        """Return whether V_1 is needed at the pixels of O_1 only, so that it can be computed after O_2."""
        c = self.config
        whole = c.pool_tokens or not c.transpose_tokens or c.padding == "zero"
        return self._gate is not None and self.avga is not None and self.prior is None and not whole

    @property
    def object_names(self) -> tuple[str, ...]:
        """Names of the classes of the class prior; empty without it, and for a task with several classes."""
        return tuple(c.name for c in object_classes()) if self.prior is not None and self.classes == 1 else ()

    def object_scores(self, prediction: Prediction) -> Tensor | None:
        """Return a_c v_c of every class of the class prior, averaged over the mask, (B, T, S).

        The average is weighted with the predicted probability at stride 32, where it is above a quarter.
        """
        if not self.object_names or prediction.state is None:
            return None
        objects: Tensor = prediction.state  # (N, S, h, w)
        shares = adaptive_avg_pool2d(
            prediction.probabilities.flatten(0, 1).float(), (objects.shape[-2], objects.shape[-1])
        )
        weights = shares * (shares > _IN_MASK)  # (N, 1, h, w)
        means = (objects.float() * weights).sum((2, 3)) / weights.sum((2, 3)).clamp(min=1e-6)
        scores: Tensor = means.unflatten(0, prediction.logits.shape[:2])
        return scores

    def _dropped(self, embeddings: Tensor) -> Tensor:
        """Return (B, T, D) embeddings, in training with those of some clips replaced by zeros."""
        if not (self.training and self.prior is not None and self.config.embedding_dropout):
            return embeddings
        kept = torch.rand(len(embeddings), 1, 1, device=embeddings.device) >= self.config.embedding_dropout
        dropped: Tensor = embeddings * kept
        return dropped

    def _fuse(self, features: dict[int, Tensor], audio: Tensor) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Return V_i of all stages, and their attention maps."""
        audio_NC = audio.flatten(0, 1)
        if self.avga is None:
            return {i: f + audio_NC[:, :, None, None] for i, f in features.items()}, {}
        pairs = {i: self.avga[str(i)](f, audio_NC) for i, f in features.items()}
        return {i: v for i, (v, _) in pairs.items()}, {i: a for i, (_, a) in pairs.items()}

    def _decode(
        self, fused: dict[int, Tensor], audio: Tensor, valid: Tensor, late: Tensor | None = None
    ) -> tuple[dict[int, Tensor], ...]:
        """Return O_i of all stages and the masks M_{i-1} computed from them, Fig. 2.

        Args:
            fused: V_i.
            audio: A (B, T, C).
            valid: (B, T) bool; False marks padding frames.
            late: The map of the backbone (N, C_1, h, w) from which V_1 is computed here, if ``fused`` lacks it.
        """
        outputs: dict[int, Tensor] = {}
        masks: dict[int, Tensor] = {}
        stage_audio = audio
        level: Tensor | None = None
        mask: Tensor | None = None
        for i in STAGES:
            if late is not None and level is not None and i == min(STAGES):
                found = self._late_output(late, level, audio, stage_audio, outputs, valid, mask)
                if found is not None:
                    outputs[i] = found
                    break
                fused |= self._fuse({i: self.reduce[str(i)](late)}, audio)[0]
            guide = None
            if self.qsca is not None:
                pool = (level.shape[2], level.shape[3]) if self.config.pool_tokens and level is not None else None
                guide, updated = self.qsca[str(i)](fused[i], stage_audio, mask, valid, pool)
                stage_audio = updated if self.config.continuity else audio
            if self._gate is not None and i == min(STAGES) and level is not None and guide is not None:
                outputs[i] = self._gated(fused[i], level, _resize(guide, fused[i].shape), outputs)
                break
            level = self.gf[str(i)](fused[i], level, guide)
            outputs[i] = self.head[str(i)](level)
            if self.qsca is not None and self.config.select and i > min(STAGES):
                masks[i] = mask = self.cim(mask, outputs[i])
        return outputs, masks

    def _late_output(
        self,
        maps: Tensor,
        deeper: Tensor,
        audio: Tensor,
        stage_audio: Tensor,
        outputs: Mapping[int, Tensor],
        valid: Tensor,
        mask: Tensor | None,
    ) -> Tensor | None:
        """Return O_1 with V_1 and G_1 computed near the pixels that are not confident; None if these are many.

        Args:
            maps: The map of the backbone (N, C_1, h, w).
            deeper: Level 2 (N, C, h', w').
            audio: A (B, T, C).
            stage_audio: A_1 (B, T, C).
            outputs: O_2, O_3, O_4.
            valid: (B, T) bool; False marks padding frames.
            mask: M_1 (N, 1, h', w').
        """
        unsure = self._unsure(outputs, maps.shape)
        if unsure.float().mean() > _DENSE:
            return None
        near = grow(grow(grow(unsure)))
        needed = grow(near)
        frames = near.nonzero()[:, 0]
        reduced = conv_rows(cast("nn.Sequential", self.reduce["1"]), rows_of(maps, needed), needed, near)
        fused = cast("AVGA", cast("nn.ModuleDict", self.avga)["1"]).rows(reduced, audio.flatten(0, 1), frames)
        keep = None if mask is None else _mask_at(mask, maps.shape)[:, 0][near]
        clips = frames.div(valid.shape[1], rounding_mode="floor")
        guide = cast("QSCA", cast("nn.ModuleDict", self.qsca)["1"]).rows(fused, stage_audio, keep, valid, clips)
        return self._output_rows(fused, near, deeper, guide, outputs, unsure)

    def _gated(self, fused: Tensor, deeper: Tensor, guide: Tensor, outputs: Mapping[int, Tensor]) -> Tensor:
        """Return O_1 (N, K, h, w), computed at the pixels that are not confident and copied from O_2 elsewhere.

        Args:
            fused: V_1 (N, C, h, w).
            deeper: Level 2 (N, C, h', w').
            guide: G_1 (N, C, h, w).
            outputs: O_2, O_3, O_4.
        """
        unsure = self._unsure(outputs, fused.shape)
        if unsure.float().mean() > _DENSE:
            coarse = _resize(outputs[2], fused.shape)
            dense: Tensor = self.head["1"](self.gf["1"](fused, deeper, guide))
            return torch.where(unsure[:, None], dense, coarse)
        near = grow(grow(grow(unsure)))
        return self._output_rows(rows_of(fused, near), near, deeper, rows_of(guide, near), outputs, unsure)

    def _output_rows(
        self,
        fused: Tensor,
        near: Tensor,
        deeper: Tensor,
        guide: Tensor,
        outputs: Mapping[int, Tensor],
        unsure: Tensor,
    ) -> Tensor:
        """Return O_1 (N, K, h, w), computed at the pixels ``unsure`` and copied from O_2 elsewhere.

        Args:
            fused: V_1 at ``near``, (P, C).
            near: ``unsure`` grown three times, one pixel for each 3 × 3 convolution, (N, h, w) bool.
            deeper: Level 2 (N, C, h', w').
            guide: G_1 at ``near``, (P, C).
            outputs: O_2, O_3, O_4.
            unsure: (N, h, w) bool.
        """
        gf, head = cast("GF", self.gf["1"]), cast("nn.Sequential", self.head["1"])
        coarse = _resize(outputs[2], near.shape)
        for_head, for_fuse = grow(unsure), grow(grow(unsure))
        total = fused[for_fuse[near]]
        inputs = (gf.deeper, rows_of(_resize(deeper, near.shape), near)), (gf.guide, guide)
        for block, rows_near in inputs:
            if block is not None:
                total = total + conv_rows(block, rows_near, near, for_fuse)
        out = conv_rows(head, conv_rows(gf.fuse, total, for_fuse, for_head), for_head, unsure)
        return coarse.movedim(1, -1).masked_scatter(unsure.unsqueeze(-1), out.to(coarse.dtype)).movedim(-1, 1)

    def _unsure(self, outputs: Mapping[int, Tensor], size: torch.Size) -> Tensor:
        """Return the pixels that the masks of the gate leave for O_1, (N, h, w) bool."""
        mask: Tensor | None = None
        for i in STAGES[:-1]:
            mask = self._gate(mask, outputs[i]) if self._gate is not None else None
        if mask is None:
            raise ConfigError("the decoder is not gated: call gate first")
        return _mask_at(mask, size)[:, 0]

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """Return the terms of Eq. (11): Σ λ_i (BCE + IoU) over the four outputs; cross-entropy with several classes."""
        terms: dict[str, Tensor] = {}
        stages = zip((prediction.logits, *prediction.aux), self.config.stage_weights, strict=True)
        for i, (logits, weight) in enumerate(stages, 1):
            pair = labelled(logits, target)
            if self.classes == 1:
                terms[f"bce/{i}"] = weight * bce(*pair)
                terms[f"iou/{i}"] = weight * iou_loss(*pair, smooth=self.config.iou_smooth)
            else:
                terms[f"ce/{i}"] = weight * semantic_ce(*pair)
        return terms

    @classmethod
    def adopt(cls, state: Mapping[str, Tensor]) -> Adopted | None:
        """Recognise the authors' release: S4, MS3 or AVSS; ResNet-50 or PVT-v2-b5; 4 or 8 groups."""
        if not (any(k.startswith("qsca") for k in state) and any(k.startswith("output_conv") for k in state)):
            return None
        visual = visual_of(state)
        channels = rows(state, r"aud_fc1?\.weight", cls.Config.channels)
        config = cls.Config(
            visual=visual,
            audio="none",
            channels=channels,
            groups=channels // rows(state, r"avga\d\.fc\.1\.weight", channels // cls.Config.groups),
            **cls.RELEASE,  # type: ignore[arg-type]
        )
        # Only the PVT model of the release for MS3 names the audio layer aud_fc.
        audio = "aud_fc." if "aud_fc.weight" in state else "aud_fc1."
        unused = (*DEAD_COPY, "gf4.seq2.")
        classes = rows(state, r"output_conv\d\.3\.weight", 1)
        return Adopted(config, classes, lambda key: _release_source(key, visual, audio), unused)

    @classmethod
    def published(cls, config: Config) -> tuple[Config, int]:
        """Return the model of Table III: pooled tokens, A_0, and unused copies of ResNet stages and a GF branch."""
        branch = sum(p.numel() for p in _conv_bn_relu(config.channels, config.channels, 3).parameters())
        return replace(config, pool_tokens=True, unheard_audio=True), branch + dead_copy(config.visual)


def _per_stage(make: Callable[[int], nn.Module]) -> nn.ModuleDict:
    return nn.ModuleDict({str(i): make(i) for i in STAGES})


def _named_maps(attention: dict[int, Tensor], masks: dict[int, Tensor], valid: Tensor) -> dict[str, Tensor]:
    names = {i: "prior" if i == PRIOR else f"avga{i}" for i in attention}
    maps = {f"attention/{names[i]}": a.unflatten(0, valid.shape) for i, a in attention.items()}
    return maps | {f"mask/cim{i}": m.unflatten(0, valid.shape) for i, m in masks.items()}


_RELEASE_KEYS = (
    (r"^reduce\.(\d)\.", r"conv\1."),
    (r"^avga\.(\d)\.visual\.", r"avga\1.seq1."),
    (r"^avga\.(\d)\.mix\.", r"avga\1.seq2."),
    (r"^avga\.(\d)\.audio\.", r"avga\1.fc."),
    (r"^qsca\.(\d)\.audio\.", r"qsca\1.aud_fc."),
    (r"^qsca\.(\d)\.embed\.", r"qsca\1.attn.to_patch_embedding.1."),
    (r"^qsca\.(\d)\.norm\.", r"qsca\1.attn.transformer.layers.0.0.norm."),
    (r"^qsca\.(\d)\.", r"qsca\1.attn.transformer.layers.0.0.fn."),
    (r"\.visual_q\.", ".v_to_q."),
    (r"\.visual_kv\.", ".v_to_kv."),
    (r"\.audio_qkv\.", ".a_to_qkv."),
    (r"\.fn\.out\.", ".fn.to_out.0."),
    (r"^gf\.4\.guide\.", "gf4.seq1."),
    (r"^gf\.(\d)\.deeper\.", r"gf\1.seq1."),
    (r"^gf\.(\d)\.guide\.", r"gf\1.seq2."),
    (r"^gf\.(\d)\.fuse\.", r"gf\1.seq3."),
    (r"^head\.(\d)\.", r"output_conv\1."),
)


def _release_source(key: str, visual: str, audio: str) -> Source:
    """Return the location of one of our tensors in the authors' release."""
    if key.startswith("visual."):
        return visual_source(visual, key.removeprefix("visual."))
    return Source(rename(key, ((r"^audio_linear\.", audio), *_RELEASE_KEYS)))
