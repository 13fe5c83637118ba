"""CPM: Class-conditional Prompting Machine. Chen et al., ECCV 2024, arXiv 2407.05358.

Mask2Former with audio cross-attention. In training it also receives prompts: queries sampled from per-class Gaussian
mixtures, whose class is known, so that they need no matching. They must segment their class in the image (VCP),
separate it in an audio mixture (ACP), and have similar embeddings in both (PCL).

n frames, processed independently of each other; N queries, d channels, C object categories, K_b of them in frame b.

=============  ====================  ==========================================================
paper          here                  shape
=============  ====================  ==========================================================
q              ``queries``           (n, N, d), class-agnostic
q̃              ``embeddings``        (n, N, d) mask embeddings
E_v            ``pixels.masks``      (n, d, H / 4, W / 4)
E_a, E_p       ``tokens``            (n, t · f, d), of the audio, of the audio mixture
p(q | c)       ``mixtures``          means and variances (C + 2, M, d)
z^k            ``prompts``           (b, K, d), sampled from the mixture of class k
m_k^a          ``masks``             (b, K, t, f), mask of class k over time and frequency
a_i, a_j, a_p  ``own, other, mixed`` (b, channels, 96, 64) magnitudes
A_k            ``anchors``           (b, K, d)
λ              ``prompt_weight``
=============  ====================  ==========================================================

There is no public code. We worked from the text of the paper up to the outline of the method, and from its tables. For
a setting that neither contains, the docstring of ``Config`` names another source or "ours"; docs/papers/cpm.md lists
these settings.

Differs from the paper, or from the known part of it:

1. Both pathways run in every step and their losses are added; the paper alternates between them.
2. Mixtures are fitted to mask embeddings after a layer norm without affine parameters, not on the unit sphere as in
   GMMSeg: with d = 256, the variance of a coordinate on the sphere is about 0.004, less than the variance floor of
   0.01.
3. "No object" has a mixture, fitted to unmatched queries; without it Bayes' rule would assign an object class to
   every query.
4. A frame is prompted with all of its classes or with none, because the ratio of ACP covers all of them.
5. The distractor of ACP is the audio of a frame in another clip of the batch that shows none of the frame's classes,
   or white noise of equal loudness if there is none. The paper uses a data set of off-screen sounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, layer_norm

from avseg.errors import ConfigError
from avseg.interface import IGNORE, TRAINING, AVSModel, Clip, Prediction, Target
from avseg.models._cpm_prompting import (
    Prompted,
    Prompts,
    contrast,
    mix,
    mixture_samples,
    prompts_for,
    ratio_loss,
    ratio_mask,
)
from avseg.nn.audio import AudioName, statistics_kept
from avseg.nn.audio_attention import AudioCrossAttention, AudioTokens
from avseg.nn.encoders import EncoderConfig, build_encoders
from avseg.nn.functional import full_precision, real_frames, with_padding
from avseg.nn.gaussian_mixture import ClassMixtures
from avseg.nn.mask2former import GROUPS, MaskTransformer, PixelFeatures, QueryOutputs
from avseg.nn.matching import Matches, SetLoss, match, set_loss
from avseg.settings import check_positive

Classifier = Literal["bayes", "softmax"]
PromptSource = Literal["mixture", "embedding"]
MixtureTarget = Literal["query", "mask"]


@dataclass
class _State:
    """Intermediate results for :meth:`CPM.loss` and :meth:`CPM.after_step`.

    Attributes:
        outputs: Outputs of the class-agnostic queries.
        classes: (layers + 1, n, N, C + 2) their class logits.
        valid: (B, T) of the clip.
        training: True if the prediction was computed in training with a target.
        prompted: Outputs of the class-conditional prompts, if any.
        matches: Matches of the last decoder layer, set by :meth:`CPM.loss`.
    """

    outputs: QueryOutputs
    classes: Tensor
    valid: Tensor
    training: bool
    prompted: Prompted | None
    matches: Matches | None = None


class CPM(AVSModel):
    """CPM: Mask2Former with audio cross-attention, trained with class-conditional prompts."""

    @dataclass(frozen=True)
    class Config(EncoderConfig):
        """Settings of CPM. The source is the paper unless another is named; "ours" marks our choice.

        Attributes:
            audio: Audio encoder: ``vggish`` (CAVP, of the same authors, has a VGG too), ``compact``, ``mobile``,
                or ``none`` for a model that takes embeddings, which requires ``acp`` and ``pcl`` false.
            categories: C, number of object categories in the labels; null: the number of classes without background.
                With one class and labels of categories, the model predicts sounding objects without class and is
                prompted with categories.
            channels: d, a multiple of 32 (256: Mask2Former).
            queries: N (100: Mask2Former, COMBO).
            layers: Layers of the transformer decoder (9: Mask2Former, COMBO).
            pixel_layers: Layers of the pixel decoder (6: Mask2Former, COMBO).
            heads: Attention heads (8: Mask2Former, COMBO).
            feedforward: Width of feed-forward blocks (2048: Mask2Former, COMBO).
            points: Points per mask at which masks are compared (12544: Mask2Former, COMBO).
            class_weight: Weight of the classification loss (2: Mask2Former, COMBO).
            mask_weight: Weight of the binary cross-entropy of masks (5: Mask2Former, COMBO).
            dice_weight: Weight of the Dice loss of masks (5: Mask2Former, COMBO).
            no_object: Weight of "no object" among the classes (0.1: Mask2Former, COMBO).
            classifier: Classifier of queries: ``bayes``, the mixtures (paper), or ``softmax``, the class head.
            prompt_source: Source of prompts: the ``mixture`` of their class (paper), or a learned ``embedding`` (ours,
                as an ablation of the mixtures).
            mixture_target: Vectors the mixtures are fitted to: ``mask`` embeddings (paper), or ``query``, the inputs of
                the class head (ours: early in training they separate the classes better, and prompts are queries).
            components: M of a mixture (3: GMMSeg's paper; its code has 5 and 8).
            mixture_memory: Vectors kept per class (ours; GMMSeg has 32000 pixels per component).
            mixture_min_samples: Vectors of a class before its mixture is fitted and prompts it (ours).
            mixture_fit_every: Batches between two fits (5: GMMSeg).
            mixture_momentum: Momentum of the means (0.999: GMMSeg).
            mixture_var_floor: Constant added to variances (0.01: GMMSeg).
            sinkhorn_rounds: Rounds of Sinkhorn in the E-step (3: GMMSeg).
            mixture_ce_weight: Weight of the cross-entropy of the mixtures' posterior, which separates the mask
                embeddings of different classes (0.01: GMMSeg).
            warmup: Batches before the first prompt (ours).
            acp: Audio-conditional prompting (paper).
            vcp: Visual-conditional prompting (paper).
            pcl: Prompt contrastive learning (paper). It works without ACP, but only ACP trains its saliency maps.
            prompt_weight: λ, weight of the three losses (ours: 0.1, so that their sum is less than L_agn).
            acp_norm: Norm of the difference of predicted and true ratio: ``2-norm``, as in the formula, or ``mean`` of
                squares (ours), which does not depend on the map size but is about a hundred times smaller.
            temperature: Temperature of PCL (0.1: CAVP).
            contrast_dim: Channels of the embeddings of PCL (ours).
            contrast_pixels: Pixels per class and batch in PCL (512: CAVP).
        """

        audio: AudioName = "vggish"
        categories: int | None = None
        channels: int = 256
        queries: int = 100
        layers: int = 9
        pixel_layers: int = 6
        heads: int = 8
        feedforward: int = 2048
        points: int = 12544
        class_weight: float = 2.0
        mask_weight: float = 5.0
        dice_weight: float = 5.0
        no_object: float = 0.1
        classifier: Classifier = "bayes"
        prompt_source: PromptSource = "mixture"
        mixture_target: MixtureTarget = "mask"
        components: int = 3
        mixture_memory: int = 256
        mixture_min_samples: int = 16
        mixture_fit_every: int = 5
        mixture_momentum: float = 0.999
        mixture_var_floor: float = 0.01
        sinkhorn_rounds: int = 3
        mixture_ce_weight: float = 0.01
        warmup: int = 500
        acp: bool = True
        vcp: bool = True
        pcl: bool = True
        prompt_weight: float = 0.1
        acp_norm: Literal["mean", "2-norm"] = "2-norm"
        temperature: float = 0.1
        contrast_dim: int = 128
        contrast_pixels: int = 512

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.channels < GROUPS or self.channels % GROUPS or self.channels % self.heads:
                raise ConfigError(
                    f"channels must be a multiple of {GROUPS} and of heads, got {self.channels} and {self.heads} heads"
                )
            check_positive(self, "queries", "layers", "pixel_layers", "points", "contrast_pixels")
            check_positive(self, "components", "mixture_fit_every", "sinkhorn_rounds")
            if self.audio == "none" and (self.acp or self.pcl):
                raise ConfigError("acp and pcl need an audio encoder, got audio = 'none': set acp and pcl to false")
            if not self.components <= self.mixture_min_samples <= self.mixture_memory:
                raise ConfigError(
                    "components <= mixture_min_samples <= mixture_memory must hold, "
                    f"got {self.components}, {self.mixture_min_samples} and {self.mixture_memory}"
                )
            if self.temperature <= 0 or self.mixture_var_floor <= 0 or not 0 <= self.mixture_momentum < 1:
                raise ConfigError(
                    "temperature and mixture_var_floor must be above 0 and mixture_momentum within [0, 1), "
                    f"got {self.temperature}, {self.mixture_var_floor} and {self.mixture_momentum}"
                )

        @property
        def set_loss(self) -> SetLoss:
            """Return the weights of the set loss."""
            return SetLoss(self.class_weight, self.mask_weight, self.dice_weight, self.no_object, self.points)

    paper: ClassVar[str] = "2407.05358"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "backbone": ("visual",),
        "audio": ("audio",),
        "fusion": ("sound", "audio_query_bias", "audio_attention"),
        "decoder": ("transformer", "head"),
        TRAINING: ("prompt", "embedding", "project_sound", "project_pixels"),
    }

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__(config, classes)
        c = config
        things = classes - 1 if c.categories is None else c.categories
        if classes > 1 and things != classes - 1:
            raise ConfigError(f"categories must be the classes without the background, {classes - 1}, got {things}")
        self.labels = 1 + max(things, 1)
        self.visual, self.audio = build_encoders(c)
        self.sound = nn.Conv2d(self.audio.channels, c.channels, 1)
        self.audio_query_bias = nn.Linear(self.audio.dim, c.channels)
        self.audio_attention = nn.ModuleList(AudioCrossAttention(c.channels, c.heads) for _ in range(c.layers))
        self.transformer = MaskTransformer(
            self.visual.channels,
            width=c.channels,
            queries=c.queries,
            layers=c.layers,
            pixel_layers=c.pixel_layers,
            heads=c.heads,
            feedforward=c.feedforward,
        )
        self.head = nn.Linear(c.channels, self.labels + 1)
        self._build_prompting()

    steps: Tensor

    def _build_prompting(self) -> None:
        """Create the modules that only training needs, and the mixtures, which may also classify queries."""
        c = self.config
        prompted = c.acp or c.vcp or c.pcl
        self.mixtures = None
        if c.classifier == "bayes" or (prompted and c.prompt_source == "mixture"):
            self.mixtures = ClassMixtures(
                self.labels + 1,
                c.components,
                c.channels,
                memory=c.mixture_memory,
                min_samples=c.mixture_min_samples,
                fit_every=c.mixture_fit_every,
                momentum=c.mixture_momentum,
                var_floor=c.mixture_var_floor,
                sinkhorn_rounds=c.sinkhorn_rounds,
            )
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.prompt = nn.Linear(c.channels, c.channels) if prompted else None
        by_embedding = prompted and c.prompt_source == "embedding"
        self.embedding = nn.Embedding(self.labels, c.channels) if by_embedding else None
        self.project_sound = nn.Linear(c.channels, c.contrast_dim) if c.pcl else None
        self.project_pixels = nn.Conv2d(c.channels, c.contrast_dim, 1) if c.pcl else None

    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        """Predict masks for a clip of any T, H, W.

        Args:
            clip: Frames are processed independently of each other.
            target: In training, its labelled frames are prompted.
            maps: Fill ``queries`` (B, T, N, h, w), the mask probabilities of each query.

        Raises:
            ConfigError: When the weights are not float32.
        """
        if self.head.weight.dtype != torch.float32:
            found = self.head.weight.dtype
            raise ConfigError(f"cpm needs float32 weights, got {found}: for bfloat16 use avseg.optimize(model, 'bf16')")
        valid = clip.valid
        pixels = self.transformer.pixels(self.visual(real_frames(clip.frames, valid)))
        audio = self.audio.features(clip.audio)
        sound = self._sound(real_frames(audio.maps, valid))
        bias = self.audio_query_bias(real_frames(audio.embeddings, valid))[:, None]
        queries, positions = (q.expand(bias.shape[0], -1, -1) for q in self.transformer.queries)
        outputs = self._decode(pixels, sound, queries + bias, positions)
        classes = self.head(outputs.queries)
        logits = self._logits(self._probabilities(outputs, classes[-1]), outputs.masks[-1], clip.frames.shape[-2:])
        training = self.training and target is not None
        prompted = self._prompt(clip, target, pixels, sound) if training and target is not None else None
        return Prediction(
            self._fill(logits, valid),
            maps={"queries": self._fill(outputs.masks[-1].sigmoid(), valid)} if maps else {},
            scalars=self._scalars(prompted) if training else {},
            state=_State(outputs, classes, valid, training, prompted),
        )

    def _fill(self, x: Tensor, valid: Tensor) -> Tensor:
        """Map (n, ...) of real frames to (B, T, ...), zeros for padding."""
        filled: Tensor = with_padding(x, valid).unflatten(0, valid.shape)
        return filled

    def _scalars(self, prompted: Prompted | None) -> dict[str, Tensor]:
        """Return the share of classes with a fitted mixture and the number of prompted frames."""
        count = 0 if prompted is None else len(prompted.labels)
        fitted = {} if self.mixtures is None else {"fitted": self.mixtures.fitted.float().mean()}
        return {**fitted, "prompted": torch.tensor(float(count))}

    def _sound(self, maps: Tensor) -> AudioTokens:
        """Project maps of the audio encoder (n, C_a, t, f) to E_a."""
        projected = self.sound(maps)
        places = self.transformer.places(projected)
        return AudioTokens(projected, projected.flatten(2).mT, places.flatten(2).mT)

    def _decode(self, pixels: PixelFeatures, sound: AudioTokens, queries: Tensor, positions: Tensor) -> QueryOutputs:
        """Run the decoder layers, each with audio cross-attention before attention to pixels."""

        def attend(layer: int, x: Tensor) -> Tensor:
            attended: Tensor = self.audio_attention[layer](x, sound)
            return attended

        return self.transformer.decode(pixels, queries, positions, attend)

    def _probabilities(self, outputs: QueryOutputs, classes: Tensor) -> Tensor:
        """Return p(c | q), (n, N, C + 2): background, categories, no object."""
        if self.config.classifier == "softmax" or self.mixtures is None:
            return classes.softmax(-1)
        return self.mixtures.log_posterior(self._mixture_inputs(outputs)).exp()

    def _mixture_inputs(self, outputs: QueryOutputs) -> Tensor:
        """Return the vectors that mixtures are fitted to, (n, N, d), normalised to equal length."""
        vectors = outputs.queries[-1] if self.config.mixture_target == "query" else outputs.embeddings
        return layer_norm(vectors.float(), vectors.shape[-1:])

    def _logits(self, probabilities: Tensor, masks: Tensor, size: torch.Size) -> Tensor:
        """Return logits (n, K, H, W) whose sigmoid or softmax is Σ_n p(c | q_n) σ(mask_n), normalised over c."""
        with full_precision(masks):
            scores = torch.einsum("nqc,nqhw->nchw", probabilities[..., :-1].float(), masks.float().sigmoid())
        scores = interpolate(scores, size, mode="bilinear").clamp(min=1e-6)
        if self.classes > 1:
            return scores.log()
        return scores[:, 1:].sum(1, keepdim=True).log() - scores[:, :1].log()

    def _prompt(self, clip: Clip, target: Target, pixels: PixelFeatures, sound: AudioTokens) -> Prompted | None:
        """Prompt the classes of labelled frames in images and audio mixtures; None if no frame can be prompted."""
        if self.prompt is None or self.steps < self.config.warmup:
            return None
        labelled = real_frames(target.labelled, clip.valid).nonzero().flatten()
        labels = real_frames(target.masks, clip.valid)[labelled]
        prompts = prompts_for(labels, self._available(labels.device))
        if not len(prompts.frames):
            return None
        frames = labelled[prompts.frames]
        queries = self.prompt(self._sample_prompts(prompts.classes))
        outputs = None
        if self.config.vcp:
            outputs = self._decode(pixels.of(frames), sound.of(frames), queries, torch.zeros_like(queries))
        masks, ratio, audible, anchors = self._separate_mixture(clip, labels, labelled, prompts, queries)
        features = pixels.masks[labelled]
        features = features if self.project_pixels is None else self.project_pixels(features)
        return Prompted(prompts, labels[prompts.frames], outputs, masks, ratio, audible, anchors, features, labels)

    def _available(self, device: torch.device) -> Tensor:
        """Return (labels,) bool, the classes that can be prompted."""
        if self.mixtures is None or self.embedding is not None:
            return torch.ones(self.labels, dtype=torch.bool, device=device)
        return self.mixtures.fitted[: self.labels]

    def _sample_prompts(self, classes: Tensor) -> Tensor:
        """Return z^k (b, K, d) of (b, K) classes."""
        if self.mixtures is None or self.embedding is not None:
            embedded: Tensor = cast("nn.Embedding", self.embedding)(classes)
            return embedded
        return self.mixtures.sample(classes.flatten()).view(*classes.shape, -1)

    def _separate_mixture(
        self, clip: Clip, labels: Tensor, labelled: Tensor, prompts: Prompts, queries: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mix the audio of prompted frames with distractors, and predict the part of each prompt.

        Returns:
            m^a (b, K, t, f), a_i / a_p (b, 96, 64), (b,) bool whether the frame has sound, and A_k (b, K, dp).
        """
        if not (self.config.acp or self.config.pcl):
            nothing = queries.new_zeros(0)
            return nothing, nothing, nothing, nothing
        clips = torch.arange(len(clip.valid), device=labels.device)[:, None].expand_as(clip.valid)
        clips, audio = (real_frames(x, clip.valid)[labelled] for x in (clips, clip.audio))
        own, mixed = mix(audio, labels, clips, prompts.frames)
        with statistics_kept(self.audio):
            maps = self.audio.features(mixed.log().unsqueeze(0)).maps[0]
        sound = self._sound(maps)
        for attend in self.audio_attention:
            queries = attend(queries, sound)
        masks = torch.einsum("bkd,bdtf->bktf", queries, sound.map)
        weight = masks.sigmoid()
        anchors = torch.einsum("bktf,bdtf->bkd", weight, sound.map) / (weight.sum((2, 3)) + 1e-6)[..., None]
        if self.project_sound is not None:
            anchors = self.project_sound(anchors)
        return masks, ratio_mask(own, mixed), own.flatten(1).sum(1) > 0, anchors

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """Return the terms of L = L_agn + λ (L_ACP + L_VCP + L_PCL).

        Raises:
            ConfigError: When a label is not below the number of categories of the model.
        """
        state: _State = prediction.state
        chosen = real_frames(target.labelled, state.valid)
        labels = real_frames(target.masks, state.valid)[chosen]
        highest = int(labels.masked_fill(labels == IGNORE, 0).max()) if labels.numel() else 0
        if highest >= self.labels:
            raise ConfigError(
                f"got label {highest}, this model was built for {self.labels - 1} categories: "
                "leave model.categories out to take their number from the data"
            )
        with full_precision(labels):
            terms, state.matches = self._agnostic(state.classes[:, chosen], state.outputs.masks[:, chosen], labels)
            if self.mixtures is not None:
                samples = mixture_samples(self._mixture_inputs(state.outputs)[chosen], state.matches, self.labels)
                terms["generative"] = self.config.mixture_ce_weight * self.mixtures.cross_entropy(*samples)
            if state.training:
                terms |= self._prompting(state.prompted)
        return terms

    def after_step(self, prediction: Prediction, target: Target) -> None:
        """Add the embeddings of matched queries to the mixtures, and count the batch for ``warmup``.

        It uses the matches that :meth:`loss` stored in the prediction. Matching again would use other random points.

        Raises:
            ValueError: When the prediction was not passed to :meth:`loss` before.
        """
        state: _State = prediction.state
        if self.mixtures is not None:
            if state.matches is None:
                raise ValueError("after_step needs a prediction that was passed to loss before")
            chosen = real_frames(target.labelled, state.valid)
            inputs = self._mixture_inputs(state.outputs)[chosen]
            self.mixtures.observe(*mixture_samples(inputs, state.matches, self.labels))
        self.steps += 1

    def _agnostic(self, classes: Tensor, masks: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Matches]:
        """Return the terms of L_agn, the set loss summed over layers, each matched separately, and the last matches."""
        terms: list[dict[str, Tensor]] = []
        weights = self.config.set_loss
        for c, m in zip(classes, masks, strict=True):
            matches = match(c, m, labels, weights, random=self.training)
            terms.append(set_loss(c, m, labels, matches, weights, random=self.training))
        return _added(terms), matches

    def _prompting(self, prompted: Prompted | None) -> dict[str, Tensor]:
        """Return λ times L_ACP, L_VCP and L_PCL; 0 with gradient 0 when no frame is prompted."""
        c = self.config
        # Distributed training needs a gradient for every parameter in every batch.
        for_training = (self.prompt, self.embedding, self.project_sound, self.project_pixels)
        weights = [p.sum() for module in for_training if module is not None for p in module.parameters()]
        zero = torch.stack(weights).sum() * 0 if weights else torch.zeros(())
        terms = {}
        for name, enabled, compute in (
            ("acp", c.acp, self._audio),
            ("vcp", c.vcp, self._visual),
            ("pcl", c.pcl, self._contrast),
        ):
            if enabled:
                terms[name] = zero if prompted is None else zero + c.prompt_weight * compute(prompted)
        return terms

    def _audio(self, prompted: Prompted) -> Tensor:
        """Compute L_ACP: error of the predicted share of the frame's audio in the mixture."""
        p, mean = prompted, self.config.acp_norm == "mean"
        return ratio_loss(p.masks, p.prompts.real, p.ratio, p.audible, mean=mean)

    def _contrast(self, prompted: Prompted) -> Tensor:
        """Compute L_PCL: contrastive loss of the audio embeddings of prompts and pixel embeddings."""
        c, p = self.config, prompted
        chosen = p.prompts.real & p.audible[:, None]
        pair = p.anchors[chosen], p.prompts.classes[chosen]
        return contrast(*pair, p.pixels, p.pixel_labels, temperature=c.temperature, pixels=c.contrast_pixels)

    def _visual(self, prompted: Prompted) -> Tensor:
        """Compute L_VCP: the set loss with the known classes of prompts instead of a matching."""
        outputs = cast("QueryOutputs", prompted.outputs)
        frame, query = prompted.prompts.real.nonzero(as_tuple=True)
        known = Matches(frame, query, prompted.prompts.classes[frame, query])
        # Repeated prompts, which only fill up rows, must not be trained towards "no object".
        weights = replace(self.config.set_loss, no_object=0.0)
        terms = [
            set_loss(c, m, prompted.labels, known, weights, random=True)
            for c, m in zip(self.head(outputs.queries.float()), outputs.masks, strict=True)
        ]
        return torch.stack([*_added(terms).values()]).sum()


def _added(terms: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sum each term over layers."""
    return {name: torch.stack([t[name] for t in terms]).sum() for name in terms[0]}
