"""Cross-attention from queries to the feature maps of an audio encoder."""

from typing import NamedTuple

from torch import Tensor, nn


class AudioTokens(NamedTuple):
    """Keys and values of :class:`AudioCrossAttention`.

    Attributes:
        map: E_a (n, d, t, f).
        tokens: E_a as (n, t · f, d).
        places: Position embeddings of the tokens in time and frequency, (1, t · f, d).
    """

    map: Tensor
    tokens: Tensor
    places: Tensor

    def of(self, index: Tensor) -> "AudioTokens":
        """Select frames by index."""
        return AudioTokens(self.map[index], self.tokens[index], self.places)


class AudioCrossAttention(nn.Module):
    """Cross-attention from queries to audio tokens, with a residual connection and a layer norm.

    Args:
        width: d.
        heads: Number of attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor, sound: AudioTokens) -> Tensor:
        """Map queries (n, N, d) to the same shape."""
        attended, _ = self.attention(queries, sound.tokens + sound.places, sound.tokens, need_weights=False)
        out: Tensor = self.norm(queries + attended)
        return out
