"""AMA+UE: audio-guided modality alignment with uncertainty estimation. Liu et al., CVPR 2025, arXiv 2503.12847.

After every stage of the backbone, what looks alike is put into groups, within a group the sound decides what counts,
and what came out goes into the next stage. Frames then attend to each other, and beside the masks the model says
where it does not know.

n frames, stages l = 1..4 with stride 2^(l+1), N_l = h_l · w_l tokens of D_l channels, P groups, C classes (2 for one).

=============  =====================  =================================================================
paper          here                   shape
=============  =====================  =================================================================
f_l            ``tokens``             (n, N_l, D_l), after a layer norm
a              ``heard``              (n, D_l), the frame's sound in the stage's space
S              ``response``           (n, N_l), how well each token fits the sound
clusters       ``members``            (n, P, N_l), who is in which
G_l            ``compact``            (n, P, D_l), one vector per group
m              ``logits``             (B, T, K, H, W) of the mask head, enlarged
α              ``alpha``              (n, C, h_1, w_1) concentrations of a Dirichlet distribution, 1 or more
U              ``uncertainty``        (n, 1, H, W) = C / Σ α, enlarged
λ, μ           ``contrast_weight, evidence_weight``
=============  =====================  =================================================================

There is no public code, and the paper was at hand in notes alone, which number no equation. What they do not say is a
setting whose docstring names another source (DDESeg is the same authors' release of arXiv 2503.12840), or says
"ours"; docs/papers/ama_ue.md lists the open points.

Differs from the paper, or from what is known of it:

1. What AMA makes of a map is added to it, each channel with a learned factor that begins at ``scale``, one for tokens
   and one for groups: the stages of a pretrained backbone expect the maps they know.
2. Sound is one VGGish embedding per frame, where DDESeg has HTS-AT: with one token of sound the softmax of cross-
   attention would be 1 whatever sounds, so its logits themselves are the response.
3. Large maps are grouped around centres found on a smaller grid (:func:`avseg.nn.dpc_knn.group`).
4. Evidence is compared with labels at the resolution of the head.
5. Classes a frame does not have take no part in Dice and IoU losses.
6. Sound, fused tokens and groups have their lengths fixed, so that S counts beside the likeness it is added to.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, layer_norm, normalize, one_hot, scaled_dot_product_attention

from avseg.errors import ConfigError, did_you_mean
from avseg.interface import IGNORE, AVSModel, Clip, Prediction, Target
from avseg.losses import bce, dice_loss, info_nce, iou_loss, labelled, semantic_ce
from avseg.nn.audio import AudioEncoder, AudioName
from avseg.nn.dpc_knn import group
from avseg.nn.evidence import Activation, DataTerm, concentration, down_weighted, evidential_loss, vacuity
from avseg.nn.functional import full_precision, real_frames, with_padding
from avseg.nn.visual import VisualBackbone, VisualName

STAGES = (1, 2, 3, 4)
Merging = Literal["audio", "mean"]
Correlation = Literal["global", "group"]
Positives = Literal["response", "truth"]
Supervise = Literal["final", "mask"]


class Aligned(NamedTuple):
    """What one AMA says besides its map.

    Attributes:
        tokens: f_l (n, N, D).
        heard: a (n, D).
        response: S (n, N).
        members: (n, P, N) bool, who is in which group; None without grouping.
        size: (h, w) with h · w = N.
    """

    tokens: Tensor
    heard: Tensor
    response: Tensor
    members: Tensor | None
    size: tuple[int, int]


class AMA(nn.Module):
    """Audio-guided Modality Alignment: group, let the sound weigh each group's tokens, refine, and put back.

    Args:
        channels: D of the map.
        audio: D of the embeddings.
        config: Settings.
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
            The map for the next stage (n, D, h, w), and what was heard where.
        """
        c, size = self.config, (maps.shape[2], maps.shape[3])
        tokens = self.norm(maps.flatten(2).mT)
        heard = self.audio(audio)
        response = self._respond(tokens, heard)
        fused = _unit(tokens + response.sigmoid().unsqueeze(-1) * self.value(heard).unsqueeze(1))
        change: Tensor = self.token_out(fused)
        members = None
        if self.group_out is not None:
            groups = group(tokens.mT.unflatten(2, size), c.groups, c.neighbours, c.cluster_grid)
            members = one_hot(groups, min(c.groups, groups.shape[1])).mT.bool()
            compact = self._converge(fused, response, members)
            change = change + self.group_out(compact).gather(1, groups.unsqueeze(-1).expand_as(fused))
        return maps + change.mT.unflatten(2, size), Aligned(tokens, heard, response, members, size)

    def _respond(self, tokens: Tensor, heard: Tensor) -> Tensor:
        """S: logits of cross-attention, the mean over heads, (n, N, D) and (n, D) → (n, N)."""
        per_head = tokens.shape[-1] // self.config.heads
        logits: Tensor = (self.query(tokens) @ self.key(heard).unsqueeze(-1)).squeeze(-1)
        return logits / (self.config.heads * math.sqrt(per_head))

    def _converge(self, fused: Tensor, response: Tensor, members: Tensor) -> Tensor:
        """G: merge the tokens of each group, then G ← G + softmax(G fᵀ / √D + S) f, layer after layer → (n, P, D)."""
        # A group whose centre is on the smaller grid may be nobody's: it stands for the whole frame then.
        mine = members | ~members.any(-1, keepdim=True)
        score = response.unsqueeze(1) if self.config.merging == "audio" else torch.zeros_like(response).unsqueeze(1)
        within = score.masked_fill(~mine, -torch.inf)
        compact = within.softmax(-1) @ fused
        bias = within if self.config.correlation == "group" else score
        for layer in self.layers:
            logits = compact @ fused.mT / math.sqrt(fused.shape[-1]) + bias
            compact = layer(compact + logits.softmax(-1) @ fused)
        return compact


class Mixing(nn.Module):
    """Groups attend to each other, then a feed-forward block: the rest of a transformer decoder's layer."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.forward_block = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, compact: Tensor) -> Tensor:
        """(n, P, D) → the same."""
        x = self.norm(compact)
        compact = compact + self.attention(x, x, x, need_weights=False)[0]
        return _unit(compact + self.forward_block(compact))


