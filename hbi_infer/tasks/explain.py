"""Why a video matches a query: the exact Banzhaf interaction of its words and frames, level by level.

At each level of the bundle the text tokens and the video tokens of the pair are the players of one game
(`hbi_infer.tokens.banzhaf`), and the map says what each word and each frame are worth together. A token of weight 0 is
padding and no player. In the game a similarity below 0 counts as 0, at every level and whatever `padded_partner` the
bundle has; the score and the similarities that are shown beside the map are those of searching, which have that floor
only where `padded_partner` is "zero" and there is padding.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import BundleError, InputError, VideoError
from hbi_infer.index.clip_tokens import Source, VideoTokens
from hbi_infer.model.encoder import Encoder
from hbi_infer.options import Explaining
from hbi_infer.tasks.texts import EncodedTexts, pieces_of
from hbi_infer.tasks.word_map import MappedLevel, WordMap, best_grounded, make_word_map
from hbi_infer.tokens.fidelity import Fidelity, measure_fidelity
from hbi_infer.tokens.game import Floats, Game, game_of
from hbi_infer.tokens.groups import Groups, groups_by_level
from hbi_infer.tokens.levels import joined

PADDING = "[padding]"
MEANING = (
    "The interaction of a word and a frame is what they are worth together in the similarity beyond what each is worth "
    "without the other, on average over all choices of the other words and frames (Banzhaf, exact)."
)


class NoFramesWarning(UserWarning):
    """The frames of a video cannot be shown, only their times."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelExplanation:
    """The map of one level: T text tokens and V video tokens, padding left out.

    Attributes:
        name: Name of the level, such as "entity", "action" or "event".
        rate: Rate of the level's similarity in the score.
        similarity: Similarity of the pair at this level.
        words: (T,) the word, or the words merged into the token.
        frames: (V,) times in seconds of the frame, or of the frames merged into the token.
        word_groups: (T,) the words as positions in `Explanation.words`.
        frame_groups: (V,) the frames as positions in `Explanation.frame_seconds`.
        interaction: (T, V) float64, the exact Banzhaf interaction.
        cosines: (T, V) float64.
        text_weights: (T,) float64, above 0 with a sum of 1.
        video_weights: (V,) float64, the same.
        fidelity: Fidelity of the map; None if no cosine is above 0.
    """

    name: str
    rate: float
    similarity: float
    words: tuple[str, ...]
    frames: tuple[tuple[float, ...], ...]
    word_groups: Groups
    frame_groups: Groups
    interaction: Floats
    cosines: Floats
    text_weights: Floats
    video_weights: Floats
    fidelity: Fidelity | None

    def strongest(self, count: int) -> list[tuple[int, int]]:
        """Returns row and column of the pairs with the largest interaction, best first; of equal ones the first."""
        order = np.argsort(-self.interaction, axis=None, kind="stable")[:count]
        return [divmod(place, len(self.frames)) for place in order.tolist()]

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        return {
            "name": self.name,
            "rate": self.rate,
            "similarity": self.similarity,
            "words": list(self.words),
            "frames": [list(seconds) for seconds in self.frames],
            "word_groups": [list(group) for group in self.word_groups],
            "frame_groups": [list(group) for group in self.frame_groups],
            "interaction": self.interaction.tolist(),
            "cosines": self.cosines.tolist(),
            "text_weights": self.text_weights.tolist(),
            "video_weights": self.video_weights.tolist(),
            "fidelity": self.fidelity.to_json() if self.fidelity else None,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """Why one clip of a video matches a query.

    Attributes:
        query: The query as given.
        cut_at_word: Number of the word, from 1, at which the query was too long; None if it was kept whole.
        video: Path of the video as given.
        source: Where the tokens come from: the "index", or the "video", decoded and encoded.
        clip: Number of the clip in the video, counted from 1.
        num_clips: Number of clips in the video.
        start_seconds: Time in the video at which the clip begins.
        end_seconds: Time at which it ends.
        score: Score of the pair, as in a search.
        words: Every text token of the query, as `Tokenizer.pieces` writes it.
        frame_seconds: Time of each frame of the clip.
        word_map: Map of words by frames, of the level that grounds best.
        levels: Maps of the levels in the bundle's order, without the unnamed ones.
        unnamed_levels: Names of the levels whose tokens were merged from unknown words or frames; they count in the
            score.
        fidelity: Fidelity of the maps of all levels together, the unnamed ones included, by interaction times rate.
            None if no cosine is above 0 at a level that counts.
    """

    query: str
    cut_at_word: int | None
    video: Path
    source: Source
    clip: int
    num_clips: int
    start_seconds: float
    end_seconds: float
    score: float
    words: tuple[str, ...]
    frame_seconds: tuple[float, ...]
    word_map: WordMap
    levels: tuple[LevelExplanation, ...]
    unnamed_levels: tuple[str, ...]
    fidelity: Fidelity | None

    def fidelities(self) -> list[tuple[str, Fidelity]]:
        """Returns the fidelity of each level and of "all levels", where there is a similarity to lose."""
        named = [(level.name, level.fidelity) for level in self.levels] + [("all levels", self.fidelity)]
        return [(name, fidelity) for name, fidelity in named if fidelity]

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences that say what the maps leave out, and why."""
        remarks = []
        if self.unnamed_levels:
            remarks.append(
                f"Not shown: {' and '.join(self.unnamed_levels)}. This bundle does not say which words and frames "
                "were merged into their tokens; one that is exported anew does"
            )
        for level in self.levels:
            missing = {
                "word": len(self.words) - sum(map(len, level.word_groups)),
                "frame": len(self.frame_seconds) - sum(map(len, level.frame_groups)),
            }
            if any(missing.values()):
                counts = [f"{count} {what}{'s' * (count > 1)}" for what, count in missing.items() if count]
                remarks.append(f"The {level.name} level leaves out {' and '.join(counts)} of weight 0")
        return tuple(remarks)

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        return {
            "query": self.query,
            "cut_at_word": self.cut_at_word,
            "video": str(self.video),
            "source": self.source,
            "clip": self.clip,
            "num_clips": self.num_clips,
            "start_seconds": self.start_seconds,
            "end_seconds": self.end_seconds,
            "score": self.score,
            "words": list(self.words),
            "frame_seconds": list(self.frame_seconds),
            "word_map": self.word_map.to_json(),
            "levels": [level.to_json() for level in self.levels],
            "unnamed_levels": list(self.unnamed_levels),
            "fidelity": self.fidelity.to_json() if self.fidelity else None,
        }


def explain(
    encoder: Encoder, video: VideoTokens, query: EncodedTexts, options: Explaining | None = None
) -> Explanation:
    """Explains why one clip of a video matches a query.

    Args:
        encoder: The model.
        video: The tokens of N clips of a video.
        query: One text.
        options: The clip to explain; by default the one that matches best.

    Raises:
        InputError: The video has no such clip.
        BundleError: The bundle does not say of any level which words and frames its tokens stand for.
    """
    options = options or Explaining()
    words = tuple(pieces_of(encoder, query))
    # (N,)
    scores = encoder.similarity(query.levels, joined([clip.levels for clip in video.clips]))[0]
    number = _choose(video, scores, options)
    chosen = video.clips[number]
    frame_seconds = tuple(chosen.frame_seconds[np.isfinite(chosen.frame_seconds)].tolist())
    rates = encoder.scoring.rates
    games = {
        name: game_of(query.levels[name], chosen.levels[name], rate, encoder.scoring.directions)
        for name, rate in rates.items()
    }
    word_groups = groups_by_level(query.levels, query.batch.ids.shape[1], len(words))
    frame_groups = groups_by_level(chosen.levels, len(chosen.frame_seconds), len(frame_seconds))
    levels = {
        name: _level(
            name,
            float(encoder.scoring.at(name).similarity(query.levels, chosen.levels)[0, 0]),
            game,
            words=words,
            word_groups=word_groups[name],
            frame_seconds=frame_seconds,
            frame_groups=frame_groups[name],
        )
        for name, game in games.items()
        if name in word_groups and name in frame_groups
    }
    if not levels:
        raise BundleError(
            f"the bundle {encoder.bundle.path} does not say what words and frames its tokens are: export it again"
        )
    best = best_grounded(encoder.bundle.manifest)
    shown = levels.get(best) or next(iter(levels.values()))
    word_map = make_word_map(
        encoder,
        query,
        MappedLevel(
            name=shown.name,
            interaction=shown.interaction,
            word_groups=shown.word_groups,
            frame_groups=shown.frame_groups,
            video=chosen.levels[shown.name],
        ),
        frame_seconds,
        chosen.end_seconds,
    )
    counting = [game for game in games.values() if game.rate]
    return Explanation(
        query=query.texts[0],
        cut_at_word=query.cut_at_words[0],
        video=video.path,
        source=video.source,
        clip=number + 1,
        num_clips=len(video.clips),
        start_seconds=chosen.start_seconds,
        end_seconds=chosen.end_seconds,
        score=float(scores[number]),
        words=words,
        frame_seconds=frame_seconds,
        word_map=word_map,
        levels=tuple(levels.values()),
        unnamed_levels=tuple(name for name in games if name not in levels),
        fidelity=measure_fidelity(counting) if counting else None,
    )


def read_thumbnails(explanation: Explanation, image_size: int) -> npt.NDArray[np.uint8] | None:
    """Decodes the frames of the explained clip once more.

    Args:
        explanation: Explanation of a clip of K frames.
        image_size: H = W, in pixels.

    Returns:
        (K, H, W, 3) uint8; None if they cannot be decoded.

    Warns:
        NoFramesWarning: They cannot be decoded.
    """
    from hbi_infer.video.reader import read_frames

    try:
        return read_frames(explanation.video, np.array(explanation.frame_seconds), image_size=image_size)
    except VideoError as error:
        warnings.warn(f"{error}: its frames are shown as times only", NoFramesWarning, stacklevel=2)
        return None


def _level(
    name: str,
    similarity: float,
    game: Game,
    *,
    words: Sequence[str],
    word_groups: Groups,
    frame_seconds: Sequence[float],
    frame_groups: Groups,
) -> LevelExplanation:
    """Makes the map of a level whose tokens stand for some of the words and frames."""
    return LevelExplanation(
        name=name,
        rate=game.rate,
        similarity=similarity,
        words=tuple(" ".join(words[place] for place in group) or PADDING for group in word_groups),
        frames=tuple(tuple(frame_seconds[place] for place in group) for group in frame_groups),
        word_groups=word_groups,
        frame_groups=frame_groups,
        interaction=game.interaction,
        cosines=game.cosines,
        text_weights=game.text_weights,
        video_weights=game.video_weights,
        fidelity=measure_fidelity([replace(game, rate=1.0)]),
    )


def _choose(video: VideoTokens, scores: npt.NDArray[np.float32], options: Explaining) -> int:
    """Returns the clip to explain, counted from 0: the one asked for, or the one with the best of scores (N,)."""
    clips = video.clips
    if options.clip is not None:
        if not 1 <= options.clip <= len(clips):
            raise InputError(f"{video.path} has no clip {options.clip}: give a number from 1 to {len(clips)}")
        return options.clip - 1
    if options.at_seconds is None:
        return int(np.argmax(scores))
    for number, clip in enumerate(clips):
        if clip.start_seconds <= options.at_seconds < clip.end_seconds:
            return number
    before = [clip for clip in clips if clip.end_seconds <= options.at_seconds]
    after = [clip for clip in clips if clip.start_seconds > options.at_seconds]
    if before and after:  # frames between them could not be decoded
        near = [(clip.start_seconds, clip.end_seconds) for clip in (before[-1], after[0])]
    else:
        near = [(clips[0].start_seconds, clips[-1].end_seconds)]
    ranges = " or ".join(f"from {_exact(start)} s to before {_exact(end)} s" for start, end in near)
    raise InputError(f"{video.path} has no clip at {_exact(options.at_seconds)} s: give a time {ranges}")


def _exact(seconds: float) -> str:
    """Returns seconds in digits, to the millisecond, so that a time that is named lies where it is said to."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
