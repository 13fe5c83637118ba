"""Queries that listen: cross-attention over the map of an audio encoder, not over its embedding alone."""

from typing import NamedTuple

from torch import Tensor, nn


class AudioTokens(NamedTuple):
    """What queries listen to.

    Attributes:
        map: E_a (n, d, t, f).
        tokens: The same as (n, t · f, d).
        places: Where in time and frequency each token is, (1, t · f, d).
    """

    map: Tensor
    tokens: Tensor
    places: Tensor

    def of(self, index: Tensor) -> "AudioTokens":
        """Of some of the frames."""
        return AudioTokens(self.map[index], self.tokens[index], self.places)


class AudioCrossAttention(nn.Module):
    """Queries attend to a sound: cross-attention over time and frequency, and a norm.

    Args:
        width: d.
        heads: Of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor, sound: AudioTokens) -> Tensor:
        """(n, N, d) → the same."""
        answer, _ = self.attention(queries, sound.tokens + sound.places, sound.tokens, need_weights=False)
        out: Tensor = self.norm(queries + answer)
        return out
