"""AMA+UE: audio-guided modality alignment with uncertainty estimation. Liu et al., CVPR 2025, arXiv 2503.12847.

After every backbone stage, similar visual tokens are clustered, the tokens of a cluster are weighted by their audio
response, and the result is added to the input of the next stage. Then the frames of a clip attend to each other, and a
second head predicts a per-pixel uncertainty map.

n frames, stages l = 1..4 with stride 2^(l+1), N_l = h_l · w_l tokens of D_l channels, P groups, C classes (2 when
K = 1).

=============  =====================  =================================================================
paper          here                   shape
=============  =====================  =================================================================
f_l            ``tokens``             (n, N_l, D_l), after a layer norm
a              ``audio``              (n, D_l), the audio embedding of the frame, projected to the stage
S              ``response``           (n, N_l), audio response of each token
clusters       ``members``            (n, P, N_l) bool, membership of tokens in groups
G_l            ``compact``            (n, P, D_l), one vector per group
m              ``logits``             (B, T, K, H, W) of the mask head, upsampled
α              ``alpha``              (n, C, h_1, w_1) concentrations of a Dirichlet distribution, 1 or more
U              ``uncertainty``        (n, 1, H, W) = C / Σ α, upsampled
λ, μ           ``contrast_weight, evidence_weight``
=============  =====================  =================================================================

There is no public code. We worked from notes on the paper, not its full text, so equations are unnumbered. For a
setting that the notes do not contain, the docstring of ``Config`` names another source (DDESeg is the same authors'
release of arXiv 2503.12840) or "ours"; docs/papers/ama_ue.md lists the open points.

Differs from the paper, or from the known part of it:

1. The output of AMA is added to the backbone map, with one learned factor per channel for tokens and one for groups,
   initialised to ``residual_scale``, because the stages of a pretrained backbone expect their usual inputs.
2. The audio is one VGGish embedding per frame, where DDESeg has HTS-AT. With a single audio token the softmax of
   cross-attention would always be 1, so its logits are the response.
3. Large maps are clustered around centres found on a smaller grid (:func:`avseg.nn.dpc_knn.group`).
4. The evidential loss compares predictions with labels at the resolution of the head.
5. Classes that are absent from a frame take no part in the Dice and IoU losses.
6. Audio vectors, fused tokens and groups are normalised to equal length, so that S has an effect on the similarities
   it is added to.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, layer_norm, normalize, one_hot, scaled_dot_product_attention

from avseg.errors import ConfigError
from avseg.interface import IGNORE, AVSModel, Clip, Prediction, Target
from avseg.losses import bce, dice_loss, info_nce, iou_loss, labelled, semantic_ce
from avseg.nn.audio import AudioName
from avseg.nn.dpc_knn import group
from avseg.nn.encoders import EncoderConfig, build_encoders
from avseg.nn.evidence import Activation, DataTerm, concentration, down_weighted, evidential_loss, vacuity
from avseg.nn.functional import full_precision, real_frames, with_padding
from avseg.nn.visual import VisualName
from avseg.settings import check_positive

STAGES = (1, 2, 3, 4)
Merging = Literal["audio", "mean"]
Correlation = Literal["global", "group"]
Positives = Literal["response", "truth"]
Supervise = Literal["final", "mask"]


class Aligned(NamedTuple):
    """Intermediate results of one AMA.

    Attributes:
        tokens: f_l (n, N, D).
        audio: a (n, D).
        response: S (n, N).
        members: (n, P, N) bool, membership of tokens in groups; None without grouping.
        size: (h, w) with h · w = N.
    """

    tokens: Tensor
    audio: Tensor
    response: Tensor
    members: Tensor | None
    size: tuple[int, int]


class AMA(nn.Module):
    """Audio-guided Modality Alignment: cluster tokens, merge clusters by audio response, refine, and add to the map.

    Args:
        channels: D of the map.
        audio: D of the audio embeddings.
        config: Settings of the model.
    """

    def __init__(self, channels: int, audio: int, config: "AMAUE.Config") -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(channels)
        inside = nn.Linear(audio, channels), nn.GELU(), nn.Linear(channels, channels)
        self.audio = nn.Sequential(nn.LayerNorm(audio), *inside, nn.LayerNorm(channels))
        self.query, self.key, self.value = (nn.Linear(channels, channels) for _ in range(3))
        layers = config.refine_layers if config.grouping else 0
        self.layers = nn.ModuleList(Mixing(channels, config.heads) for _ in range(layers))
        self.token_out = nn.LayerNorm(channels)
        self.group_out = nn.LayerNorm(channels) if config.grouping else None
        for norm in filter(None, (self.token_out, self.group_out)):
            nn.init.constant_(norm.weight, config.residual_scale)

    def forward(self, maps: Tensor, audio: Tensor) -> tuple[Tensor, Aligned]:
        """Align one stage.

        Args:
            maps: (n, D, h, w).
            audio: (n, D_a).

        Returns:
            The map for the next stage (n, D, h, w), and intermediate results.
        """
        c, size = self.config, (maps.shape[2], maps.shape[3])
        tokens = self.norm(maps.flatten(2).mT)
        audio = self.audio(audio)
        response = self._respond(tokens, audio)
        fused = _unit(tokens + response.sigmoid().unsqueeze(-1) * self.value(audio).unsqueeze(1))
        change: Tensor = self.token_out(fused)
        members = None
        if self.group_out is not None:
            groups = group(tokens.mT.unflatten(2, size), c.groups, c.neighbours, c.cluster_grid)
            members = one_hot(groups, min(c.groups, groups.shape[1])).mT.bool()
            compact = self._converge(fused, response, members)
            change = change + self.group_out(compact).gather(1, groups.unsqueeze(-1).expand_as(fused))
        return maps + change.mT.unflatten(2, size), Aligned(tokens, audio, response, members, size)

    def _respond(self, tokens: Tensor, audio: Tensor) -> Tensor:
        """Compute S (n, N), cross-attention logits averaged over heads, from (n, N, D) and (n, D)."""
        per_head = tokens.shape[-1] // self.config.heads
        logits: Tensor = (self.query(tokens) @ self.key(audio).unsqueeze(-1)).squeeze(-1)
        return logits / (self.config.heads * math.sqrt(per_head))

    def _converge(self, fused: Tensor, response: Tensor, members: Tensor) -> Tensor:
        """Merge the tokens of each group to G (n, P, D), then apply G ← G + softmax(G fᵀ / √D + S) f in each layer."""
        # A group whose centre is on the smaller grid may be empty; it then attends to the whole frame.
        keys = members | ~members.any(-1, keepdim=True)
        score = response.unsqueeze(1) if self.config.merging == "audio" else torch.zeros_like(response).unsqueeze(1)
        within = score.masked_fill(~keys, -torch.inf)
        compact = within.softmax(-1) @ fused
        bias = within if self.config.correlation == "group" else score
        for layer in self.layers:
            logits = compact @ fused.mT / math.sqrt(fused.shape[-1]) + bias
            compact = layer(compact + logits.softmax(-1) @ fused)
        return compact


class Mixing(nn.Module):
    """Apply self-attention among groups and a feed-forward block, the rest of a transformer decoder layer."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.forward_block = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, compact: Tensor) -> Tensor:
        """Map (n, P, D) to the same shape."""
        x = self.norm(compact)
        compact = compact + self.attention(x, x, x, need_weights=False)[0]
        return _unit(compact + self.forward_block(compact))