class Temporal(nn.Module):
    """At every place, the frames of a clip attend to each other; absent ones are no keys."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.inside = nn.Linear(channels, 3 * channels)
        self.outside = nn.Linear(channels, channels)

    def forward(self, maps: Tensor, valid: Tensor) -> Tensor:
        """(B · T, C, h, w) and (B, T) → the same map, with a residual."""
        size = maps.shape[-2:]
        tokens_BNTC = maps.flatten(2).unflatten(0, valid.shape).permute(0, 3, 1, 2)
        asking = self.inside(self.norm(tokens_BNTC)).unflatten(-1, (3, self.heads, -1))
        q, k, v = asking.permute(3, 0, 1, 4, 2, 5).unbind(0)
        # A clip without a single valid frame attends to its padding: nobody reads the answer, but it stays finite.
        keys = (valid | ~valid.any(1, keepdim=True))[:, None, None, None]
        answer = scaled_dot_product_attention(q, k, v, keys).transpose(2, 3).flatten(3)
        tokens_BNTC = tokens_BNTC + self.outside(answer)
        out: Tensor = tokens_BNTC.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, size)
        return out


class _State(NamedTuple):
    """What :meth:`AMAUE.loss` needs: the mask head's own answer, α, and what each AMA heard in real frames."""

    logits: Tensor
    alpha: Tensor | None
    aligned: tuple[Aligned, ...]
    sounds: Tensor
    valid: Tensor


