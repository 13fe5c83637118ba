"""TPAVI: Temporal Pixel-wise Audio-Visual Interaction, the AVSBench baseline. Zhou et al., arXiv 2207.05042.

The version for several classes is arXiv 2301.13190.

Stages i = 1..4 have stride 2^(i+1); stage 4 is the deepest. A clip has N = T · h_i · w_i positions.

=============  ==================  =============================================================
paper          here                shape
=============  ==================  =============================================================
F_i            ``features[i]``     (B · T, C, h_i, w_i), output of the dilated convolutions
V_i            ``maps``            (B, C, T, h_i, w_i), F_i reshaped to clips
A, Â           ``audio``           (B, T, D) embeddings; (B, C, T, 1, 1) aligned with V_i
θ, g, φ, μ     ``theta`` ...       1×1×1 convolutions C → C / 2, and back
α_i            ``affinity``        (B, N, N) in the quadratic form; not computed in the linear form
Z_i            ``fused``           (B, C, T, h_i, w_i), output of the block
P_i            ``level``           (B · T, C, 2 h_i, 2 w_i), output of the fusion
M              ``logits``          (B, T, K, H, W)
λ              ``matching``
=============  ==================  =============================================================

Linear form: α_i = θ(V_i) φ(Â)ᵀ / N has no softmax, so Z_i = V_i + μ(α_i g(V_i)) can be computed as
θ(V_i) (φ(Â)ᵀ g(V_i)) / N, with a (C / 2)² matrix per clip instead of an N² matrix. Â is constant within a frame, so
φ(Â)ᵀ g(V_i) = Σ_t φ(Â_t) Σ_hw g(V_i); since g is linear, it is applied once, to the mean of each frame. Both forms give
equal outputs; time and memory of the linear form grow with T · H · W, not with its square.

Differs from the paper:

1. Z_i is followed by a layer norm over channels, the features of each stage are the sum of four dilated convolutions,
   and the residual units of the fusion add the rectified input, all as in the release; the paper does not mention it.
2. Padding frames are not keys of the interaction (``padding="mask"``), and the backbone does not process them; the
   paper does not mention them.
3. Eq. (3) of the matching regulariser is a mean over frames and stages; the release sums over frames.
4. The matching regulariser uses labelled frames only.
5. Levels are upsampled to the size of the next level instead of twice their own size, so that any H and W works.

``RELEASE`` holds the settings in which the authors' release differs from the paper.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, kl_div, relu

from avseg.errors import ConfigError
from avseg.interface import Adopted, AVSModel, Clip, Prediction, Source, Target
from avseg.losses import bce, iou_loss, labelled, semantic_ce
from avseg.models._avsbench_keys import DEAD_COPY, dead_copy, rows, visual_of, visual_source
from avseg.nn.encoders import EncoderConfig, build_encoders
from avseg.nn.functional import has_padding, real_frames, with_padding
from avseg.nn.keys import rename

STAGES = (1, 2, 3, 4)
Form = Literal["linear", "quadratic"]
_DILATIONS = (3, 6, 12, 18)


class Dilated(nn.Module):
    """Compute F_i as the sum of four 3×3 convolutions of different dilation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(inputs, outputs, 3, padding=d, dilation=d) for d in _DILATIONS)
        for branch in self.branches:
            nn.init.normal_(cast("nn.Conv2d", branch).weight, std=0.01)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, C_i, h, w) to (N, C, h, w)."""
        first, *others = self.branches
        total: Tensor = first(maps)
        for branch in others:
            total = total + branch(maps)
        return total


class Interaction(nn.Module):
    """The TPAVI block, Eq. (1): every pixel of a clip attends to the audio of all its frames.

    Args:
        channels: C.
        audio_dim: D of the audio embeddings.
        align_bias: Add a bias to the layer that aligns the audio.
        form: ``"linear"`` or ``"quadratic"``; both give equal outputs.
    """

    def __init__(
        self, channels: int, audio_dim: int, *, align_bias: bool, form: Literal["linear", "quadratic"]
    ) -> None:
        super().__init__()
        self.form = form
        inner = channels // 2
        self.align = nn.Linear(audio_dim, channels, bias=align_bias)
        self.theta, self.phi, self.g = (nn.Conv3d(channels, inner, 1) for _ in range(3))
        self.mu = nn.Sequential(nn.Conv3d(inner, channels, 1), nn.BatchNorm3d(channels))
        self.norm = nn.LayerNorm(channels)
        # As in the release, the block is initialised as the identity followed by a layer norm.
        for parameter in self.mu[1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, maps: Tensor, keys: Tensor, valid: Tensor) -> Tensor:
        """Compute Z_i.

        Args:
            maps: V_i (B, C, T, h, w).
            keys: Â (B, C, T, 1, 1) from :meth:`project_audio`, or V_i itself.
            valid: (B, T) bool; False marks padding frames, which are not keys.

        Returns:
            (B, C, T, h, w).
        """
        # In a clip of padding frames only, the padding is the keys, so that the unused output stays finite.
        weight = (valid | ~valid.any(1, keepdim=True)).to(maps)
        weight = weight / weight.sum(1, keepdim=True)
        interact = self._linear if self.form == "linear" else self._quadratic
        fused = self.mu(interact(self.theta(maps), keys, maps, weight)) + maps
        normed: Tensor = self.norm(fused.movedim(1, -1))
        return normed.movedim(-1, 1)

    def fit(self, maps: Tensor, audio: Tensor) -> Tensor:
        """Return the similarity θ · φ of each pixel and the audio of its frame, (B, T, 1, h, w)."""
        return torch.einsum("bcthw,bctij->bthw", self.theta(maps), self.phi(audio)).unsqueeze(2)

    def project_audio(self, audio: Tensor) -> Tensor:
        """Project embeddings (B, T, D) to Â (B, C, T, 1, 1)."""
        aligned_BTC: Tensor = self.align(audio)
        return aligned_BTC.mT[..., None, None]

    def _linear(self, theta: Tensor, keys: Tensor, maps: Tensor, weight: Tensor) -> Tensor:
        """Compute θ (φᵀ g) / N."""
        if keys.shape[-2:].numel() == 1:
            maps = maps.mean((3, 4), keepdim=True)
        positions = maps.shape[-2:].numel()
        phi, g = self.phi(keys).flatten(3), self.g(maps).flatten(3)
        memory_Bcd = torch.einsum("bctn,bdtn,bt->bcd", phi, g, weight / positions)
        return torch.einsum("bcd,bcthw->bdthw", memory_Bcd, theta)

    def _quadratic(self, theta: Tensor, keys: Tensor, maps: Tensor, weight: Tensor) -> Tensor:
        """Compute (θ φᵀ / N) g with an (N, N) matrix per clip."""
        phi, g = self.phi(keys.expand_as(maps)).flatten(2), self.g(maps).flatten(2)
        positions = maps.shape[-2:].numel()
        affinity_BNN = theta.flatten(2).mT @ phi * (weight / positions).repeat_interleave(positions, 1)[:, None]
        weighted: Tensor = g @ affinity_BNN.mT
        return weighted.view_as(theta)


class Residual(nn.Module):
    """Add two 3×3 convolutions, each after a ReLU, to the rectified input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        x = relu(x)
        out: Tensor = self.second(relu(self.first(x)))
        return out + x


