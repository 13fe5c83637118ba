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

AVGA, QSCA, CIM and GF are in ``_pcmanet_parts.py``; decoding at selected pixels, which is ours, in
``_pcmanet_gating.py``.

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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from avseg.errors import ConfigError
from avseg.interface import Adopted, AVSModel, Clip, Prediction, Source, Target
from avseg.losses import bce, iou_loss, labelled, semantic_ce
from avseg.models._avsbench_keys import DEAD_COPY, dead_copy, rows, visual_of, visual_source
from avseg.models._pcmanet_gating import ClipAudio, FinestStage, gated_output, is_sparse, late_output
from avseg.models._pcmanet_parts import AVGA, CIM, GF, QSCA, conv_bn_relu, mask_at, output_head, resize
from avseg.nn.class_prior import PriorFusion, object_classes
from avseg.nn.encoders import EncoderConfig, build_encoders
from avseg.nn.functional import has_padding, real_frames, with_padding
from avseg.nn.keys import rename
from avseg.nn.visual import VisualTraining

STAGES = (4, 3, 2, 1)
"""Deepest first, the order of computation."""
_IN_MASK = 0.25
"""Share of a position that must be predicted to count in :meth:`PCMANet.object_scores`."""
PRIOR = 0
"""Key of the class prior among the attention maps of the stages."""


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
        self.reduce = _per_stage(lambda i: conv_bn_relu(self.visual.channels[i - 1], c.channels, 3))
        self.audio_linear = nn.Linear(self.audio.dim, c.channels)
        self.avga = _per_stage(lambda i: AVGA(c.channels, c.groups)) if c.avga else None
        self.prior = PriorFusion(c.channels, STAGES) if c.class_prior else None
        self.qsca = _per_stage(self._new_qsca) if c.qsca else None
        self.cim = CIM(c.confidence, progression=c.progression, closed=c.closed_bounds)
        self.gf = _per_stage(lambda i: GF(c.channels, deeper=i < max(STAGES), guide=c.qsca))
        self.head = _per_stage(lambda i: output_head(c.channels, classes))
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
        logits = {i: resize(o, frames.shape).unflatten(0, valid.shape) for i, o in outputs.items()}
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
        """Return the names of the classes of the class prior; empty without it, and for a task with several classes."""
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
            gated = level if self._gate is not None and i == min(STAGES) else None  # level 2
            if gated is not None and late is not None:
                unsure = self._unsure(outputs, late.shape)
                if is_sparse(unsure):
                    clips = ClipAudio(audio, stage_audio, valid)
                    outputs[i] = late_output(self._finest(), late, gated, outputs[2], unsure, mask, clips)
                    break
                fused |= self._fuse({i: self.reduce[str(i)](late)}, audio)[0]
            guide = None
            if self.qsca is not None:
                pool = (level.shape[2], level.shape[3]) if self.config.pool_tokens and level is not None else None
                guide, updated = self.qsca[str(i)](fused[i], stage_audio, mask, valid, pool)
                stage_audio = updated if self.config.continuity else audio
            if gated is not None and guide is not None:
                unsure = self._unsure(outputs, fused[i].shape)
                guide = resize(guide, fused[i].shape)
                outputs[i] = gated_output(self._finest(), fused[i], gated, guide, outputs[2], unsure)
                break
            level = self.gf[str(i)](fused[i], level, guide)
            outputs[i] = self.head[str(i)](level)
            if self.qsca is not None and self.config.select and i > min(STAGES):
                masks[i] = mask = self.cim(mask, outputs[i])
        return outputs, masks

    def _finest(self) -> FinestStage:
        """Return the modules of stage 1, which :meth:`gate` computes in part."""
        model: Any = self
        avga = None if self.avga is None else model.avga["1"]
        return FinestStage(model.reduce["1"], avga, model.qsca["1"], model.gf["1"], model.head["1"])

    def _unsure(self, outputs: Mapping[int, Tensor], size: torch.Size) -> Tensor:
        """Return the pixels that the masks of the gate leave for O_1, (N, h, w) bool."""
        mask: Tensor | None = None
        for i in STAGES[:-1]:
            mask = self._gate(mask, outputs[i]) if self._gate is not None else None
        if mask is None:
            raise ConfigError("the decoder is not gated: call gate first")
        return mask_at(mask, size)[:, 0]

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
        branch = sum(p.numel() for p in conv_bn_relu(config.channels, config.channels, 3).parameters())
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
