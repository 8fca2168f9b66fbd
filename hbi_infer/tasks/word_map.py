"""A map of words by frames: which words of a query belong to which moment of a clip.

The values come from the level of the bundle that grounds best (`best_grounded`): the interactions of a word's tokens,
summed, and those of a merged video token shared equally among its frames. A bundle that has one token for a whole text
says nothing of its words, so that each word of content is left out in turn: its value at a frame is the cosine that the
frame loses.

A word's moment is the run of frames around its largest value at which it keeps at least `HALF` of it. Neighbouring
words of content that share their moment are one phrase.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from hbi_infer.model.content_words import Word, function_words, words_of
from hbi_infer.model.encoder import Encoder
from hbi_infer.model.manifest import BundleManifest
from hbi_infer.tasks.texts import EncodedTexts, pieces_of
from hbi_infer.tokens.game import Floats
from hbi_infer.tokens.groups import Groups, groups_by_level
from hbi_infer.tokens.levels import LevelTokens, unit

Method = Literal["interaction", "leaving out"]

HALF = 0.5
"""Share of its largest value that a word keeps at each frame of its moment."""
GAP = 1
"""Number of frames in a row that may fall below it: a thing that blinks is not there at some frames."""
LEAST_SHARE = 0.3
"""Share of the map's largest value that a word must reach, or it belongs to no moment."""
ALIKE = 0.6
"""Share of the frames of two moments that neighbouring words must have in common to be one phrase."""
MOST_TOLD = 4


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """Words that belong to the same moment.

    Attributes:
        text: The words, with those that stand between them.
        words: Rows of the map.
        frames: Columns of the map, in order.
        start_seconds: Time of the first of these frames in the video.
        end_seconds: Time of the first frame behind them, or of the clip's end.
        is_everywhere: Whether these are all frames of the clip.
    """

    text: str
    words: tuple[int, ...]
    frames: tuple[int, ...]
    start_seconds: float
    end_seconds: float
    is_everywhere: bool

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        return asdict(self) | {"words": list(self.words), "frames": list(self.frames)}


@dataclass(frozen=True, kw_only=True, eq=False)
class WordMap:
    """A map of W words by F frames.

    Attributes:
        level: Level that the values are of.
        method: "interaction", or "leaving out" each word in turn, of a bundle with one token for a whole text.
        words: (W,) the words of the query; those of content alone if they are left out in turn.
        values: (W, F) float64.
        phrases: Words that belong to a moment, in the order of the query.
    """

    level: str
    method: Method
    words: tuple[str, ...]
    values: Floats
    phrases: tuple[Phrase, ...]

    @property
    def sentence(self) -> str:
        """Sentence that says what the map shows."""
        told = sorted((phrase for phrase in self.phrases if not phrase.is_everywhere), key=self._strength)[:MOST_TOLD]
        if told:
            parts = [
                f"“{phrase.text}” {'belongs ' * (number == 0)}to {phrase.start_seconds:.1f} to "
                f"{phrase.end_seconds:.1f} s"
                for number, phrase in enumerate(sorted(told, key=lambda phrase: phrase.words))
            ]
            return f"{_listed(parts)}."
        if everywhere := [f"“{phrase.text}”" for phrase in self.phrases[:MOST_TOLD]]:
            return f"{_listed(everywhere)} {'belongs' if len(everywhere) == 1 else 'belong'} to the whole clip."
        return "No word belongs to a moment of this clip."

    @property
    def meaning(self) -> str:
        """Sentence that says what the values are."""
        if self.method == "interaction":
            return (
                f"Each value is what a word and a frame are worth together at the {self.level} level (exact Banzhaf "
                "interaction)."
            )
        return (
            "This model has one vector for a whole sentence, so each word was left out in turn: a value is the cosine "
            "that a frame loses without the word."
        )

    def to_json(self) -> dict[str, Any]:
        """Returns a value that `json.dumps` takes."""
        return {
            "level": self.level,
            "method": self.method,
            "words": list(self.words),
            "values": self.values.tolist(),
            "phrases": [phrase.to_json() for phrase in self.phrases],
            "sentence": self.sentence,
            "meaning": self.meaning,
        }

    def _strength(self, phrase: Phrase) -> float:
        """Returns what the phrases to tell are chosen by, the strongest first."""
        return -float(self.values[list(phrase.words)].max())


@dataclass(frozen=True, kw_only=True)
class MappedLevel:
    """Named tokens of one level, of which a word map is made.

    Attributes:
        name: Name of the level.
        interaction: (T, V) interaction of the real tokens.
        word_groups: (T,) the places of the text's tokens that each stands for.
        frame_groups: (V,) the frames that each stands for.
        video: The level's video tokens, a batch of one.
    """

    name: str
    interaction: Floats
    word_groups: Groups
    frame_groups: Groups
    video: LevelTokens


def best_grounded(manifest: BundleManifest) -> str:
    """Returns the level whose interactions point at the right moment most often, as measured when it was trained.

    It is the first one, whose tokens are single words and frames, where nothing was measured.
    """

    def pointing(level: str) -> float:
        ending = f"grounding/{level}/verb/pointing/interaction"
        return max((v for name, v in manifest.provenance.metrics.items() if name.endswith(ending)), default=0.0)

    return max((level.name for level in manifest.levels), key=pointing)