class Fusion(nn.Module):
    """Compute P_i from the deeper level and the features of this stage. The deepest stage has no ``deeper``."""

    def __init__(self, channels: int, *, deeper: bool) -> None:
        super().__init__()
        self.level = Residual(channels) if deeper else None
        self.fuse = Residual(channels)

    def forward(self, features: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Map two (N, C, h, w) to (N, C, *size)."""
        if self.level is not None and deeper is not None:
            features = deeper + self.level(features)
        return interpolate(self.fuse(features), size, mode="bilinear", align_corners=True)


class _MatchingInputs(NamedTuple):
    """Inputs of the matching regulariser.

    Attributes:
        features: Z_i (B, T, C, h_i, w_i) of the stages with audio-visual interaction.
        audio: Â of the same stages (B, T, C).
    """

    features: tuple[Tensor, ...]
    audio: tuple[Tensor, ...]


class TPAVI(AVSModel):
    """TPAVI: at every stage, every pixel of a clip attends to the audio of all its frames."""

    @dataclass(frozen=True)
    class Config(EncoderConfig):
        """Settings of TPAVI; defaults follow the paper.

        Attributes:
            channels: C of all fused maps.
            stages: Stages with audio-visual interaction, out of 1..4; an empty tuple is a model without audio.
            visual_audio: Pixels attend to audio (paper).
            visual_visual: Pixels attend to pixels with the same weights; with both, the outputs are averaged.
            form: ``linear`` or ``quadratic``; both give equal outputs.
            window: Number of consecutive frames that attend to each other's audio; 0 for the whole clip (paper). The
                release uses 5, also for the 10 frames of AVSS clips.
            align_bias: Add a bias to the layer that aligns the audio; the release has none for several classes.
            padding: Padding frames: ``mask`` excludes them from the interaction; ``zero`` sets their features and
                logits to zero (release).
            iou: Weight of the IoU loss of PCMANet, Eq. (9) there, added to the cross-entropy of one class; 0 in the
                paper. It allows comparing the two models with the same loss.
            matching: λ, weight of the audio-visual matching regulariser: 0 on S4, 0.5 on MS3 and AVSS.
            matching_sum: Sum over frames, as the release does for one class, instead of the mean.
        """

        channels: int = 256
        stages: tuple[int, ...] = STAGES
        visual_audio: bool = True
        visual_visual: bool = False
        form: Form = "linear"
        window: int = 0
        align_bias: bool = True
        padding: Literal["mask", "zero"] = "mask"
        iou: float = 0.0
        matching: float = 0.0
        matching_sum: bool = False

        def __post_init__(self) -> None:
            super().__post_init__()
            if len({*self.stages}) < len(self.stages) or not {*self.stages} <= {*STAGES}:
                raise ConfigError(f"stages must be different numbers out of {STAGES}, got {tuple(self.stages)}")
            if self.stages and not (self.visual_audio or self.visual_visual):
                raise ConfigError("visual_audio and visual_visual are both false: set one of them, or stages to []")
            if self.channels < 2 or self.channels % 2:
                raise ConfigError(f"channels must be even, got {self.channels}")
            if min(self.window, self.iou, self.matching) < 0:
                given = f"{self.window}, {self.iou} and {self.matching}"
                raise ConfigError(f"window, iou and matching must be 0 or more, got {given}")
            if self.matching and not (self.stages and self.visual_audio):
                raise ConfigError("matching compares pixels with audio: it needs stages and visual_audio")

    paper: ClassVar[str] = "2207.05042"
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "backbone": ("visual",),
        "audio": ("audio",),
        "fusion": ("interaction",),
        "decoder": ("dilated", "fusion", "head"),
    }
    RELEASE: ClassVar[Mapping[str, object]] = {"window": 5, "padding": "zero", "matching_sum": True}
    """Settings in which the authors' release differs from the paper."""

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__(config, classes)
        c = config
        self.visual, self.audio = build_encoders(c)
        self.dilated = _per_stage(STAGES, lambda i: Dilated(self.visual.channels[i - 1], c.channels))
        self.interaction = _per_stage(
            c.stages, lambda _: Interaction(c.channels, self.audio.dim, align_bias=c.align_bias, form=c.form)
        )
        self.fusion = _per_stage(STAGES, lambda i: Fusion(c.channels, deeper=i < max(STAGES)))
        half, eighth = c.channels // 2, max(1, c.channels // 8)
        self.head = nn.ModuleList(  # with upsampling and a ReLU between them
            (
                nn.Conv2d(c.channels, half, 3, padding=1),
                nn.Conv2d(half, eighth, 3, padding=1),
                nn.Conv2d(eighth, classes, 1),
            )
        )

    def forward(self, clip: Clip, target: Target | None = None, *, maps: bool = False) -> Prediction:
        """Predict masks for a clip of any T, H, W. ``target`` is not used.

        Returns:
            Prediction with ``maps``: ``attention/tpavi1`` … ``4`` (B, T, 1, h, w), similarity of each pixel and the
            audio of its frame.
        """
        valid, zero = clip.valid, self.config.padding == "zero"
        shown = valid.flatten().view(-1, 1, 1, 1)
        absent = zero and has_padding(valid)

        def hide(x: Tensor) -> Tensor:
            """Set padding frames of (B · T, ...) to zero."""
            return x * shown if absent else x

        stages = self.visual(real_frames(clip.frames, valid))
        features = {i: hide(with_padding(self.dilated[str(i)](f), valid)) for i, f in enumerate(stages, 1)}
        embeddings = self.audio(clip.audio) * (valid.unsqueeze(-1) if zero else 1)
        projected: dict[int, Tensor] = {}
        fits: dict[str, Tensor] = {}
        for i in self.config.stages:
            block = cast("Interaction", self.interaction[str(i)])
            clips = features[i].unflatten(0, valid.shape).transpose(1, 2)
            projected[i] = block.project_audio(embeddings)
            if maps:
                fits[f"attention/tpavi{i}"] = block.fit(clips, projected[i])
            keys = torch.ones_like(valid) if zero else valid
            fused = self._interact(block, clips, projected[i], keys)
            features[i] = hide(fused.transpose(1, 2).flatten(0, 1))
        logits = hide(self._decode(features, hide, clip.frames.shape)).unflatten(0, valid.shape)
        return Prediction(logits, maps=fits, state=self._state(features, projected))

    def _interact(self, block: Interaction, maps: Tensor, audio: Tensor, valid: Tensor) -> Tensor:
        """Compute Z_i window by window, as the mean over the enabled kinds of interaction."""
        if window := self.config.window:
            pieces = [*zip(maps.split(window, 2), audio.split(window, 2), valid.split(window, 1), strict=True)]
        else:  # without a split, which ONNX cannot export for a dynamic T
            pieces = [(maps, audio, valid)]
        outputs = [
            [block(m, k, v) for k in [a] * self.config.visual_audio + [m] * self.config.visual_visual]
            for m, a, v in pieces
        ]
        means = [torch.stack(kinds).mean(0) if len(kinds) > 1 else kinds[0] for kinds in outputs]
        return torch.cat(means, 2) if len(means) > 1 else means[0]

    def _decode(self, features: Mapping[int, Tensor], hide: Callable[[Tensor], Tensor], frames: torch.Size) -> Tensor:
        """Fuse levels from the deepest to the first, Fig. 2, and return logits (B · T, K, H, W)."""
        level: Tensor | None = None
        for i in reversed(STAGES):
            height, width = features[max(i - 1, 1)].shape[-2:]
            size = (height, width) if i > 1 else (2 * height, 2 * width)
            level = hide(self.fusion[str(i)](features[i], level, size))
        wide, narrow, last = self.head
        out: Tensor = last(relu(narrow(interpolate(wide(level), tuple(frames[-2:]), mode="bilinear"))))
        return out

    def _state(self, features: Mapping[int, Tensor], audio: Mapping[int, Tensor]) -> _MatchingInputs | None:
        """Return the inputs of the matching regulariser; None when it has no weight."""
        if not self.config.matching:
            return None
        frames = next(iter(audio.values())).shape[2]
        maps = (relu(features[i]).unflatten(0, (-1, frames)) for i in audio)
        return _MatchingInputs(tuple(maps), tuple(a.flatten(2).mT for a in audio.values()))

    def loss(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """Return the terms of Eq. (2): cross-entropy, binary for one class, and λ times the matching of Eq. (3)."""
        pair = labelled(prediction.logits, target)
        terms = {"bce": bce(*pair)} if self.classes == 1 else {"ce": semantic_ce(*pair)}
        if self.config.iou and self.classes == 1:
            terms["iou"] = self.config.iou * iou_loss(*pair, smooth=1.0)
        if self.config.matching:
            terms["matching"] = self.config.matching * self._matching(prediction, target.labelled)
        return terms

    def _matching(self, prediction: Prediction, frames: Tensor) -> Tensor:
        """Compute Eq. (3): KL divergence of the audio and the mean masked visual feature, over all stages."""
        state: _MatchingInputs = prediction.state
        logits = prediction.logits[frames].float()
        if not len(logits):
            return logits.sum()
        pairs = zip(state.features, state.audio, strict=True)
        terms = [self._divergence(logits, z[frames].float(), a[frames].float()) for z, a in pairs]
        per_frame = torch.stack(terms).mean(0)
        return per_frame.sum() if self.config.matching_sum and self.classes == 1 else per_frame.mean()

    def _divergence(self, logits: Tensor, features: Tensor, audio: Tensor) -> Tensor:
        """Compute KL(softmax Â ‖ softmax mean(M_i ⊙ Z_i)) of each frame.

        Args:
            logits: (n, K, H, W).
            features: Z_i (n, C, h, w).
            audio: Â (n, C).
        """
        size = features.shape[2], features.shape[3]
        if self.classes == 1:
            marked = adaptive_avg_pool2d(logits, size).sigmoid()
        else:
            marked = adaptive_avg_pool2d((logits.argmax(1, keepdim=True) != 0).to(features), size)
        visual = (features * marked).mean((2, 3))
        return kl_div(visual.log_softmax(1), audio.softmax(1), reduction="none").sum(1)

    @classmethod
    def adopt(cls, state: Mapping[str, Tensor]) -> Adopted | None:
        """Recognise the authors' release: S4, MS3 or AVSS; ResNet-50 or PVT-v2-b5; any stages."""
        if not any(re.match(r"(tpavi_b|conv)\d\.(align_channel|conv2d_list)\.", k) for k in state):
            return None
        visual = visual_of(state)
        config = cls.Config(
            visual=visual,
            audio="none",
            channels=rows(state, r"conv\d\.conv2d_list\.0\.weight", cls.Config.channels),
            stages=tuple(i for i in STAGES if any(k.startswith(f"tpavi_b{i}.") for k in state)),
            align_bias=any(k.endswith("align_channel.bias") for k in state),
            **cls.RELEASE,  # type: ignore[arg-type]
        )
        classes = rows(state, r"output_conv\.4\.weight", 1)
        unused = (*DEAD_COPY, "path4.resConfUnit1.")
        return Adopted(config, classes, lambda key: _release_source(key, visual), unused)

    @classmethod
    def published(cls, config: Config) -> tuple[Config, int]:
        """Return the model of PCMANet's Table III: quadratic form, and unused copies of layers."""
        unit = sum(p.numel() for p in Residual(config.channels).parameters())
        return replace(config, form="quadratic"), unit + dead_copy(config.visual)


def _per_stage(stages: tuple[int, ...], make: Callable[[int], nn.Module]) -> nn.ModuleDict:
    return nn.ModuleDict({str(i): make(i) for i in stages})


_RELEASE_KEYS = (
    (r"^dilated\.(\d)\.branches\.", r"conv\1.conv2d_list."),
    (r"^interaction\.(\d)\.", r"tpavi_b\1."),
    (r"\.align\.", ".align_channel."),
    (r"\.norm\.", ".norm_layer."),
    (r"\.mu\.", ".W_z."),
    (r"^fusion\.(\d)\.level\.", r"path\1.resConfUnit1."),
    (r"^fusion\.(\d)\.fuse\.", r"path\1.resConfUnit2."),
    (r"\.first\.", ".conv1."),
    (r"\.second\.", ".conv2."),
    (r"^head\.0\.", "output_conv.0."),
    (r"^head\.1\.", "output_conv.2."),
    (r"^head\.2\.", "output_conv.4."),
)


def _release_source(key: str, visual: str) -> Source:
    """Return the location of one of our tensors in the authors' release."""
    if key.startswith("visual."):
        return visual_source(visual, key.removeprefix("visual."))
    return Source(rename(key, _RELEASE_KEYS))