class AMAUE(AVSModel):
    """Tokens that look alike compete for the sound, and the model says where it does not know (AMA+UE)."""

    @dataclass(frozen=True)
    class Config:
        """Settings of AMA+UE. Where the source is another than the paper's notes, it is named; "ours" is our choice.

        Attributes:
            visual: Visual backbone (DDESeg: one with the sizes of PVT-v2-b5, or Swin).
            audio: Audio encoder: ``vggish`` (ours; DDESeg has HTS-AT), ``compact``, ``mobile``, or ``none`` for
                embeddings alone.
            train_audio: Train the audio encoder too (DDESeg freezes it).
            audio_dim: D of the embeddings when ``audio`` is ``none``.
            stereo: Hear two channels, each through the same encoder (ours; VPO has stereo sound).
            channels: C of the decoder (ours; DDESeg 256 or 768).
            heads: Of all attentions (8: DDESeg).
            stages: After which there is an AMA (paper: all).
            grouping: Off: no groups, every token meets the sound on its own ("baseline" of the ablation).
            groups: P (5: DDESeg); fewer where a map has fewer tokens.
            neighbours: k of DPC-KNN (5: TCFormer).
            cluster_grid: Centres are found among grid × grid tokens at most (ours: 28).
            merging: Tokens of a group weigh by their ``audio`` response (paper) or all the same, ``mean`` ("+ semantic
                grouping" of the ablation; S is 0 in the refinement then, too).
            correlation: S in the refinement reaches all tokens, ``global`` (the formula has no mask), or the ``group``
                alone.
            refine_layers: Of the refinement in each AMA (ours: 2).
            residual_scale: Where the factor of what AMA adds begins (ours).
            temporal: Frames attend to each other (paper).
            uncertainty: The second head; without it the mask head's answer is final.
            supervise_logits: L_seg is of the ``final`` answer, which uncertainty has weighed (ours; the notes do not say), or
                of the ``mask`` head's own: then nothing tells uncertainty what it takes away from the answer.
            ce: Weight of the cross-entropy (5: DDESeg).
            dice: Weight of the Dice loss (5: DDESeg).
            iou: Weight of the IoU loss (2: DDESeg).
            dice_smooth: Added in Dice and IoU (1e-5: DDESeg). With it a frame where nothing sounds pulls nowhere.
            absent: Count classes that a frame does not have in Dice and IoU (DDESeg).
            contrast_weight: λ; 0 leaves L_cst out (0.1: ours).
            positives: What L_cst takes for positive: tokens that fit the sound best by their ``response`` (paper), or
                those of the ``truth`` (the paper's comparison, which it says is worse).
            contrast_share: Which share of a frame's tokens fits best, and which worst (ours: 0.2).
            temperature: Of L_cst (ours: 0.07).
            evidence_weight: μ; L_unc takes part only with ``uncertainty`` (5: ours, what the cross-entropy of the masks has).
            activation: What makes evidence of logits: ``exp`` (ours) or ``softplus``.
            data_term: Of L_unc: the expected ``cross_entropy`` of Sensoy et al.'s eq. (4) (ours), or their eq. (3), the
                ``likelihood``, with which the KL term takes all evidence from a pixel whose classes are as likely.
            kl_weight: Full weight of the KL term of L_unc (0.1: ours; Sensoy et al.: 1). It takes evidence from
                wherever classes are not certain, and masks with it.
            kl_anneal_steps: Batches over which the KL term grows from 0 to its full weight (Sensoy et al.: 10 epochs).
            dropout: Before the heads (0.1: DDESeg).
        """

        visual: VisualName = "pvt_v2_b5"
        audio: AudioName = "vggish"
        train_audio: bool = False
        audio_dim: int = 128
        stereo: bool = False
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
            for name, choices in (
                ("merging", get_args(Merging)),
                ("correlation", get_args(Correlation)),
                ("positives", get_args(Positives)),
                ("supervise_logits", get_args(Supervise)),
                ("activation", get_args(Activation)),
                ("data_term", get_args(DataTerm)),
            ):
                if getattr(self, name) not in choices:
                    raise ConfigError(f"{name} = {getattr(self, name)!r}. {did_you_mean(getattr(self, name), choices)}")
            if len({*self.stages}) < len(self.stages) or not {*self.stages} <= {*STAGES}:
                raise ConfigError(f"stages must be different numbers out of {STAGES}, got {tuple(self.stages)}")
            for name in (
                "channels",
                "heads",
                "groups",
                "neighbours",
                "cluster_grid",
                "refine_layers",
                "kl_anneal_steps",
            ):
                if getattr(self, name) < 1:
                    raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
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
        self.visual = VisualBackbone(c.visual)
        self.audio = AudioEncoder(c.audio, train=c.train_audio, dim=c.audio_dim, stereo=c.stereo)
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
        """Answer a clip of any T, H, W. ``target`` is not used.

        Returns:
            ``maps``: ``uncertainty`` (B, T, 1, h, w), U, 1 where the model knows nothing, if it has that head;
            ``attention/ama1`` … ``4`` (B, T, 1, h, w), how well each token fits the sound, 0..1; with groups also
            ``group/ama1`` … ``4`` (B, T, P, h, w), which it is in, P being no more than there are tokens. ``scalars``:
            ``uncertainty``, the mean of U, if it has that head.
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
        logits: Tensor = _enlarged(self.mask(features), clip.frames).unflatten(0, valid.shape)
        alpha = (
            None if self.evidence_head is None else concentration(self.evidence_head(features), self.config.activation)
        )
        shown = _maps(aligned, alpha, valid) if maps else {}
        final, scalars = logits, {}
        if alpha is not None:
            uncertainty = _enlarged(vacuity(alpha), clip.frames)
            scalars = {"uncertainty": uncertainty[valid.flatten()].mean()}
            final = down_weighted(logits.flatten(0, 1), uncertainty).unflatten(0, valid.shape)
        state = _State(logits, alpha, tuple(aligned.values()), _sounds(clip), valid)
        return Prediction(final, maps=shown, scalars=scalars, state=state)

    def _decode(self, stages: tuple[Tensor, ...]) -> Tensor:
        """SegFormer's head: all levels at the size of the first, side by side, then one layer → (n, C, h_1, w_1)."""
        size = stages[0].shape[-2:]
        levels = [interpolate(level(x), size, mode="bilinear") for level, x in zip(self.levels, stages, strict=True)]
        fused: Tensor = self.fuse(torch.cat(levels, 1))
        return fused

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """L = L_seg + λ L_cst + μ L_unc, L_seg = CE + Dice + IoU, each with its weight."""
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
            terms["evidence"] = c.evidence_weight * self._doubt(state.alpha, target)
        return terms

    def after_step(self, prediction: Prediction, target: Target) -> None:
        """Count the batch, for the annealing of the KL term."""
        self.steps += 1

    def _doubt(self, alpha: Tensor, target: Target) -> Tensor:
        """L_unc at the resolution of the head, where labels are the nearest pixels'."""
        labels = target.masks[target.labelled]
        if self.classes == 1:
            labels = torch.where(labels == IGNORE, IGNORE, (labels != 0).long())
        near = _nearest(labels, (alpha.shape[2], alpha.shape[3]))
        c = self.config
        divergence = c.kl_weight * (self.steps / c.kl_anneal_steps).clamp(max=1.0)
        return evidential_loss(alpha[target.labelled.flatten()], near, divergence, c.data_term)

    def _contrast(self, state: _State, target: Target) -> Tensor:
        """L_cst, the mean over stages."""
        c = self.config
        terms = []
        for stage in state.aligned:
            if c.positives == "response":
                positive, negative = extremes(stage.response, c.contrast_share)
            else:
                positive, negative = _by_truth(target, state.valid, stage.size)
            takes_part = state.sounds.unsqueeze(1)
            pair = positive & takes_part, negative & takes_part
            with full_precision(stage.heard):
                heard, tokens = (normalize(x.float(), dim=-1) for x in (stage.heard, stage.tokens))
                near = torch.einsum("bd,bkd->bk", heard, tokens) / c.temperature
            terms.append(info_nce(near, *pair))
        return torch.stack(terms).mean()


