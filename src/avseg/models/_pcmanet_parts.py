"""Modules of PCMANet (arXiv 2406.02345): AVGA, QSCA, CIM and GF. See :mod:`avseg.models.pcmanet` for the symbols."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize, scaled_dot_product_attention

from avseg.nn.fast_training import conv_resized
from avseg.nn.pixel_rows import pointwise_rows


def conv_bn_relu(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def resize(x: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
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
        self.visual = conv_bn_relu(channels, channels, 1, groups)
        self.audio = nn.Sequential(nn.Linear(channels, channels), nn.Linear(channels, channels // groups), nn.ReLU())
        self.mix = conv_bn_relu(channels, channels, 1)

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
        keep = None if mask is None else mask_at(mask, maps.shape).flatten(1).view(tokens_BTNC.shape[:3])
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


def mask_at(mask: Tensor, size: torch.Size) -> Tensor:
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
        return unsure & mask_at(mask, output.shape) if self.progression and mask is not None else unsure


class GF(nn.Module):
    """Guided Fusion: conv(level + conv(upsampled deeper) + conv(guide)). The deepest level has no ``deeper``."""

    def __init__(self, channels: int, *, deeper: bool, guide: bool) -> None:
        super().__init__()
        self.deeper = conv_bn_relu(channels, channels, 3) if deeper else None
        self.guide = conv_bn_relu(channels, channels, 3) if guide else None
        self.fuse = conv_bn_relu(channels, channels, 3)

    def forward(self, level: Tensor, deeper: Tensor | None, guide: Tensor | None) -> Tensor:
        """Fuse maps (N, C, h, w), of which ``deeper`` and ``guide`` may be smaller, to (N, C, h, w)."""
        total = level
        for block, other in ((self.deeper, deeper), (self.guide, guide)):
            if block is not None and other is not None:
                conv, norm, activation = block
                total = total + activation(norm(conv_resized(conv, other, (level.shape[2], level.shape[3]))))
        out: Tensor = self.fuse(total)
        return out


def output_head(channels: int, classes: int) -> nn.Sequential:
    """Build the head of O_i: a 3×3 convolution to C / 2 channels and a 1×1 convolution to K logits."""
    return nn.Sequential(*conv_bn_relu(channels, channels // 2, 3), nn.Conv2d(channels // 2, classes, 1))
