"""Grounding: whether the map of a caption and its clip points at the moment at which each phrase happens.

The map of a level says what each text token and each video token are worth together: the exact Banzhaf interaction, or
their bare cosine. The row of a phrase is the sum of the rows of its tokens, a merged token counting by the share of its
words that belong to the phrase. Of each map are measured

- pointing: the share of phrases whose largest value lies at a frame inside the moment; of a merged video token the
  share of its frames that lie there counts (Zhang et al. 2018, "Top-down neural attention by excitation backprop");
- mass inside: the share of the row's positive values that lies inside the moment.

The same is measured of what knows nothing of the words: the weights of the frames, and a frame drawn at random
(chance). A phrase that happens at all frames of its clip says nothing and is left out.

Phrases of a kind are also measured by how their caption tells them: "in_order" of their moments, as in "moves left and
then blinks", "reversed", as in "blinks after moving left", "at_once" where two moments overlap, or "alone".
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from hbi_infer.model.tokenizer import TokenBatch, Tokenizer, clean
from hbi_infer.tokens.fidelity import measure_fidelity
from hbi_infer.tokens.game import Floats, Game, game_of
from hbi_infer.tokens.groups import Groups, groups_by_level
from hbi_infer.tokens.levels import Levels, LevelTokens, item
from hbi_infer.tokens.similarity import Directions
from hbi_training.data.frame_cache import FrameCache
from hbi_training.data.records import Phrase, VideoRecord
from hbi_training.model.token_interaction import TokensByLevel
from hbi_training.weights.checkpoint import Model

Telling = Literal["in_order", "reversed", "at_once", "alone"]

PAIRS_AT_ONCE = 64
DELETIONS = 100
"""Number of pairs of a caption and its clip whose maps are tested by deletion, which takes longest."""


@dataclass(frozen=True)
class Moment:
    """A phrase in terms of tokens.

    Attributes:
        kind: Kind of phrase.
        words: Positions of its tokens among the text tokens, the start mark being 0.
        inside: (K,) bool, True at the frames of the clip that lie in its moment.
        telling: Order in which its caption tells phrases of this kind.
    """

    kind: str
    words: frozenset[int]
    inside: npt.NDArray[np.bool_]
    telling: Telling


@dataclass(frozen=True)
class LevelMaps:
    """The maps of one level of a pair: T text tokens and V video tokens.

    Attributes:
        game: Cosines, weights and interaction.
        word_groups: (T,) the words that each text token stands for.
        frame_groups: (V,) the frames that each video token stands for.
    """

    game: Game
    word_groups: Groups
    frame_groups: Groups

    def rows(self, words: frozenset[int]) -> dict[str, Floats] | None:
        """Returns the values (V,) of a phrase by each map; None if no token of weight above 0 stands for it."""
        shares = np.array([len(words.intersection(group)) / max(len(group), 1) for group in self.word_groups])
        if not shares.any():
            return None
        game = self.game
        return {
            "interaction": shares @ game.interaction,
            "cosine": shares @ game.cosines,
            "frame_weights": game.video_weights,
        }

    def share_inside(self, inside: npt.NDArray[np.bool_]) -> Floats:
        """Returns the share (V,) of the frames of each video token that lie inside."""
        return np.array([inside[list(group)].mean() if group else 0.0 for group in self.frame_groups])


def pointing(values: Floats, share_inside: Floats) -> float:
    """Returns the share inside (V,) of the token with the largest of values (V,), on average over equal ones."""
    return float(share_inside[values == values.max()].mean())


def mass_inside(values: Floats, share_inside: Floats) -> float | None:
    """Returns the share of the positive values (V,) that lies inside; None if there are none."""
    positive = np.maximum(values, 0)
    return float(positive @ share_inside / positive.sum()) if positive.any() else None


def effective_number(weights: Floats) -> float:
    """Returns the number of tokens of equal weight that would have the entropy of these weights (N,), which sum to 1.

    >>> effective_number(np.array([0.25, 0.25, 0.25, 0.25]))
    4.0
    """
    real = weights[weights > 0]
    return round(math.exp(-float(real @ np.log(real))), 9)


def phrase_words(pieces: Sequence[str], phrase: Phrase) -> frozenset[int]:
    """Returns the positions of the text tokens, as `Tokenizer.pieces` writes them, that a phrase consists of.

    It is empty if the caption was cut before the phrase, or has characters that no piece shows.
    """
    before, text = (clean(part).replace(" ", "") for part in (phrase.caption[: phrase.start], phrase.text))
    whole = clean(phrase.caption).replace(" ", "")
    start, found = 0, set()
    for place, piece in enumerate(pieces[1:], start=1):
        letters = piece.removesuffix("·")
        if not whole.startswith(letters, start):
            break  # the end mark, or a character of several tokens
        end = start + len(letters)
        if len(before) < end and start < len(before) + len(text):
            found.add(place)
        start = end
    return frozenset(found)


class TokenEncoder(Protocol):
    """A model of which only tokens are asked for: `hbi_infer.model.token_model.TokenModel`, or one in PyTorch."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model."""

    def encode_tokens(self, batch: TokenBatch) -> Levels:
        """Computes the tokens of B texts from their ids, level by level."""

    def encode_video(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> Levels:
        """Computes the tokens of B clips (B, F, H, W, 3) with mask (B, F), level by level."""


class TorchEncoder:
    """A model in PyTorch as an encoder of arrays.

    Args:
        model: Model in evaluation mode, on any device.
        tokenizer: Tokenizer of the model.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer) -> None:
        self._model, self.tokenizer = model, tokenizer

    @torch.inference_mode()
    def encode_tokens(self, batch: TokenBatch) -> Levels:
        """Computes the tokens of B texts from their ids, level by level."""
        return _in_numpy(self._model.encode_text(*self._tensors(batch.ids, batch.mask)))

    @torch.inference_mode()
    def encode_video(self, frames: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> Levels:
        """Computes the tokens of B clips (B, F, H, W, 3) with mask (B, F), level by level."""
        return _in_numpy(self._model.encode_video(*self._tensors(frames, mask)))

    def _tensors(self, *arrays: npt.NDArray[Any]) -> list[torch.Tensor]:
        return [torch.from_numpy(array).to(self._model.logit_scale.device) for array in arrays]


def measure_grounding(
    encoder: TokenEncoder,
    records: Sequence[VideoRecord],
    cache: FrameCache,
    *,
    max_words: int,
    directions: Directions = "both",
    all_captions: bool = False,
) -> dict[str, float]:
    """Measures the maps of captions that have phrases with moments, each with its own clip.

    Args:
        encoder: Model.
        records: Clips of the split.
        cache: Frames of the clips.
        max_words: Largest number of tokens of a text, start and end included.
        directions: Sums of the similarity that count.
        all_captions: True takes every caption of a clip; False one, the first of the first clip, the second of the
            second and so on, so that all sorts of captions occur.

    Returns:
        Percent by name, such as "entity/verb/pointing/interaction", "entity/verb/reversed/pointing/cosine" or
        "entity/noun/mass_inside/cosine"; numbers of tokens such as "entity/effective_words"; empty if no phrase can be
        measured.
    """
    found: dict[str, list[float]] = defaultdict(list)
    wanted = _captions(records, cache, all_captions)
    for number, (maps, moments) in enumerate(_pairs(encoder, wanted, cache, max_words, directions)):
        for level, measured in maps.items():
            for moment in moments:
                for name, value in _measure(measured, moment):
                    found[f"{level}/{moment.kind}/{name}"].append(100 * value)
                    found[f"{level}/{moment.kind}/{moment.telling}/{name}"].append(100 * value)
            for name, value in _spread(measured, is_first=level == next(iter(maps))):
                found[f"{level}/{name}"].append(value)
            if number < DELETIONS and (fidelity := measure_fidelity([measured.game])) is not None:
                for name in ("interaction", "cosine"):
                    found[f"{level}/deletion/{name}"].append(100 * getattr(fidelity, f"by_{name}").drop)
                found[f"{level}/deletion/random"].append(100 * fidelity.at_random.drop)
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}


def _measure(maps: LevelMaps, moment: Moment) -> Iterator[tuple[str, float]]:
    """Yields what is measured of one phrase at one level, from 0 to 1."""
    rows = maps.rows(moment.words)
    if rows is None:
        return
    share_inside = maps.share_inside(moment.inside)
    for name, values in rows.items():
        yield f"pointing/{name}", pointing(values, share_inside)
        if (mass := mass_inside(values, share_inside)) is not None:
            yield f"mass_inside/{name}", mass
    yield "chance", float(moment.inside.mean())


def _spread(maps: LevelMaps, *, is_first: bool) -> Iterator[tuple[str, float]]:
    """Yields how many words and frames have weight; at the first level also the percent on the start and end marks."""
    game = maps.game
    yield "effective_words", effective_number(game.text_weights)
    yield "effective_frames", effective_number(game.video_weights)
    if is_first and len(game.text_weights) > 1:
        yield "weight_of_marks", 100 * float(game.text_weights[0] + game.text_weights[-1])


def _captions(
    records: Sequence[VideoRecord], cache: FrameCache, all_captions: bool
) -> list[tuple[int, tuple[Phrase, ...]]]:
    """Returns the row of each clip with the phrases of one caption, or of each."""
    wanted = []
    for number, row in enumerate(cache.decoded.tolist()):
        by_caption: dict[str, list[Phrase]] = defaultdict(list)
        for phrase in records[row].phrases:
            by_caption[phrase.caption].append(phrase)
        told = [(row, tuple(phrases)) for phrases in by_caption.values()]
        wanted += told if all_captions or not told else [told[number % len(told)]]
    return wanted


def _pairs(
    encoder: TokenEncoder,
    wanted: Sequence[tuple[int, tuple[Phrase, ...]]],
    cache: FrameCache,
    max_words: int,
    directions: Directions,
) -> Iterator[tuple[dict[str, LevelMaps], list[Moment]]]:
    """Yields the maps of each caption with its clip, and its phrases that say something."""
    for start in range(0, len(wanted), PAIRS_AT_ONCE):
        rows, told = zip(*wanted[start : start + PAIRS_AT_ONCE], strict=True)
        batch = encoder.tokenizer.encode([phrases[0].caption for phrases in told], max_words)
        frames, mask = cache[np.array(rows)]
        texts, videos = encoder.encode_tokens(batch), encoder.encode_video(frames, mask)
        times = cache.timestamps_seconds(np.array(rows))
        for place, phrases in enumerate(told):
            pieces = encoder.tokenizer.pieces(batch.ids[place, batch.mask[place]].tolist())
            moments = list(_moments(phrases, pieces, times[place, mask[place]]))
            if moments:
                word_groups = groups_by_level(item(texts, place), batch.ids.shape[1], len(pieces))
                frame_groups = groups_by_level(item(videos, place), mask.shape[1], int(mask[place].sum()))
                yield _maps(item(texts, place), item(videos, place), word_groups, frame_groups, directions), moments


def telling_of(phrases: Sequence[Phrase]) -> Telling:
    """Returns the order in which a caption tells phrases of one kind, by those whose moments differ."""
    told = [(phrase.start_seconds, phrase.end_seconds) for phrase in sorted(phrases, key=lambda phrase: phrase.start)]
    moments = list(dict.fromkeys(told))
    if len(moments) < 2:
        return "alone"
    if all(before[1] <= after[0] for before, after in pairwise(moments)):
        return "in_order"
    if all(after[1] <= before[0] for before, after in pairwise(moments)):
        return "reversed"
    return "at_once"


def _moments(phrases: Sequence[Phrase], pieces: Sequence[str], seconds: Floats) -> Iterator[Moment]:
    kinds = {phrase.kind for phrase in phrases}
    telling = {kind: telling_of([phrase for phrase in phrases if phrase.kind == kind]) for kind in kinds}
    for phrase in phrases:
        words = phrase_words(pieces, phrase)
        inside = (seconds >= phrase.start_seconds) & (seconds < phrase.end_seconds)
        if words and inside.any() and not inside.all():
            yield Moment(phrase.kind, words, inside, telling[phrase.kind])


def _maps(
    text: Levels,
    video: Levels,
    word_groups: dict[str, Groups],
    frame_groups: dict[str, Groups],
    directions: Directions,
) -> dict[str, LevelMaps]:
    """Returns the maps of each level of one pair whose words and frames are known."""
    return {
        level: LevelMaps(
            game_of(text[level], video[level], directions=directions), word_groups[level], frame_groups[level]
        )
        for level in text
        if level in word_groups and level in frame_groups
    }


def _in_numpy(levels: TokensByLevel) -> Levels:
    return {
        name: LevelTokens(
            level.tokens.float().cpu().numpy(),
            level.weights.cpu().numpy(),
            None if level.slots is None else level.slots.cpu().numpy(),
        )
        for name, level in levels.items()
    }
