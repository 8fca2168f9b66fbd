"""Writing captions with the PyTorch model, to measure training and to check exported graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from hbi_infer.model.text_generation import Generated, generate
from hbi_infer.model.tokenizer import Tokenizer
from hbi_infer.options import Decoding
from hbi_training.data.frame_cache import FrameCache
from hbi_training.model.caption_decoder import Cache, CaptionDecoder, Memory
from hbi_training.model.token_interaction import TokensByLevel
from hbi_training.weights.checkpoint import Model

CLIPS_AT_ONCE = 64


class _State(NamedTuple):
    memory: Memory
    cache: Cache


class _Steps:
    """Adapts the decoder to `hbi_infer.model.text_generation`."""

    def __init__(self, decoder: CaptionDecoder, device: torch.device) -> None:
        self.decoder = decoder
        self.device = device

    def step(self, token_ids: npt.NDArray[np.int64], state: _State) -> tuple[npt.NDArray[np.floating], _State]:
        logits, cache = self.decoder.step(torch.from_numpy(token_ids).to(self.device), *state)
        return logits.cpu().numpy(), _State(state.memory, cache)

    def select(self, state: _State, rows: npt.NDArray[np.int64]) -> _State:
        chosen = torch.from_numpy(rows).to(self.device)
        return _State(Memory(*(part[chosen] for part in state.memory)), Cache(*(part[chosen] for part in state.cache)))


@torch.inference_mode()
def write_captions(
    model: Model, video: TokensByLevel, options: Decoding, *, start_id: int, end_id: int
) -> list[Generated]:
    """Writes a caption for each of B videos.

    Args:
        model: Model in evaluation mode, with a caption decoder.
        video: Tokens (B, V, D) of each level.
        options: Options of decoding; captions are cut to the decoder's positions.
        start_id: Id of the token that begins a caption.
        end_id: Id of the token that ends it.

    Raises:
        TrainingError: The model has no caption decoder.
    """
    model = model.require("caption", "writing captions")
    decoder = model.caption_decoder
    assert decoder is not None
    memory = model.read(video)
    device = memory.mask.device
    start = torch.full((len(memory.mask),), start_id, device=device)
    logits, cache = decoder.step(start, memory)
    steps = _Steps(decoder, device)
    state, within = _State(memory, cache), options.within(decoder.max_tokens)
    return generate(steps, logits.cpu().numpy(), state, within, end_id=end_id, forbidden=[start_id])


@torch.inference_mode()
def caption_split(
    model: Model, cache: FrameCache, rows: Sequence[int], tokenizer: Tokenizer, options: Decoding
) -> list[str]:
    """Writes captions of some clips of a split.

    Args:
        model: Model with a caption decoder, on any device; its mode is restored.
        cache: Frames of the split.
        rows: Rows of the clips in the split.
        tokenizer: Tokenizer of the model.
        options: Options of decoding.
    """
    was_training = model.training
    model.eval()
    device = model.logit_scale.device
    captions: list[str] = []
    for start in range(0, len(rows), CLIPS_AT_ONCE):
        frames, mask = (
            torch.from_numpy(part).to(device) for part in cache[np.array(rows[start : start + CLIPS_AT_ONCE])]
        )
        video = model.encode_video(frames, mask)
        written = write_captions(model, video, options, start_id=tokenizer.sot_id, end_id=tokenizer.eot_id)
        captions += [tokenizer.decode(text.token_ids) for text in written]
    model.train(was_training)
    return captions