def make_word_map(
    encoder: Encoder, query: EncodedTexts, level: MappedLevel, frame_seconds: Sequence[float], end_seconds: float
) -> WordMap:
    """Makes the map of one text and one clip.

    Args:
        encoder: The model.
        query: One text.
        level: The level to map.
        frame_seconds: (F,) time of each frame of the clip.
        end_seconds: Time at which the clip ends.
    """
    words = words_of(pieces_of(encoder, query))
    method: Method = "interaction"
    if len(level.word_groups) == 1 and len(words) > 1:
        method = "leaving out"
        words = _split(query.texts[0])
        by_token = _lost_without(encoder, words, level)
        words = [word for word in words if word.has_content]
    else:
        shares = np.array([[_share(word, group) for group in level.word_groups] for word in words])
        by_token = shares.reshape(len(words), len(level.word_groups)) @ level.interaction
    values = by_token @ _spread(level.frame_groups, len(frame_seconds))
    borders = (*frame_seconds[1:], end_seconds)
    return WordMap(
        level=level.name,
        method=method,
        words=tuple(word.text for word in words),
        values=values,
        phrases=tuple(_phrases(words, values, frame_seconds, borders)),
    )


def content_shares(encoder: Encoder, texts: EncodedTexts, row: int) -> Floats:
    """Returns by which part each real token (T,) of a text's first level stands for words of content.

    All of them count wholly if the text has no such word, or if it is not known what the tokens stand for.
    """
    pieces = pieces_of(encoder, texts, row)
    places = {place for word in words_of(pieces) if word.has_content for place in word.places}
    tokens = texts.item(row)
    first = next(iter(tokens))
    groups = groups_by_level(tokens, texts.batch.ids.shape[1], len(pieces)).get(first, ())
    shares = np.array([len(places.intersection(group)) / max(len(group), 1) for group in groups])
    return shares if shares.any() else np.ones(int((tokens[first].weights[0] > 0).sum()))


def _split(text: str) -> list[Word]:
    """Returns the words of a text between its blanks, with their numbers as places."""
    plain = [word.strip(string.punctuation) for word in text.split()]
    words = [Word(word, (number,), word.lower() not in function_words()) for number, word in enumerate(plain) if word]
    return words if any(word.has_content for word in words) else [Word(w.text, w.places, True) for w in words]


def _lost_without(encoder: Encoder, words: Sequence[Word], level: MappedLevel) -> Floats:
    """Returns the cosine (W, V) that each video token loses when a word of content is left out of the text."""
    texts = [" ".join(word.text for word in words)]
    if len(words) > 1:
        texts += [" ".join(other.text for other in words if other is not word) for word in words if word.has_content]
    levels = encoder.encode_tokens(encoder.tokenize(texts))
    frames = unit(level.video.tokens[0])[level.video.weights[0] > 0].astype(np.float64)
    cosines: Floats = unit(levels[level.name].tokens[:, 0]).astype(np.float64) @ frames.T
    return cosines[:1] - cosines[1:] if len(texts) > 1 else cosines


def _share(word: Word, group: Sequence[int]) -> float:
    """Returns the share of a text token's group that is of a word."""
    return len(set(word.places).intersection(group)) / len(group) if group else 0.0


def _spread(frame_groups: Groups, num_frames: int) -> Floats:
    """Returns the share (V, F) of each video token's value that each of F frames has."""
    shares = np.zeros((len(frame_groups), num_frames))
    for token, group in enumerate(frame_groups):
        shares[token, list(group)] = 1 / max(len(group), 1)
    return shares


def _phrases(
    words: Sequence[Word], values: Floats, frame_seconds: Sequence[float], borders: Sequence[float]
) -> Iterator[Phrase]:
    """Yields the phrases of a map (W, F), whose frames begin at `frame_seconds` and end at `borders`, (F,) each."""
    rows = [row for row, word in enumerate(words) if word.has_content and not word.is_sentence]
    strongest = max((values[row].max() for row in rows), default=0.0)
    found: list[tuple[list[int], range]] = []
    for number, row in enumerate(rows):
        if strongest <= 0 or values[row].max() < LEAST_SHARE * strongest:
            continue
        moment = _moment(values[row])
        if found and number > 0 and found[-1][0][-1] == rows[number - 1] and _overlap(found[-1][1], moment) >= ALIKE:
            members, earlier = found[-1]
            found[-1] = ([*members, row], range(min(earlier.start, moment.start), max(earlier.stop, moment.stop)))
        else:
            found.append(([row], moment))
    for members, moment in found:
        yield Phrase(
            text=" ".join(word.text for word in words[members[0] : members[-1] + 1]),
            words=tuple(members),
            frames=tuple(moment),
            start_seconds=frame_seconds[moment.start],
            end_seconds=borders[moment.stop - 1],
            is_everywhere=len(moment) == len(frame_seconds),
        )


def _moment(row: Floats) -> range:
    """Returns the frames of a word of values (F,): those around the largest at which it keeps enough of it."""
    peak = int(row.argmax())
    kept = row >= HALF * row[peak]

    def reach(step: int) -> int:
        last, place = peak, peak + step
        while 0 <= place < len(row) and abs(place - last) <= GAP + 1:
            if kept[place]:
                last = place
            place += step
        return last

    return range(reach(-1), reach(1) + 1)


def _overlap(one: range, other: range) -> float:
    """Returns the number of frames that two moments share, as a part of those that either has."""
    shared = max(min(one.stop, other.stop) - max(one.start, other.start), 0)
    return shared / (len(one) + len(other) - shared)


def _listed(parts: Sequence[str]) -> str:
    """Joins parts of a sentence: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