class Temporal(nn.Module):
    """Apply self-attention over the frames of a clip at every position; padding frames are not keys."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.inside = nn.Linear(channels, 3 * channels)
        self.outside = nn.Linear(channels, channels)

    def forward(self, maps: Tensor, valid: Tensor) -> Tensor:
        """Map (B · T, C, h, w) and ``valid`` (B, T) to the same shape, with a residual connection."""
        size = maps.shape[-2:]
        tokens_BNTC = maps.flatten(2).unflatten(0, valid.shape).permute(0, 3, 1, 2)
        qkv = self.inside(self.norm(tokens_BNTC)).unflatten(-1, (3, self.heads, -1))
        # Positions are part of the batch: ONNX has attention of four dimensions only.
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(1, 2).unbind(0)
        # In a clip of padding frames only, the padding is the keys, so that the unused output stays finite.
        keys = (valid | ~valid.any(1, keepdim=True)).repeat_interleave(tokens_BNTC.shape[1], 0)[:, None, None]
        attended = scaled_dot_product_attention(q, k, v, keys).transpose(1, 2).flatten(2)
        tokens_BNTC = tokens_BNTC + self.outside(attended.unflatten(0, tokens_BNTC.shape[:2]))
        out: Tensor = tokens_BNTC.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, size)
        return out


class _State(NamedTuple):
    """Intermediate results for :meth:`AMAUE.loss`.

    Attributes:
        logits: (B, T, K, H, W) of the mask head, before down-weighting by uncertainty.
        alpha: α; None without ``uncertainty``.
        aligned: Results of each AMA on real frames.
        audible: (n,) bool, real frames with sound.
        valid: (B, T) of the clip.
    """

    logits: Tensor
    alpha: Tensor | None
    aligned: tuple[Aligned, ...]
    audible: Tensor
    valid: Tensor


class AMAUE(AVSModel):
    """AMA+UE: audio-guided merging of similar tokens, and a per-pixel uncertainty map."""

    @dataclass(frozen=True)
    class Config(EncoderConfig):
        """Settings of AMA+UE. The source is the notes on the paper unless another is named; "ours" marks our choice.

        Attributes:
            visual: Visual backbone (DDESeg: one of the size of PVT-v2-b5, or Swin).
            audio: Audio encoder: ``vggish`` (ours; DDESeg has HTS-AT, frozen), ``compact``, ``mobile``, or ``none`` for
                a model that takes embeddings.
            channels: C of the decoder (ours; DDESeg 256 or 768).
            heads: Heads of all attention layers (8: DDESeg).
            stages: Backbone stages followed by an AMA (paper: all).
            grouping: False: no groups; each token is weighted by its audio response only ("baseline" of the ablation).
            groups: P (5: DDESeg); fewer if a map has fewer tokens.
            neighbours: k of DPC-KNN (5: TCFormer).
            cluster_grid: Maximum side of the grid on which cluster centres are searched (ours: 28).
            merging: Weight of tokens in their group: ``audio`` response (paper), or ``mean`` for equal weights
                ("+ semantic grouping" of the ablation, where S is 0 in the refinement, too).
            correlation: Tokens that the refinement attends to: ``global`` for all (the formula has no mask), or
                ``group`` for those of the group.
            refine_layers: Layers of the refinement in each AMA (ours: 2).
            residual_scale: Initial factor of the output of AMA (ours).
            temporal: Temporal self-attention over frames (paper).
            uncertainty: Predict uncertainty with a second head; False uses the logits of the mask head.
            supervise_logits: Logits that L_seg supervises: ``final``, down-weighted by uncertainty (ours; the notes do
                not specify it), or ``mask``, those of the mask head; L_seg then does not train the uncertainty.
            ce: Weight of the cross-entropy (5: DDESeg).
            dice: Weight of the Dice loss (5: DDESeg).
            iou: Weight of the IoU loss (2: DDESeg).
            dice_smooth: Constant added in Dice and IoU (1e-5: DDESeg). With this value, frames without a sounding
                object have almost no gradient.
            absent: Include classes that are absent from a frame in Dice and IoU (DDESeg).
            contrast_weight: λ; 0 disables L_cst (0.1: ours).
            positives: Positives of L_cst: the tokens of highest ``response`` (paper), or those of the ground ``truth``
                (an ablation that the paper reports as worse).
            contrast_share: Share of the tokens of a frame that are positives, and that are negatives (ours: 0.2).
            temperature: Temperature of L_cst (ours: 0.07).
            evidence_weight: μ, weight of L_unc, which exists only with ``uncertainty`` (5: ours, equal to ``ce``).
            activation: Function from logits to evidence: ``exp`` (ours) or ``softplus``.
            data_term: Data term of L_unc: ``cross_entropy``, eq. (4) of Sensoy et al. (ours), or ``likelihood``, their
                eq. (3), with which the KL term removes all evidence of a pixel whose classes are equally likely.
            kl_weight: Final weight of the KL term of L_unc (0.1: ours; Sensoy et al.: 1). The KL term removes
                evidence, and therefore mask area, wherever classes are uncertain.
            kl_anneal_steps: Batches over which the weight of the KL term rises from 0 (Sensoy et al.: 10 epochs).
            dropout: Dropout before the heads (0.1: DDESeg).
        """

        visual: VisualName = "pvt_v2_b5"
        audio: AudioName = "vggish"
        channels: int = 256
        heads: int = 8
        stages: tuple[int, ...] = STAGES
        grouping: bool = True
        groups: int = 5
        neighbours: int = 5
        cluster_grid: int = 28
        merging: Merging = "audio"
        correlation: Correlation = "global"
        refine_layers: int = 2
        residual_scale: float = 0.1
        temporal: bool = True
        uncertainty: bool = True
        supervise_logits: Supervise = "final"
        ce: float = 5.0
        dice: float = 5.0
        iou: float = 2.0
        dice_smooth: float = 1e-5
        absent: bool = False
        contrast_weight: float = 0.1
        positives: Positives = "response"
        contrast_share: float = 0.2
        temperature: float = 0.07
        evidence_weight: float = 5.0
        activation: Activation = "exp"
        data_term: DataTerm = "cross_entropy"
        kl_weight: float = 0.1
        kl_anneal_steps: int = 5000
        dropout: float = 0.1

        def __post_init__(self) -> None:
            super().__post_init__()
            if len({*self.stages}) < len(self.stages) or not {*self.stages} <= {*STAGES}:
                raise ConfigError(f"stages must be different numbers out of {STAGES}, got {tuple(self.stages)}")
            check_positive(self, "channels", "heads", "groups", "neighbours", "cluster_grid", "refine_layers")
            check_positive(self, "kl_anneal_steps")
            if self.channels % self.heads:
                raise ConfigError(f"channels must be a multiple of heads = {self.heads}, got {self.channels}")
            for name in ("ce", "dice", "iou", "contrast_weight", "evidence_weight", "kl_weight"):
                if not getattr(self, name) >= 0:  # NaN is not, either
                    raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")
            if not (self.dice_smooth > 0 and self.temperature > 0):
                raise ConfigError(
                    f"dice_smooth and temperature must be above 0, got {self.dice_smooth} and {self.temperature}"
                )
            if not 0 < self.contrast_share <= 0.5:
                raise ConfigError(f"contrast_share must be in (0, 0.5], got {self.contrast_share}")
            if not 0 <= self.dropout < 1:
                raise ConfigError(f"dropout must be in [0, 1), got {self.dropout}")

    paper: ClassVar[str] = "2503.12847"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "backbone": ("visual",),
        "audio": ("audio",),
        "fusion": ("alignment", "temporal"),
        "decoder": ("levels", "fuse", "mask", "evidence_head"),
    }
    steps: Tensor

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__(config, classes)
        c = config
        self.visual, self.audio = build_encoders(c)
        if any(self.visual.channels[i - 1] % c.heads for i in c.stages):
            raise ConfigError(f"heads = {c.heads} must divide the channels of {c.visual}, {self.visual.channels}")
        self.alignment = nn.ModuleDict(
            {str(i): AMA(self.visual.channels[i - 1], self.audio.dim, c) for i in sorted(c.stages)}
        )
        self.levels = nn.ModuleList(nn.Conv2d(d, c.channels, 1) for d in self.visual.channels)
        self.fuse = nn.Sequential(
            nn.Conv2d(len(STAGES) * c.channels, c.channels, 1, bias=False), nn.BatchNorm2d(c.channels), nn.ReLU()
        )
        self.temporal = Temporal(c.channels, c.heads) if c.temporal else None
        self.dropout = nn.Dropout2d(c.dropout)
        self.mask = nn.Conv2d(c.channels, classes, 1)
        self.evidence_head = nn.Conv2d(c.channels, max(classes, 2), 1) if c.uncertainty else None
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        """Predict masks for a clip of any T, H, W. ``target`` is not used.

        Returns:
            Prediction with ``maps``: with ``uncertainty``, ``uncertainty`` (B, T, 1, h, w), U, which is 1 without
            evidence; ``attention/ama1`` … ``4`` (B, T, 1, h, w), audio response of each token in 0..1; with
            ``grouping``, ``group/ama1`` … ``4`` (B, T, P, h, w), membership in groups. ``scalars``: with
            ``uncertainty``, ``uncertainty``, the mean of U.
        """
        valid = clip.valid
        embeddings = real_frames(self.audio(clip.audio), valid)
        aligned: dict[int, Aligned] = {}

        def align(stage: int, x: Tensor) -> Tensor:
            if stage in self.config.stages:
                x, aligned[stage] = self.alignment[str(stage)](x, embeddings)
            return x

        stages = self.visual(real_frames(clip.frames, valid), align)
        features = with_padding(self._decode(stages), valid)
        if self.temporal is not None:
            features = self.temporal(features, valid)
        features = self.dropout(features)
        logits: Tensor = _upsampled(self.mask(features), clip.frames).unflatten(0, valid.shape)
        alpha = (
            None if self.evidence_head is None else concentration(self.evidence_head(features), self.config.activation)
        )
        final, scalars = logits, {}
        if alpha is not None:
            uncertainty = _upsampled(vacuity(alpha), clip.frames)
            scalars = {"uncertainty": uncertainty[valid.flatten()].mean()}
            final = down_weighted(logits.flatten(0, 1), uncertainty).unflatten(0, valid.shape)
        state = _State(logits, alpha, tuple(aligned.values()), _audible(clip), valid)
        return Prediction(final, maps=_maps(aligned, alpha, valid) if maps else {}, scalars=scalars, state=state)

    def _decode(self, stages: tuple[Tensor, ...]) -> Tensor:
        """Fuse all levels at the size of the first to (n, C, h_1, w_1), as the head of SegFormer does."""
        size = stages[0].shape[-2:]
        levels = [interpolate(level(x), size, mode="bilinear") for level, x in zip(self.levels, stages, strict=True)]
        fused: Tensor = self.fuse(torch.cat(levels, 1))
        return fused

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """Return the terms of L = L_seg + λ L_cst + μ L_unc, L_seg = CE + Dice + IoU, each with its weight."""
        c, state = self.config, prediction.state
        pair = labelled(prediction.logits if c.supervise_logits == "final" else state.logits, target)
        ce = bce(*pair) if self.classes == 1 else semantic_ce(*pair)
        terms = {
            "bce" if self.classes == 1 else "ce": c.ce * ce,
            "dice": c.dice * dice_loss(*pair, smooth=c.dice_smooth, absent=c.absent),
            "iou": c.iou * iou_loss(*pair, smooth=c.dice_smooth, absent=c.absent),
        }
        if c.contrast_weight and state.aligned:
            terms["contrast"] = c.contrast_weight * self._contrast(state, target)
        if state.alpha is not None:
            terms["evidence"] = c.evidence_weight * self._evidence(state.alpha, target)
        return terms

    def after_step(self, prediction: Prediction, target: Target) -> None:
        """Count the batch for the annealing of the KL term."""
        self.steps += 1

    def _evidence(self, alpha: Tensor, target: Target) -> Tensor:
        """Compute L_unc at the resolution of the head, with labels of the nearest pixels."""
        labels = target.masks[target.labelled]
        if self.classes == 1:
            labels = torch.where(labels == IGNORE, IGNORE, (labels != 0).long())
        near = _nearest(labels, (alpha.shape[2], alpha.shape[3]))
        c = self.config
        divergence = c.kl_weight * (self.steps / c.kl_anneal_steps).clamp(max=1.0)
        return evidential_loss(alpha[target.labelled.flatten()], near, divergence, c.data_term)

    def _contrast(self, state: _State, target: Target) -> Tensor:
        """Compute L_cst, averaged over stages."""
        c = self.config
        terms = []
        for stage in state.aligned:
            if c.positives == "response":
                positive, negative = extremes(stage.response, c.contrast_share)
            else:
                positive, negative = _by_truth(target, state.valid, stage.size)
            audible = state.audible.unsqueeze(1)
            pair = positive & audible, negative & audible
            with full_precision(stage.audio):
                audio, tokens = (normalize(x.float(), dim=-1) for x in (stage.audio, stage.tokens))
                similarity = torch.einsum("bd,bkd->bk", audio, tokens) / c.temperature
            terms.append(info_nce(similarity, *pair))
        return torch.stack(terms).mean()


def _unit(x: Tensor) -> Tensor:
    """Normalise vectors to length √D, so that the product of two over √D is at most √D and does not dominate S."""
    return layer_norm(x, x.shape[-1:])


def extremes(response: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Select the tokens of highest and of lowest response.

    Args:
        response: (n, N).
        share: Share of tokens in each selection, in (0, 0.5]; at least one token, but none if N = 1.

    Returns:
        Two (n, N) bool, highest and lowest.
    """
    count = min(max(1, round(share * response.shape[1])), response.shape[1] // 2)
    order = response.argsort(dim=1, stable=True)
    found = torch.zeros(2, *response.shape, dtype=torch.bool, device=response.device)
    found[0].scatter_(1, order[:, response.shape[1] - count :], True)
    found[1].scatter_(1, order[:, :count], True)
    return found[0], found[1]


def _by_truth(target: Target, valid: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the tokens of sounding objects and of the background in labelled real frames, (n, N) bool each."""
    labels = _nearest(real_frames(target.masks, valid), size).flatten(1)
    scored = real_frames(target.labelled, valid).unsqueeze(1) & (labels != IGNORE)
    return scored & (labels != 0), scored & (labels == 0)


def _nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (n, H, W) labels, nearest neighbour."""
    return interpolate(labels.unsqueeze(1).float(), size, mode="nearest-exact").squeeze(1).long()


def _upsampled(x: Tensor, frames: Tensor) -> Tensor:
    """Resize (B · T, C, h, w) to the height and width of the frames."""
    return interpolate(x, frames.shape[-2:], mode="bilinear")


def _audible(clip: Clip) -> Tensor:
    """Return (n,) bool, real frames with sound: those whose log-mel patch or embedding is not constant."""
    audio = real_frames(clip.audio, clip.valid).flatten(1)
    return audio.amax(1) > audio.amin(1)


def _maps(aligned: Mapping[int, Aligned], alpha: Tensor | None, valid: Tensor) -> dict[str, Tensor]:
    """Return named maps for figures, (B, T, G, h, w) each."""
    shown = {} if alpha is None else {"uncertainty": vacuity(alpha).unflatten(0, valid.shape)}
    for stage, a in aligned.items():
        found = {"attention": a.response.sigmoid().unsqueeze(1)}
        if a.members is not None:
            found["group"] = a.members.to(a.response)
        for kind, x in found.items():
            shown[f"{kind}/ama{stage}"] = with_padding(x.unflatten(2, a.size), valid).unflatten(0, valid.shape)
    return shown
