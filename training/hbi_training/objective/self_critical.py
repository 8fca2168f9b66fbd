"""Self-critical training of the caption decoder (Rennie et al. 2017): sampled captions, rewarded by their CIDEr.

The gradient of the expected reward is that of each sampled caption's log-probability, times its reward above a
baseline. A single caption of a clip is compared with the likeliest one, several with the mean of one another
(Luo 2020), which needs no further decoding. Sampling and gradient both leave out dropout, so that they share one
distribution.
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
"""Word added to complete captions before comparison; without it CIDEr rewards those that break off ("a man with a")."""


class CaptionCritic:
    """Rewards captions of training clips by comparison with the clips' own captions.

    Args:
        references: Captions of each clip, at least one; the rarity of words is measured among all of them.
        tokenizer: Tokenizer of the model.
        num_samples: Number S of captions sampled for each clip.
    """

    def __init__(self, references: Sequence[Sequence[str]], tokenizer: Tokenizer, *, num_samples: int) -> None:
        self.references = [[f"{caption} {END_WORD}" for caption in captions] for captions in references]
        self.cider = Cider(self.references)
        self.tokenizer = tokenizer
        self.num_samples = num_samples

    def rewards(self, token_ids: Tensor, clips: Tensor) -> Tensor:
        """Returns the CIDEr (N,) float32, 0 to 10, of captions (N, T) int64 with their start, of clips (N,) int64."""
        texts = []
        for tokens in token_ids.tolist():
            text = self.tokenizer.decode(tokens)
            texts.append(f"{text} {END_WORD}" if self.tokenizer.eot_id in tokens else text)
        scores = self.cider.scores(texts, [self.references[clip] for clip in clips.tolist()])
        return torch.from_numpy(scores / 100).float().to(token_ids.device)

    def loss(self, decoder: CaptionDecoder, memory: Memory, clips: Tensor) -> Tensor:
        """Computes minus the mean reward of captions sampled for B clips, with the gradient of its expectation.

        Args:
            decoder: Decoder that writes the captions.
            memory: Keys and values of the clips.
            clips: Place of each clip among the references, (B,) int64.
        """
        # B clips -> B * S captions, grouped by clip.
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
        # The value is the reward, for people to read; the gradient is that of the gain, whose own value is meaningless.
        return gain.detach() - gain - rewards.mean()

    @torch.no_grad()
    def write(self, decoder: CaptionDecoder, memory: Memory, *, draw: bool = False) -> Tensor:
        """Writes a caption for each of N clips: (N, T) int64 with the start, and padded with end tokens.

        Args:
            decoder: Decoder that writes the captions.
            memory: Keys and values of the clips.
            draw: True samples each token; False takes the likeliest.
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
        torch.clear_autocast_cache()  # older PyTorch would reuse the weights cast here, which have no gradient
        return ids

    def log_probabilities(self, decoder: CaptionDecoder, memory: Memory, token_ids: Tensor) -> Tensor:
        """Returns the log-probability (N, T - 1) of each token after the first of (N, T) int64, given those before."""
        following = token_ids[:, 1:]
        logits = decoder(token_ids[:, :-1], memory)
        is_start = torch.arange(logits.shape[-1], device=logits.device) == self.tokenizer.sot_id
        logits = logits.masked_fill(is_start, torch.finfo(logits.dtype).min)
        losses = F.cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none")
        return -losses.view_as(following)

    def _is_word(self, token_ids: Tensor) -> Tensor:
        """Marks the tokens of a caption up to its end token: (N, T) -> (N, T) bool."""
        ends = (token_ids == self.tokenizer.eot_id).long()
        return ends.cumsum(1) - ends == 0


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode for the block."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