def _unit(x: Tensor) -> Tensor:
    """Vectors of length √D: the product of two, over √D, is √D at most, so that S is not lost beside it."""
    return layer_norm(x, x.shape[-1:])


def extremes(response: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Which tokens fit the sound best, and which worst.

    Args:
        response: (n, N).
        share: Of the tokens, up to a half; at least one each, none where a frame has one token alone.

    Returns:
        Two (n, N) bool.
    """
    count = min(max(1, round(share * response.shape[1])), response.shape[1] // 2)
    order = response.argsort(dim=1, stable=True)
    found = torch.zeros(2, *response.shape, dtype=torch.bool, device=response.device)
    found[0].scatter_(1, order[:, response.shape[1] - count :], True)
    found[1].scatter_(1, order[:, :count], True)
    return found[0], found[1]


def _by_truth(target: Target, valid: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Tokens of what sounds, and of all else, in labelled real frames: (n, N) bool each."""
    labels = _nearest(real_frames(target.masks, valid), size).flatten(1)
    known = real_frames(target.labelled, valid).unsqueeze(1) & (labels != IGNORE)
    return known & (labels != 0), known & (labels == 0)


def _nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, H, W) labels at another size, each the nearest pixel's."""
    return interpolate(labels.unsqueeze(1).float(), size, mode="nearest-exact").squeeze(1).long()


def _enlarged(x: Tensor, frames: Tensor) -> Tensor:
    """(B · T, C, h, w) at the height and width of the frames."""
    return interpolate(x, frames.shape[-2:], mode="bilinear")


def _sounds(clip: Clip) -> Tensor:
    """Which real frames have any sound, (n,) bool: a patch of silence is constant; of embeddings only such count."""
    heard = real_frames(clip.audio, clip.valid).flatten(1)
    return heard.amax(1) > heard.amin(1)


def _maps(aligned: Mapping[int, Aligned], alpha: Tensor | None, valid: Tensor) -> dict[str, Tensor]:
    """What is worth a picture, (B, T, G, h, w) each."""
    shown = {} if alpha is None else {"uncertainty": vacuity(alpha).unflatten(0, valid.shape)}
    for stage, a in aligned.items():
        found = {"attention": a.response.sigmoid().unsqueeze(1)}
        if a.members is not None:
            found["group"] = a.members.to(a.response)
        for kind, x in found.items():
            shown[f"{kind}/ama{stage}"] = with_padding(x.unflatten(2, a.size), valid).unflatten(0, valid.shape)
    return shown
