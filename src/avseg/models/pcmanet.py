"""PCMANet: Progressive Confident Masking Attention Network. Wang, Dong, Zhu, arXiv 2406.02345.

Stages i = 1..4 have stride 2^(i+1); stage 4 is the deepest and comes first.

=========  ==================  =============================================================
paper      here                shape
=========  ==================  =============================================================
F_i        ``maps[i]``         (N, C, h_i, w_i), N = B · T frames
A, A_i     ``audio``           (B, T, C)
V_i        ``fused[i]``        (N, C, h_i, w_i), out of AVGA
M_i        ``mask``            (N, 1, h, w) bool, True = not confident yet: this token asks
G_i        ``guide``           (N, C, h_i, w_i), out of QSCA
O_i        ``outputs[i]``      (N, K, h_i, w_i) logits
g, c       ``groups``, ``confidence``
=========  ==================  =============================================================

Differs from the paper:

1. Eq. (8) is a mean over pixels, not a sum: a sum would let the size of the picture decide how much Eq. (9) weighs.
2. Each QSCA passes its incoming audio through a linear layer of its own, as the release does; the paper is silent.
3. Queries see the audio of their whole clip, and audio the visual tokens of the whole clip, as in the release.
4. With several classes the loss is cross-entropy alone, and the largest softmax probability is the confidence.
5. Padded frames are no keys of the attention (``padding="mask"``), and no backbone sees them; the paper does not
   mention them.

The authors' release differs further; each difference is a field of ``Config`` whose default is the paper's, and
``RELEASE`` holds the release's values. One of them is not in any list we know: it reads the (n, C) tokens that leave
QSCA as (C, h, w) without transposing them, so that its guides are scrambled in space (``transpose_tokens``).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize, scaled_dot_product_attention

from avseg.errors import ConfigError, did_you_mean
from avseg.interface import Adopted, AVSModel, Clip, Prediction, Source, Target
from avseg.losses import bce, iou_loss, labelled, semantic_ce
from avseg.models._avsbench_keys import DEAD_COPY, dead_copy, rows, visual_of, visual_source
from avseg.nn.audio import AudioEncoder, AudioName
from avseg.nn.class_prior import PriorFusion
from avseg.nn.functional import real_frames, with_padding
from avseg.nn.visual import VisualBackbone, VisualName, VisualTraining

STAGES = (4, 3, 2, 1)
"""Deepest first, the order of computation."""
PRIOR = 0
"""Key of the class prior beside the attention maps of the stages."""


def _conv_bn_relu(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _resize(x: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Bilinear, to the last two of ``size``."""
    return interpolate(x, tuple(size[-2:]), mode="bilinear")


class AVGA(nn.Module):
    """Audio-Visual Group Attention, Fig. 3: one cosine map per channel group re-weights the group."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.visual = _conv_bn_relu(channels, channels, 1, groups)
        self.audio = nn.Sequential(nn.Linear(channels, channels), nn.Linear(channels, channels // groups), nn.ReLU())
        self.mix = _conv_bn_relu(channels, channels, 1)

    def forward(self, maps: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) and (N, C) → V (N, C, h, w) and the attention maps (N, g, h, w)."""
        grouped_NgDhw = self.visual(maps).unflatten(1, (self.groups, -1))
        audio_ND = normalize(self.audio(audio), dim=1)
        attention = torch.einsum("ngdhw,nd->nghw", normalize(grouped_NgDhw, dim=2), audio_ND)
        return self.mix((attention.unsqueeze(2) * grouped_NgDhw).flatten(1, 2)), attention


