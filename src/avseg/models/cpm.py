"""CPM: Class-conditional Prompting Machine. Chen et al., ECCV 2024, arXiv 2407.05358.

Mask2Former whose queries listen. In training alone it is also prompted with queries whose class is known, so that what
they should find need not be matched: in the picture (VCP), in a mixture of sounds (ACP), and in both at once (PCL).

n frames (no frame knows of another), N queries, d channels, C categories of things, K_b of them in frame b.

=============  ====================  ==========================================================
paper          here                  shape
=============  ====================  ==========================================================
q              ``queries``           (n, N, d), class-agnostic
q̃              ``embeddings``        (n, N, d) mask embeddings
E_v            ``pixels.masks``      (n, d, H / 4, W / 4)
E_a, E_p       ``tokens``            (n, t · f, d), of the sound, of the mixture
p(q | c)       ``mixtures``          means and variances (C + 2, M, d)
z^k            ``prompts``           (b, K, d), drawn from the mixture of class k
m_k^a          ``masks``             (b, K, t, f) where in time and frequency class k sounds
a_i, a_j, a_p  ``own, other, mixed`` (b, ears, 96, 64) magnitudes
A_k            ``anchors``           (b, K, d)
λ              ``prompt_weight``
=============  ====================  ==========================================================

There is no public code, and of the paper its text up to the method's outline and its tables were at hand. What stands
in neither is a setting whose docstring names another source, or says "ours"; docs/papers/cpm.md lists them.

Differs from the paper, or from what is known of it:

1. Both pathways run in every step, the losses being added; the paper alternates.
2. Mixtures are fitted to mask embeddings after a layer norm without affine, not on the unit sphere as in GMMSeg: with
   d = 256 on the sphere the variance of a coordinate is about 0.004, and a floor of 0.01 would drown it.
3. "No object" has a mixture of its own, of unmatched queries: without it Bayes' rule could not leave any query out.
4. A frame is prompted with all its classes or not at all: what is left of the ratio in ACP would belong to nobody.
5. The noise of ACP is the sound of a frame in another clip of the batch that has none of the frame's classes; white
   noise, as loud as the frame's sound, where there is none. The paper takes a data set of off-screen sounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, layer_norm

from avseg.errors import ConfigError, did_you_mean
from avseg.interface import IGNORE, TRAINING, AVSModel, Clip, Prediction, Target
from avseg.models._cpm_prompting import Prompted, Prompts, contrast, mix, prompts_for, ratio_loss, ratio_mask
from avseg.nn.audio import AudioEncoder, AudioName, statistics_kept
from avseg.nn.audio_attention import AudioCrossAttention, AudioTokens
from avseg.nn.functional import full_precision, real_frames, with_padding
from avseg.nn.gaussian_mixture import ClassMixtures
from avseg.nn.mask2former import GROUPS, MaskTransformer, PixelFeatures, QueryOutputs
from avseg.nn.matching import Matches, SetLoss, match, set_loss
from avseg.nn.visual import VisualBackbone, VisualName

Classifier = Literal["bayes", "softmax"]
PromptSource = Literal["mixture", "embedding"]
MixtureTarget = Literal["query", "mask"]


@dataclass
class _State:
    """Intermediate results for :meth:`CPM.loss` and :meth:`CPM.after_step`.

    Attributes:
        drawn: Outputs of the class-agnostic queries.
        classes: (layers + 1, n, N, C + 2) their class logits.
        valid: (B, T) of the clip.
        fits: Whether the prediction was made in training with a target.
        prompted: Outputs of the class-conditional prompts, if any.
        matches: Matches of the last decoder layer, set by :meth:`CPM.loss`.
    """

    drawn: QueryOutputs
    classes: Tensor
    valid: Tensor
    fits: bool
    prompted: Prompted | None
    matches: Matches | None = None


class CPM(AVSModel):
    """Mask2Former with queries that listen, prompted in training with queries of known class (CPM)."""

    @dataclass(frozen=True)
    class Config:
        """Settings of CPM. Where the source is another than the paper, it is named; "ours" is our choice.

        Attributes:
            visual: Visual backbone.
            audio: Audio encoder: ``vggish`` (CAVP, of the same authors, has a VGG too), ``compact``, ``mobile``,
                or ``none`` for embeddings alone, which cannot be mixed: it needs ``acp`` and ``pcl`` off.
            train_audio: Train the audio encoder too (ours: the paper is not known to say).
            audio_dim: D of the embeddings when ``audio`` is ``none``.
            stereo: Hear two channels, each through the same encoder (VPO).
            categories: C, how many kinds of things labels tell apart; null: as many as classes. With one class and
                labels of categories the model answers "what sounds" and is prompted with categories.
            channels: d, a multiple of 32 (256: Mask2Former).
            queries: N (100: Mask2Former, COMBO).
            layers: Of the transformer decoder (9: Mask2Former, COMBO).
            pixel_layers: Of the pixel decoder (6: Mask2Former, COMBO).
            heads: Of attentions (8: Mask2Former, COMBO).
            feedforward: Width of feed-forward blocks (2048: Mask2Former, COMBO).
            points: Where masks are compared, per mask (12544: Mask2Former, COMBO).
            class_weight: Of the classification (2: Mask2Former, COMBO).
            mask_weight: Of the masks' binary cross-entropy (5: Mask2Former, COMBO).
            dice_weight: Of their dice loss (5: Mask2Former, COMBO).
            no_object: Weight of "no object" among the classes (0.1: Mask2Former, COMBO).
            classifier: Who names the class of a query: ``bayes``, the mixtures (paper), or ``softmax``, the class head.
            prompt_source: Where prompts come from: the ``mixture`` of their class (paper), or a learned ``embedding`` (ours,
                to see what the mixtures do).
            mixture_target: What mixtures are of: ``mask`` embeddings (paper), or each ``query`` as the class head reads it
                (ours: early in training it knows more of its class, and a prompt is a query).
            components: M of a mixture (3: GMMSeg's paper; its programs have 5 and 8).
            mixture_memory: Vectors kept of each class (ours; GMMSeg has 32000 pixels for each component).
            mixture_min_samples: Vectors a class needs before it is prompted (ours).
            mixture_fit_every: Steps between two fits (5: GMMSeg).
            mixture_momentum: Of the means (0.999: GMMSeg).
            mixture_var_floor: Added to variances (0.01: GMMSeg).
            sinkhorn_rounds: Of Sinkhorn (3: GMMSeg).
            mixture_ce_weight: Weight of the mixtures' own cross-entropy, which spreads the classes of mask embeddings
                (0.01: GMMSeg).
            warmup: Steps before the first prompt (ours).
            acp: Prompt with mixtures of sounds (paper).
            vcp: Prompt with pictures (paper).
            pcl: Contrast what prompts hear with pixels (paper); it needs no ACP, but its saliency learns there.
            prompt_weight: λ, weight of the three (ours: 0.1, so that together they weigh less than L_agn).
            acp_norm: Of the difference to the ratio: ``2-norm``, as in the formula, or ``mean`` of squares (ours),
                which does not grow with the map but is some hundred times smaller than what it is added to.
            temperature: Of PCL (0.1: CAVP).
            contrast_dim: Channels in which PCL compares (ours).
            contrast_pixels: Of each class in a batch (512: CAVP).
        """

        visual: VisualName = "resnet50"
        audio: AudioName = "vggish"
        train_audio: bool = False
        audio_dim: int = 128
        stereo: bool = False
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
            for name, choices in (
                ("classifier", get_args(Classifier)),
                ("prompt_source", get_args(PromptSource)),
                ("mixture_target", get_args(MixtureTarget)),
                ("acp_norm", ("mean", "2-norm")),
            ):
                if getattr(self, name) not in choices:
                    raise ConfigError(f"{name} = {getattr(self, name)!r}. {did_you_mean(getattr(self, name), choices)}")
            if self.channels < GROUPS or self.channels % GROUPS or self.channels % self.heads:
                raise ConfigError(
                    f"channels must be a multiple of {GROUPS} and of heads, got {self.channels} and {self.heads} heads"
                )
            for name in (
                "queries",
                "layers",
                "pixel_layers",
                "points",
                "components",
                "mixture_fit_every",
                "sinkhorn_rounds",
                "contrast_pixels",
            ):
                if getattr(self, name) < 1:
                    raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
            if self.audio == "none" and (self.acp or self.pcl):
                raise ConfigError(
                    "acp and pcl mix sounds: with audio none, whose embeddings cannot be mixed, set both to false"
                )
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
            """Weights of the set loss."""
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
        self.visual = VisualBackbone(c.visual)
        self.audio = AudioEncoder(c.audio, train=c.train_audio, dim=c.audio_dim, stereo=c.stereo)
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
        """What training alone needs, but for the mixtures, which may also name the class of a query."""
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
        """Answer a clip of any T, H, W.

        Args:
            clip: Frames are answered each on its own.
            target: In training, prompts are drawn for its labelled frames.
            maps: Fill ``queries`` (B, T, N, h, w): what each query drew, as probabilities.
        """
        valid = clip.valid
        pixels = self.transformer.pixels(self.visual(real_frames(clip.frames, valid)))
        heard = self.audio.features(clip.audio)
        sound = self._sound(real_frames(heard.maps, valid))
        audio_query_bias = self.audio_query_bias(real_frames(heard.embeddings, valid))[:, None]
        queries, positions = (q.expand(len(audio_query_bias), -1, -1) for q in self.transformer.queries)
        drawn = self._decode(pixels, sound, queries + audio_query_bias, positions)
        classes = self.head(drawn.queries)
        logits = self._logits(self._probabilities(drawn, classes[-1]), drawn.masks[-1], clip.frames.shape[-2:])
        fits = self.training and target is not None
        prompted = self._prompt(clip, target, pixels, sound) if fits and target is not None else None
        shown = {"queries": self._fill(drawn.masks[-1].sigmoid(), valid)} if maps else {}
        return Prediction(
            self._fill(logits, valid),
            maps=shown,
            scalars=self._scalars(prompted) if fits else {},
            state=_State(drawn, classes, valid, fits, prompted),
        )

    def _fill(self, x: Tensor, valid: Tensor) -> Tensor:
        """(n, ...) of real frames → (B, T, ...)."""
        filled: Tensor = with_padding(x, valid).unflatten(0, valid.shape)
        return filled

    def _scalars(self, prompted: Prompted | None) -> dict[str, Tensor]:
        """How many classes may be prompted, and how many frames are."""
        count = 0 if prompted is None else len(prompted.labels)
        fitted = {} if self.mixtures is None else {"fitted": self.mixtures.fitted.float().mean()}
        return {**fitted, "prompted": torch.tensor(float(count))}

    def _sound(self, maps: Tensor) -> AudioTokens:
        """E_a: maps of the audio encoder (n, C_a, t, f) in d channels."""
        projected = self.sound(maps)
        places = self.transformer.places(projected)
        return AudioTokens(projected, projected.flatten(2).mT, places.flatten(2).mT)

    def _decode(self, pixels: PixelFeatures, sound: AudioTokens, queries: Tensor, positions: Tensor) -> QueryOutputs:
        """Queries listen and look, layer after layer."""

        def listen(layer: int, asking: Tensor) -> Tensor:
            heard: Tensor = self.audio_attention[layer](asking, sound)
            return heard

        return self.transformer.decode(pixels, queries, positions, listen)

    def _probabilities(self, drawn: QueryOutputs, classes: Tensor) -> Tensor:
        """p(c | q), (n, N, C + 2): background, things, no object."""
        if self.config.classifier == "softmax" or self.mixtures is None:
            return classes.softmax(-1)
        return self.mixtures.log_posterior(self._modelled(drawn)).exp()

    def _modelled(self, drawn: QueryOutputs) -> Tensor:
        """What mixtures are of, (n, N, d): normalised, so that all have one length."""
        vectors = drawn.queries[-1] if self.config.mixture_target == "query" else drawn.embeddings
        return layer_norm(vectors.float(), vectors.shape[-1:])

    def _logits(self, probabilities: Tensor, masks: Tensor, size: torch.Size) -> Tensor:
        """Σ_n p(c | q_n) σ(mask_n) as (n, K, H, W) logits, so that softmax or sigmoid divides by the sum over c."""
        with full_precision(masks):
            scores = torch.einsum("nqc,nqhw->nchw", probabilities[..., :-1].float(), masks.float().sigmoid())
        scores = interpolate(scores, size, mode="bilinear").clamp(min=1e-6)
        if self.classes > 1:
            return scores.log()
        return scores[:, 1:].sum(1, keepdim=True).log() - scores[:, :1].log()

    def _prompt(self, clip: Clip, target: Target, pixels: PixelFeatures, sound: AudioTokens) -> Prompted | None:
        """Ask for the classes of labelled frames, in pictures and in mixtures of sounds; None if none can be."""
        if self.prompt is None or self.steps < self.config.warmup:
            return None
        labelled = real_frames(target.labelled, clip.valid).nonzero().flatten()
        labels = real_frames(target.masks, clip.valid)[labelled]
        prompts = prompts_for(labels, self._known(labels.device))
        if not len(prompts.frames):
            return None
        frames = labelled[prompts.frames]
        queries = self.prompt(self._draw_prompts(prompts.classes))
        drawn = None
        if self.config.vcp:
            drawn = self._decode(pixels.of(frames), sound.of(frames), queries, torch.zeros_like(queries))
        masks, ratio, heard, anchors = self._listen_to_mixture(clip, labels, labelled, prompts, queries)
        seen = pixels.masks[labelled] if self.project_pixels is None else self.project_pixels(pixels.masks[labelled])
        return Prompted(prompts, labels[prompts.frames], drawn, masks, ratio, heard, anchors, seen, labels)

    def _known(self, device: torch.device) -> Tensor:
        """Which classes a prompt can be drawn from, (labels,) bool."""
        if self.mixtures is None or self.embedding is not None:
            return torch.ones(self.labels, dtype=torch.bool, device=device)
        return self.mixtures.fitted[: self.labels]

    def _draw_prompts(self, classes: Tensor) -> Tensor:
        """z^k of (b, K) classes, (b, K, d)."""
        if self.mixtures is None or self.embedding is not None:
            drawn: Tensor = cast("nn.Embedding", self.embedding)(classes)
            return drawn
        return self.mixtures.sample(classes.flatten()).view(*classes.shape, -1)

    def _listen_to_mixture(
        self, clip: Clip, labels: Tensor, labelled: Tensor, prompts: Prompts, queries: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mix the sounds of prompted frames with others, and let prompts find their own.

        Returns:
            m^a (b, K, t, f), a_i / a_p (b, 96, 64), (b,) whether anything sounds, and A_k (b, K, dp).
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
        asking = queries
        for listen in self.audio_attention:
            asking = listen(asking, sound)
        masks = torch.einsum("bkd,bdtf->bktf", asking, sound.map)
        weight = masks.sigmoid()
        anchors = torch.einsum("bktf,bdtf->bkd", weight, sound.map) / (weight.sum((2, 3)) + 1e-6)[..., None]
        if self.project_sound is not None:
            anchors = self.project_sound(anchors)
        return masks, ratio_mask(own, mixed), own.flatten(1).sum(1) > 0, anchors

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """L = L_agn + λ (L_ACP + L_VCP + L_PCL).

        Raises:
            ConfigError: When there are more kinds of labels than the model was built for.
        """
        state: _State = prediction.state
        chosen = real_frames(target.labelled, state.valid)
        labels = real_frames(target.masks, state.valid)[chosen]
        highest = int(labels.masked_fill(labels == IGNORE, 0).max()) if labels.numel() else 0
        if highest >= self.labels:
            raise ConfigError(
                f"label {highest} came, this model tells {self.labels - 1} kinds of things apart: "
                "leave categories out, then they come from the data"
            )
        with full_precision(labels):
            terms, state.matches = self._agnostic(state.classes[:, chosen], state.drawn.masks[:, chosen], labels)
            if self.mixtures is not None:
                observed = self._observed(self._modelled(state.drawn)[chosen], state.matches)
                terms["generative"] = self.config.mixture_ce_weight * self.mixtures.cross_entropy(*observed)
            if state.fits:
                terms |= self._prompting(state.prompted)
        return terms

    def after_step(self, prediction: Prediction, target: Target) -> None:
        """Add the embeddings of matched queries to the mixtures, and count the batch for ``warmup``.

        Uses the matches that :meth:`loss` found for this prediction: their points are random, and the mixtures are
        fitted to the assignment that the loss trained.
        """
        state: _State = prediction.state
        if self.mixtures is not None:
            if state.matches is None:
                raise ValueError("after_step needs a prediction that was passed to loss before")
            chosen = real_frames(target.labelled, state.valid)
            self.mixtures.observe(*self._observed(self._modelled(state.drawn)[chosen], state.matches))
        self.steps += 1

    def _agnostic(self, classes: Tensor, masks: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Matches]:
        """L_agn: the set loss of every layer, each with a matching of its own; and the last layer's matches."""
        terms: list[dict[str, Tensor]] = []
        weights = self.config.set_loss
        for c, m in zip(classes, masks, strict=True):
            matches = match(c, m, labels, weights, random=self.training)
            terms.append(set_loss(c, m, labels, matches, weights, random=self.training))
        return _added(terms), matches

    def _observed(self, embeddings: Tensor, matches: Matches) -> tuple[Tensor, Tensor]:
        """What mixtures are of, of matched queries and as many unmatched ones, with their classes."""
        free = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        free[matches.frames, matches.queries] = False
        unmatched = embeddings[free]
        count = min(len(unmatched), len(matches.classes))
        spread = torch.linspace(0, max(len(unmatched) - 1, 0), count, device=free.device).round().long()
        nothing = torch.full((count,), self.labels, device=free.device)
        vectors = torch.cat([embeddings[matches.frames, matches.queries], unmatched[spread]])
        return vectors, torch.cat([matches.classes, nothing])

    def _prompting(self, prompted: Prompted | None) -> dict[str, Tensor]:
        """λ times L_ACP, L_VCP and L_PCL; 0 (with gradient 0) where nothing could be prompted."""
        c = self.config
        # Whatever the batch holds, every parameter gets a gradient: processes must agree on that.
        for_training = (self.prompt, self.embedding, self.project_sound, self.project_pixels)
        weights = [p.sum() for module in for_training if module is not None for p in module.parameters()]
        zero = torch.stack(weights).sum() * 0 if weights else torch.zeros(())
        terms = {}
        for name, on, find in (
            ("acp", c.acp, self._audio),
            ("vcp", c.vcp, self._visual),
            ("pcl", c.pcl, self._contrast),
        ):
            if on:
                terms[name] = zero if prompted is None else zero + c.prompt_weight * find(prompted)
        return terms

    def _audio(self, prompted: Prompted) -> Tensor:
        """L_ACP: which share of the mixture is the frame's own."""
        p, mean = prompted, self.config.acp_norm == "mean"
        return ratio_loss(p.masks, p.prompts.real, p.ratio, p.heard, mean=mean)

    def _contrast(self, prompted: Prompted) -> Tensor:
        """L_PCL: what prompts heard against what pixels show."""
        c, p = self.config, prompted
        asked = p.prompts.real & p.heard[:, None]
        pair = p.anchors[asked], p.prompts.classes[asked]
        return contrast(*pair, p.seen, p.seen_labels, temperature=c.temperature, pixels=c.contrast_pixels)

    def _visual(self, prompted: Prompted) -> Tensor:
        """L_VCP: the set loss without matching, as each prompt knows its class."""
        drawn = cast("QueryOutputs", prompted.drawn)
        frame, query = prompted.prompts.real.nonzero(as_tuple=True)
        known = Matches(frame, query, prompted.prompts.classes[frame, query])
        # Prompts that only fill a frame up are told nothing.
        weights = replace(self.config.set_loss, no_object=0.0)
        terms = [
            set_loss(c, m, prompted.labels, known, weights, random=True)
            for c, m in zip(self.head(drawn.queries.float()), drawn.masks, strict=True)
        ]
        return torch.stack([*_added(terms).values()]).sum()


def _added(terms: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The sum of each term over layers."""
    return {name: torch.stack([t[name] for t in terms]).sum() for name in terms[0]}
