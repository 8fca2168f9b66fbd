"""The caption decoder: a transformer that writes the next word from the words so far and the video's tokens.

`read` computes the keys and values of its attention to the video once. `step` keeps those of the words before in a
cache, so that a word costs the same in a caption of any length. `forward` reads all words of a caption at once, in
training. The three share every layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from hbi_training.model.config import LEVELS
from hbi_training.model.token_interaction import Tokens


class Memory(NamedTuple):
    """Keys and values of B videos, for the decoder's attention to the V video tokens of all levels together.

    Attributes:
        keys: Keys (B, layers, heads, V, D / heads).
        values: Values (B, layers, heads, V, D / heads).
        mask: True at real tokens, (B, V) bool.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor


class Cache(NamedTuple):
    """Keys and values of the words so far: (B, layers, heads, T, D / heads) each."""

    keys: Tensor
    values: Tensor


class Attention(nn.Module):
    """Multi-head attention over keys and values that may come from a cache."""

    def __init__(self, *, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the keys and values of tokens (B, N, D): (B, heads, N, D / heads) each."""
        key, value = (self._split(part) for part in self.key_value(tokens).chunk(2, dim=-1))
        return key, value

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
        """Attends from tokens to keys and values.

        Args:
            tokens: Tokens (B, T, D).
            keys: Keys (B, heads, N, D / heads).
            values: Values (B, heads, N, D / heads).
            visible: True where a token may look, (B or 1, 1, T or 1, N) bool.

        Returns:
            Attended values (B, T, D).
        """
        query = self._split(self.query(tokens))
        logits = (query @ keys.mT).float() * query.shape[-1] ** -0.5
        logits = logits.masked_fill(~visible, torch.finfo(logits.dtype).min)
        attended = self.dropout(logits.softmax(-1).to(values.dtype)) @ values
        # (B, heads, T, D / heads) -> (B, T, D)
        joined: Tensor = self.project(attended.transpose(1, 2).flatten(2))
        return joined

    def _split(self, tokens: Tensor) -> Tensor:
        # (B, N, D) -> (B, heads, N, D / heads)
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Attention to the words before, attention to the video, and a two-layer network, each after a layer norm."""

    def __init__(self, *, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_words, self.norm_video, self.norm_network = (nn.LayerNorm(width) for _ in range(3))
        self.words, self.video = (Attention(width=width, heads=heads, dropout=dropout) for _ in range(2))
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        hidden: Tensor,
        memory_keys: Tensor,
        memory_values: Tensor,
        memory_visible: Tensor,
        visible: Tensor,
        before: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Computes words (B, T, D) that follow those `before`, and the keys and values of all of them."""
        normed = self.norm_words(hidden)
        keys, values = self.words.keys_values(normed)
        if before is not None:
            keys, values = torch.cat([before[0], keys], dim=2), torch.cat([before[1], values], dim=2)
        hidden = hidden + self.dropout(self.words(normed, keys, values, visible))
        attended = self.video(self.norm_video(hidden), memory_keys, memory_values, memory_visible)
        hidden = hidden + self.dropout(attended)
        return hidden + self.dropout(self.network(self.norm_network(hidden))), (keys, values)


class CaptionDecoder(nn.Module):
    """Writes captions.

    Args:
        width: Width D of the video's tokens and of the words.
        vocabulary_size: Size of the tokenizer's vocabulary; output weights are the input's embeddings.
        layers: Number of decoder layers.
        heads: Heads of each attention.
        max_tokens: Greatest number of tokens in a caption, start and end included.
        dropout: Rate of dropout in training.
    """

    def __init__(
        self, *, width: int, vocabulary_size: int, layers: int, heads: int, max_tokens: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.max_tokens = max_tokens
        self.word = nn.Embedding(vocabulary_size, width)
        self.position = nn.Embedding(max_tokens, width)
        self.level = nn.Embedding(len(LEVELS), width)
        for table in (self.word, self.position, self.level):
            nn.init.normal_(table.weight, std=0.02)
        self.norm_memory, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.layers = nn.ModuleList(DecoderLayer(width=width, heads=heads, dropout=dropout) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def read(self, video: Mapping[str, Tokens]) -> Memory:
        """Computes each layer's keys and values of the levels' tokens (B, V, D), which all captions share."""
        parts = [
            self.norm_memory(tokens.tokens) + self.level.weight[number] for number, tokens in enumerate(video.values())
        ]
        tokens = torch.cat(parts, dim=1)
        attentions = [cast("DecoderLayer", layer).video for layer in self.layers]
        keys, values = zip(*(attention.keys_values(tokens) for attention in attentions), strict=True)
        mask = torch.cat([level.mask for level in video.values()], dim=1)
        return Memory(torch.stack(keys, dim=1), torch.stack(values, dim=1), mask)

    def forward(self, token_ids: Tensor, memory: Memory) -> Tensor:
        """Returns the logits (B, T, vocabulary) of the token after each of `token_ids`, (B, T) int64 with the start."""
        length = token_ids.shape[1]
        place = torch.arange(length, device=token_ids.device)
        causal = (place[None, :] <= place[:, None])[None, None]
        hidden = self.dropout(self.word(token_ids) + self.position.weight[:length])
        memory_visible = memory.mask[:, None, None, :]
        for number, layer in enumerate(self.layers):
            hidden, _ = layer(hidden, memory.keys[:, number], memory.values[:, number], memory_visible, causal)
        return self._logits(hidden)

    def step(self, token_ids: Tensor, memory: Memory, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Returns the logits (B, vocabulary) of what follows one token (B,) int64, and the cache with that token."""
        before = 0 if cache is None else cache.keys.shape[3]
        hidden = self.word(token_ids)[:, None] + self.position.weight[before : before + 1]
        everything = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=token_ids.device)
        memory_visible = memory.mask[:, None, None, :]
        kept = []
        for number, layer in enumerate(self.layers):
            past = None if cache is None else (cache.keys[:, number], cache.values[:, number])
            memory_part = memory.keys[:, number], memory.values[:, number]
            hidden, keys_values = layer(hidden, *memory_part, memory_visible, everything, past)
            kept.append(keys_values)
        keys, values = zip(*kept, strict=True)
        return self._logits(hidden)[:, 0], Cache(torch.stack(keys, dim=1), torch.stack(values, dim=1))

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.norm_out(hidden) @ self.word.weight.T
        return logits.float()