class QSCA(nn.Module):
    """Query-Selected Cross-Attention, Eq. (1)–(6): only tokens that are not confident ask the audio.

    Args:
        channels: C; the heads share it.
        heads: Attention heads.
        answer: Compute A_{i-1} too; without, there are no parameters for it.
        scatter_grad: Let the gradient through the scatter of selected tokens (paper) or cut it (release).
        transpose: Read tokens back as a map (paper) or as the release does.
        gather: Compute selected queries alone. False computes all and drops the others: equal values, static
            shapes, no saving; for export and for checking.
    """

    def __init__(
        self, channels: int, heads: int, *, answer: bool, scatter_grad: bool, transpose: bool, gather: bool
    ) -> None:
        super().__init__()
        self.heads, self.scatter_grad = heads, scatter_grad
        self.transpose, self.gather = transpose, gather
        self.audio = nn.Linear(channels, channels)
        self.embed = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.visual_q = nn.Linear(channels, channels, bias=False)
        self.visual_kv = nn.Linear(channels, 2 * channels, bias=False) if answer else None
        self.audio_qkv = nn.Linear(channels, (3 if answer else 2) * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(
        self, maps: Tensor, audio: Tensor, mask: Tensor | None, valid: Tensor, pool: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """A_{i-1}, G_i = QSCA(A_i, V_i, M_i), Eq. (1).

        Args:
            maps: V_i (B · T, C, h, w).
            audio: A_i (B, T, C).
            mask: M_i (B · T, 1, h', w') bool of any size; None lets all tokens ask.
            valid: (B, T) bool; other frames are no keys.
            pool: Attend on tokens pooled to this (h, w) (release) instead of all (paper).

        Returns:
            G_i (B · T, C, h, w) and A_{i-1} (B, T, C), or None without ``answer``.
        """
        size = maps.shape
        if pool is not None:
            maps = adaptive_avg_pool2d(maps, pool)
        tokens_BTNC = self.embed(maps.flatten(2).mT).unflatten(0, valid.shape)
        keep = None if mask is None else _mask_at(mask, maps.shape).flatten(1).view(tokens_BTNC.shape[:3])
        audio_BTC = self.audio(audio)
        audio_1, tokens_1 = self.norm(audio_BTC), self.norm(tokens_BTNC).flatten(1, 2)
        *q_a, k_a, v_a = (self._split(x) for x in self.audio_qkv(audio_1).chunk(2 if self.visual_kv is None else 3, -1))
        # A clip without a single valid frame attends to its padding: nobody reads the answer, but it stays finite.
        keys = (valid | ~valid.any(1, keepdim=True))[:, None, None]
        asked = self._visual_queries(tokens_1, keep, k_a, v_a, keys).view(tokens_BTNC.shape)
        tokens_BTNC = (self.out(asked) + tokens_BTNC).flatten(0, 1)
        guide = (tokens_BTNC.mT if self.transpose else tokens_BTNC).reshape(maps.shape)
        answer = (
            None if self.visual_kv is None else self._audio_queries(q_a[0], self.visual_kv(tokens_1), keys) + audio_BTC
        )
        return _resize(guide, size), answer

    def _audio_queries(self, q: Tensor, kv: Tensor, keys: Tensor) -> Tensor:
        """Eq. (3a): the audio of a clip asks all its visual tokens, K_v and V_v (B, T · N, 2 C) → (B, T, C)."""
        k, v = (self._split(x) for x in kv.chunk(2, -1))
        keys = keys.repeat_interleave(kv.shape[1] // keys.shape[-1], -1)
        answer: Tensor = self.out(_merge(scaled_dot_product_attention(q, k, v, keys)))
        return answer

    def _visual_queries(self, tokens: Tensor, keep: Tensor | None, k: Tensor, v: Tensor, keys: Tensor) -> Tensor:
        """Eq. (3b): kept visual tokens ask the audio of their clip; the others get zeros."""
        if keep is None:
            return self._ask(tokens, k, v, keys)
        keep = keep.flatten(1)
        if self.gather:
            answer = self._ask_selected(tokens, keep, k, v, keys)
        else:
            answer = self._ask(tokens, k, v, keys) * keep.unsqueeze(-1)
        return answer if self.scatter_grad else answer.detach()

    def _ask(self, tokens: Tensor, k: Tensor, v: Tensor, keys: Tensor) -> Tensor:
        """Visual queries (B, n, C) over the audio of their clip → (B, n, C)."""
        return _merge(scaled_dot_product_attention(self._split(self.visual_q(tokens)), k, v, keys))

    def _ask_selected(self, tokens: Tensor, keep: Tensor, k: Tensor, v: Tensor, keys: Tensor) -> Tensor:
        """Gather, ask, scatter, Eq. (4): the work shrinks with ``keep`` (B, T · N)."""
        per_clip = tokens[keep].split(keep.sum(1).tolist())
        answers = [self._ask(q[None], k[b : b + 1], v[b : b + 1], keys[b : b + 1])[0] for b, q in enumerate(per_clip)]
        selected = torch.cat(answers)
        return selected.new_zeros(tokens.shape).masked_scatter(keep.unsqueeze(-1), selected)

    def _split(self, x: Tensor) -> Tensor:
        """(B, n, C) → (B, heads, n, C / heads)."""
        return x.view(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)


def _merge(x: Tensor) -> Tensor:
    """(B, heads, n, C / heads) → (B, n, C)."""
    return x.transpose(1, 2).flatten(2)


def _mask_at(mask: Tensor, size: torch.Size) -> Tensor:
    """A mask (N, 1, h, w) at the last two of ``size``, by the nearest pixel."""
    return interpolate(mask.float(), tuple(size[-2:]), mode="nearest").bool()


class CIM(nn.Module):
    """Confidence-Induced Masking, Eq. (7): which pixels are not confident yet. No parameters.

    Args:
        confidence: c; a probability in (1 - c, c) is not confident.
        progression: What was confident once stays so.
        closed: Count the bounds themselves as not confident (release).
    """

    def __init__(self, confidence: float, *, progression: bool, closed: bool) -> None:
        super().__init__()
        self.confidence, self.progression, self.closed = confidence, progression, closed

    def forward(self, mask: Tensor | None, output: Tensor) -> Tensor:
        """M_i (N, 1, h', w') bool or None (all ones) and O_i (N, K, h, w) → M_{i-1} (N, 1, h, w) bool."""
        one_class = output.shape[1] == 1
        p = output.float().sigmoid() if one_class else output.float().softmax(1).amax(1, keepdim=True)
        low, high = 1 - self.confidence, self.confidence
        unsure = (p >= low) & (p <= high) if self.closed else (p > low) & (p < high)
        return unsure & _mask_at(mask, output.shape) if self.progression and mask is not None else unsure


class GF(nn.Module):
    """Guided Fusion: level + conv(deeper, enlarged) + conv(guide), then conv. The deepest level has no deeper one."""

    def __init__(self, channels: int, *, deeper: bool, guide: bool) -> None:
        super().__init__()
        self.deeper = _conv_bn_relu(channels, channels, 3) if deeper else None
        self.guide = _conv_bn_relu(channels, channels, 3) if guide else None
        self.fuse = _conv_bn_relu(channels, channels, 3)

    def forward(self, level: Tensor, deeper: Tensor | None, guide: Tensor | None) -> Tensor:
        """All (N, C, h, w), ``deeper`` smaller → (N, C, h, w)."""
        total = level
        if self.deeper is not None and deeper is not None:
            total = total + self.deeper(_resize(deeper, level.shape))
        if self.guide is not None and guide is not None:
            total = total + self.guide(guide)
        out: Tensor = self.fuse(total)
        return out


def _head(channels: int, classes: int) -> nn.Sequential:
    """O_i: 3×3 convolution to C / 2, 1×1 to K logits."""
    return nn.Sequential(*_conv_bn_relu(channels, channels // 2, 3), nn.Conv2d(channels // 2, classes, 1))


class PCMANet(AVSModel):
    """Audio picks its pixels by cosine (AVGA), then answers the pixels that are not confident yet (CIM, QSCA)."""

    @dataclass(frozen=True)
    class Config:
        """Settings of PCMANet; defaults are the paper's.

        Attributes:
            visual: Visual backbone.
            audio: Audio encoder: ``vggish`` (paper), ``compact``, ``mobile``, or ``none`` for embeddings alone.
            train_audio: Train the audio encoder too; the paper freezes VGGish.
            audio_dim: D of the embeddings when ``audio`` is ``none``.
            stereo: Hear two channels, each through the same encoder (ours; VPO has stereo sound).
            channels: C, of all fused maps.
            groups: g, of AVGA. The release's S4 ResNet-50 has 4.
            heads: Attention heads of QSCA.
            confidence: c, the threshold of CIM.
            avga: Off: V_i is F_i plus the audio on every pixel ("baseline" of Table IV).
            qsca: Off: no guides, levels are fused as in FPN.
            select: Off: all tokens ask ("QSCA without mask").
            continuity: Off: every QSCA hears the first audio A ("without continuity").
            progression: Off: masks of different stages are independent ("CIM without progression").
            pool_tokens: QSCA on tokens pooled to the size of the stage before (release) instead of all.
            scatter_grad: Gradient through the scatter of selected tokens; the release has none.
            transpose_tokens: Tokens go back to where they came from; in the release they do not.
            closed_bounds: The probabilities c and 1 - c themselves are not confident (release).
            unheard_audio: Compute audio answers that nothing hears, A_0 first of all (release); their parameters cannot
                learn.
            padding: Absent frames: ``mask`` them out of the attention, or ``zero`` their features (release).
            gather: Compute selected queries alone; off for export.
            iou_smooth: Added in Eq. (9); the release has 1.
            stage_weights: λ_1 … λ_4 of Eq. (11).
            class_prior: Add maps of where the sounding AudioSet classes are seen by an ImageNet classifier to V_i
                (ours, :mod:`avseg.nn.class_prior`); with ``visual`` efficientnet_lite0 and ``audio`` mobile.
            embedding_dropout: With ``class_prior``, the probability that the audio embeddings of a training clip are
                replaced by zeros, so that the prior alone decides.
        """

        visual: VisualName = "resnet50"
        visual_training: VisualTraining = "full"
        audio: AudioName = "vggish"
        train_audio: bool = False
        audio_dim: int = 128
        stereo: bool = False
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
            for name, choices in (
                ("audio", get_args(AudioName)),
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
                raise ConfigError(f"confidence must lie in 0.5 … 1, got {self.confidence}")
            if self.class_prior and (self.visual, self.audio, self.stereo) != ("efficientnet_lite0", "mobile", False):
                raise ConfigError(
                    "class_prior needs visual = 'efficientnet_lite0', audio = 'mobile' and stereo = False, "
                    f"got {self.visual!r}, {self.audio!r} and {self.stereo}"
                )
            if not 0 <= self.embedding_dropout < 1:
                raise ConfigError(f"embedding_dropout must lie in 0 … 1 and be below 1, got {self.embedding_dropout}")

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
    """What the authors' release chose otherwise than the paper."""

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__(config, classes)
        c = config
        self.visual = VisualBackbone(c.visual, c.visual_training)
        self.audio = AudioEncoder(c.audio, train=c.train_audio, dim=c.audio_dim, stereo=c.stereo, scores=c.class_prior)
        self.reduce = _per_stage(lambda i: _conv_bn_relu(self.visual.channels[i - 1], c.channels, 3))
        self.audio_linear = nn.Linear(self.audio.dim, c.channels)
        self.avga = _per_stage(lambda i: AVGA(c.channels, c.groups)) if c.avga else None
        self.prior = PriorFusion(c.channels, STAGES) if c.class_prior else None
        self.qsca = _per_stage(self._new_qsca) if c.qsca else None
        self.cim = CIM(c.confidence, progression=c.progression, closed=c.closed_bounds)
        self.gf = _per_stage(lambda i: GF(c.channels, deeper=i < max(STAGES), guide=c.qsca))
        self.head = _per_stage(lambda i: _head(c.channels, classes))

    def _new_qsca(self, stage: int) -> QSCA:
        c = self.config
        # Nothing hears A_0; without continuity nothing hears any A_{i-1}.
        heard = c.continuity and stage > min(STAGES)
        return QSCA(
            c.channels,
            c.heads,
            answer=heard or c.unheard_audio,
            scatter_grad=c.scatter_grad,
            transpose=c.transpose_tokens,
            gather=c.gather,
        )

    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        """Answer a clip of any T, H, W. ``target`` is not used.

        Returns:
            ``aux``: O_2, O_3, O_4 at the size of the frames. ``scalars``: ``keep_ratio/4``, ``/3``, ``/2``, the share
            of pixels of O_i that ask in the next stage. ``maps``: ``attention/avga1`` … ``4`` (B, T, g, h, w),
            ``mask/cim4``, ``3``, ``2`` (B, T, 1, h, w), ``attention/prior`` (B, T, 4, h, w).
        """
        zero = self.config.padding == "zero"
        frames, valid = clip.frames.flatten(0, 1), clip.valid
        stages = self.visual(real_frames(clip.frames, valid))
        features = {i: with_padding(self.reduce[str(i)](f), valid) for i, f in enumerate(stages, 1)}
        embeddings = self.audio(clip.audio)
        if zero:
            features = {i: f * valid.flatten().view(-1, 1, 1, 1) for i, f in features.items()}
            embeddings = embeddings * valid.unsqueeze(-1)
            valid = torch.ones_like(valid)
        audio = self.audio_linear(self._dropped(embeddings))
        fused, attention = self._fuse(features, audio)
        if self.prior is not None:
            scores = self.audio.scores(embeddings).flatten(0, 1)
            fused, attention[PRIOR] = self.prior(fused, with_padding(stages[-1], clip.valid), scores)
        outputs, masks = self._decode(fused, audio, valid)
        logits = {i: _resize(o, frames.shape).unflatten(0, valid.shape) for i, o in outputs.items()}
        seen = valid.flatten()
        return Prediction(
            logits=logits[1],
            aux=tuple(logits[i] for i in sorted(logits) if i > 1),
            scalars={f"keep_ratio/{i}": m[seen].float().mean() for i, m in masks.items()},
            maps=_named_maps(attention, masks, valid) if maps else {},
        )

    def _dropped(self, embeddings: Tensor) -> Tensor:
        """Return (B, T, D) embeddings, in training with those of some clips replaced by zeros."""
        if not (self.training and self.prior is not None and self.config.embedding_dropout):
            return embeddings
        kept = torch.rand(len(embeddings), 1, 1, device=embeddings.device) >= self.config.embedding_dropout
        return embeddings * kept

    def _fuse(self, features: dict[int, Tensor], audio: Tensor) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """V_i of all stages, and the attention maps that made them."""
        audio_NC = audio.flatten(0, 1)
        if self.avga is None:
            return {i: f + audio_NC[:, :, None, None] for i, f in features.items()}, {}
        pairs = {i: self.avga[str(i)](f, audio_NC) for i, f in features.items()}
        return {i: v for i, (v, _) in pairs.items()}, {i: a for i, (_, a) in pairs.items()}

    def _decode(self, fused: dict[int, Tensor], audio: Tensor, valid: Tensor) -> tuple[dict[int, Tensor], ...]:
        """O_i of all stages and the masks M_{i-1} they induced, Fig. 2."""
        outputs: dict[int, Tensor] = {}
        masks: dict[int, Tensor] = {}
        heard = audio
        level: Tensor | None = None
        mask: Tensor | None = None
        for i in STAGES:
            guide = None
            if self.qsca is not None:
                pool = (level.shape[2], level.shape[3]) if self.config.pool_tokens and level is not None else None
                guide, answer = self.qsca[str(i)](fused[i], heard, mask, valid, pool)
                heard = answer if self.config.continuity else audio
            level = self.gf[str(i)](fused[i], level, guide)
            outputs[i] = self.head[str(i)](level)
            if self.qsca is not None and self.config.select and i > min(STAGES):
                masks[i] = mask = self.cim(mask, outputs[i])
        return outputs, masks

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """Eq. (11): Σ λ_i (BCE + IoU) over the four outputs; cross-entropy alone with several classes."""
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
        """The authors' release: S4, MS3, AVSS; ResNet-50 or PVT-v2-b5; 4 or 8 groups."""
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
        # The release's PVT model for MS3 alone calls the audio layer aud_fc.
        audio = "aud_fc." if "aud_fc.weight" in state else "aud_fc1."
        unused = (*DEAD_COPY, "gf4.seq2.")
        classes = rows(state, r"output_conv\d\.3\.weight", 1)
        return Adopted(config, classes, lambda key: _release_source(key, visual, audio), unused)

    @classmethod
    def published(cls, config: Config) -> tuple[Config, int]:
        """Table III: tokens pooled, A_0 computed, never used copies of ResNet's stages 3, 4 and a GF branch counted."""
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
    """Where a tensor of ours is in the authors' release."""
    if key.startswith("visual."):
        return visual_source(visual, key.removeprefix("visual."))
    for pattern, replacement in (("^audio_linear\\.", audio), *_RELEASE_KEYS):
        key = re.sub(pattern, replacement, key)
    return Source(key)
