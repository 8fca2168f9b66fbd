"""Self-critical training of the caption decoder (Rennie et al. 2017): captions that it draws, rewarded by their CIDEr.

The gradient is that of the expected reward: of each drawn caption's log-probability, times how much better it is than
what it is compared with. One caption of a clip is compared with the likeliest one, several with the mean of one another
(Luo 2020), which needs no further decoding. Drawing and gradient are of the decoder without dropout, so that both are
of the same distribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbi_infer.model.tokenizer import Tokenizer
from hbi_training.evaluation.captions import Cider
from hbi_training.model.caption_decoder import Cache, CaptionDecoder, Memory

END_WORD = "endofcaption"
"""Ends what is complete, as a word that is compared: CIDEr alone rewards captions that break off ("a man with a")."""


class CaptionCritic:
    """Rewards captions of training clips by the clips' own ones.

    Args:
        references: Captions of each clip, at least one; the rarity of words is that among all of them.
        tokenizer: The model's.
        num_samples: S, captions that are drawn for each clip.
    """

    def __init__(self, references: Sequence[Sequence[str]], tokenizer: Tokenizer, *, num_samples: int) -> None:
        self.references = [[f"{caption} {END_WORD}" for caption in captions] for captions in references]
        self.cider = Cider(self.references)
        self.tokenizer = tokenizer
        self.num_samples = num_samples

    def rewards(self, token_ids: Tensor, clips: Tensor) -> Tensor:
        """(N, T) int64, from the start on, and (N,) int64, whose captions they are -> (N,) float32 CIDEr, 0 to 10."""
        texts = []
        for tokens in token_ids.tolist():
            text = self.tokenizer.decode(tokens)
            texts.append(f"{text} {END_WORD}" if self.tokenizer.eot_id in tokens else text)
        scores = self.cider.scores(texts, [self.references[clip] for clip in clips.tolist()])
        return torch.from_numpy(scores / 100).float().to(token_ids.device)

    def loss(self, decoder: CaptionDecoder, memory: Memory, clips: Tensor) -> Tensor:
        """Minus the mean reward of captions that are drawn for B clips, with the gradient of its expectation.

        Args:
            decoder: What writes them.
            memory: What it has read of the clips.
            clips: (B,) int64, which of the clips with references they are.
        """
        # B clips -> B * S captions; those of one clip stand together.
        clips = clips.repeat_interleave(self.num_samples)
        repeated = Memory(*(part.repeat_interleave(self.num_samples, dim=0) for part in memory))
        with without_dropout(decoder):
            drawn = self.write(decoder, repeated, draw=True)
            rewards = self.rewards(drawn, clips)
            if self.num_samples == 1:
                baseline = self.rewards(self.write(decoder, memory), clips)
            else:
                grouped = rewards.unflatten(0, (-1, self.num_samples))
                others = (grouped.sum(1, keepdim=True) - grouped) / (self.num_samples - 1)
                baseline = others.flatten()
            log_probabilities = self.log_probabilities(decoder, repeated, drawn)
        words = self._is_word(drawn[:, 1:])
        gain = ((rewards - baseline)[:, None] * log_probabilities)[words].mean()
        # The value is the reward, which can be read; the gradient is that of the gain, whose own value says nothing.
        return gain.detach() - gain - rewards.mean()

    @torch.no_grad()
    def write(self, decoder: CaptionDecoder, memory: Memory, *, draw: bool = False) -> Tensor:
        """(N, T) int64: a caption for each of N clips, from the start on; behind its end there are ends.

        Args:
            decoder: What writes them.
            memory: What it has read of the clips.
            draw: False takes the likeliest token each time.
        """
        start, end = self.tokenizer.sot_id, self.tokenizer.eot_id
        ids = memory.mask.new_full((len(memory.mask), 1), start, dtype=torch.int64)
        ended = memory.mask.new_zeros(len(memory.mask))
        cache: Cache | None = None
        while ids.shape[1] < decoder.max_tokens and not ended.all():
            logits, cache = decoder.step(ids[:, -1], memory, cache)
            logits[:, start] = -torch.inf
            chosen = logits.softmax(-1).multinomial(1)[:, 0] if draw else logits.argmax(-1)
            chosen = chosen.masked_fill(ended, end)
            ids = torch.cat([ids, chosen[:, None]], dim=1)
            ended = ended | (chosen == end)
        torch.clear_autocast_cache()  # older PyTorch would take weights that were cast here, without a gradient
        return ids

    def log_probabilities(self, decoder: CaptionDecoder, memory: Memory, token_ids: Tensor) -> Tensor:
        """(N, T) int64, from the start on -> (N, T - 1), of each token behind those before it."""
        following = token_ids[:, 1:]
        logits = decoder(token_ids[:, :-1], memory)
        is_start = torch.arange(logits.shape[-1], device=logits.device) == self.tokenizer.sot_id
        logits = logits.masked_fill(is_start, torch.finfo(logits.dtype).min)
        losses = F.cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none")
        return -losses.view_as(following)

    def _is_word(self, token_ids: Tensor) -> Tensor:
        """(N, T) -> (N, T) bool: the tokens of a caption, its end among them, and none behind it."""
        ends = (token_ids == self.tokenizer.eot_id).long()
        return ends.cumsum(1) - ends == 0


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """The module as in evaluation, for a while."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
