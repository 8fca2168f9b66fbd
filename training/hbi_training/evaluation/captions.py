"""Caption metrics: BLEU-4, METEOR, ROUGE-L and CIDEr, as coco-caption defines them, without Java.

coco-caption, the scorer of all published results, has not changed since 2015; its package pycocoevalcap (2020) is
100 MB with three Java programs. In its place:

- BLEU-4, ROUGE-L and CIDEr (which is CIDEr-D) are short formulas, computed here; they agree with coco-caption to 1e-9
  on the same words. Among maintained libraries, sacrebleu agrees too, on BLEU alone; NLTK's BLEU counts captions of
  fewer than four words otherwise; aac-metrics has CIDEr, beside sentence transformers and Java. rouge-score (2022) has
  another F-measure.
- METEOR is `hbi_training.evaluation.meteor`, with stems by snowballstemmer. Official scores are 2 to 5 points higher,
  for they also count synonyms and paraphrases: ours must not be compared with published numbers.
- `words` replaces the Stanford tokenizer; it finds the same words in texts of letters and commas.

tests/training/evaluation/test_captions.py measures the distance of each from the official scorer, whose scores come
from tests/golden/make_caption_scores.py; that script also gives the official scores of any other captions.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from hbi_infer.errors import TrainingError
from hbi_training.evaluation.meteor import meteor

Words = Sequence[str]
Ngrams = Counter[tuple[str, ...]]

LONGEST = 4
"""Length of the longest runs of words that BLEU and CIDEr count."""

ROUGE_BETA = 1.2
CIDER_SIGMA = 6.0

WORD = re.compile(
    r"""\w+(?=n't\b)                                # the "do" of "don't"
      | n't\b | '(?:s|re|ve|ll|d|m)\b               # the ends of "don't", "it's", "we're"
      | \w+(?:[-./]\w+ | (?<=\d)[,:](?=\d)\w+)*     # t-shirt, 3.5, and/or, 1,000, 5:30
      | [$%&#]""",
    re.VERBOSE,
)


def caption_metrics(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Measures captions against those that people wrote.

    Args:
        candidates: One caption for each clip; an empty one scores 0.
        references: At least one caption for each clip. CIDEr weighs words by how few clips have them: it has meaning
            for a whole split, and is 0 for a single clip.

    Returns:
        "BLEU-4", "METEOR", "ROUGE-L" (0 to 100) and "CIDEr" (100 times the usual fraction: 0 to 1000).

    Raises:
        TrainingError: There are no captions, or one has no reference.
        ValueError: The numbers of candidates and of references differ.

    Example:
        >>> caption_metrics(["a man sings"], [["A man sings.", "Someone is singing."]])["ROUGE-L"]
        100.0
    """
    _check(candidates, references)
    ours = [words(caption) for caption in candidates]
    theirs = [[words(caption) for caption in captions] for captions in references]
    return {
        "BLEU-4": 100 * _bleu(ours, theirs),
        "METEOR": 100 * meteor(ours, theirs),
        "ROUGE-L": 100 * float(np.mean([_rouge(*pair) for pair in zip(ours, theirs, strict=True)])),
        "CIDEr": float(Cider(references).scores(candidates, references).mean()),
    }


def words(text: str) -> list[str]:
    """Splits a text into words in lower case without punctuation, cut as in the Penn Treebank.

    The Stanford tokenizer, which the official scorer runs, also cuts "cannot" and "gonna", keeps the dot of "mr.", and
    leaves brackets as the words "-lrb-" and "-rrb-".

    Example:
        >>> words("A man doesn't eat; he's in a T-shirt.")
        ['a', 'man', 'does', "n't", 'eat', 'he', "'s", 'in', 'a', 't-shirt']
    """
    return WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


class Cider:
    """Computes CIDEr of single captions, a reward for training, with document frequencies that are counted once.

    Args:
        corpus: References of each clip of the corpus in which the rarity of words is measured.

    Raises:
        TrainingError: The corpus is empty.
    """

    def __init__(self, corpus: Sequence[Sequence[str]]) -> None:
        if not corpus:
            raise TrainingError("CIDEr needs the captions of a corpus, and there are none")
        documents: Ngrams = Counter()
        for captions in corpus:
            documents.update(set(chain.from_iterable(_all_ngrams(words(caption)) for caption in captions)))
        self.most = math.log(len(corpus))
        self.rarity = {ngram: self.most - math.log(count) for ngram, count in documents.items()}

    def scores(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
        """Returns the score of each candidate, (N,) float64, 100 times the usual fraction.

        Raises:
            TrainingError: There are no captions, or one has no reference.
            ValueError: The numbers of candidates and of references differ.
        """
        _check(candidates, references)
        vectors: dict[str, _Vector] = {}  # the same references often stand for several candidates
        for text in chain(candidates, chain.from_iterable(references)):
            if text not in vectors:
                vectors[text] = _Vector(words(text), self)
        pairs = zip(candidates, references, strict=True)
        return np.array(
            [1000 * np.mean([vectors[text].similarity(vectors[other]) for other in others]) for text, others in pairs]
        )


class _Vector:
    """Counts of a caption's runs of words times their rarity, one vector for each length of run."""

    def __init__(self, text: Words, cider: Cider) -> None:
        self.num_pairs = max(len(text) - 1, 0)
        self.parts = [
            {ngram: count * cider.rarity.get(ngram, cider.most) for ngram, count in _ngrams(text, size).items()}
            for size in range(1, LONGEST + 1)
        ]
        self.norms = [math.sqrt(sum(value**2 for value in part.values())) for part in self.parts]

    def similarity(self, reference: _Vector) -> float:
        """Returns the mean cosine, 0 to 1, in which no run counts more often than in the reference."""
        cosines = [
            sum(min(value, theirs[ngram]) * theirs[ngram] for ngram, value in mine.items() if ngram in theirs)
            / (my_norm * their_norm or 1.0)
            for mine, my_norm, theirs, their_norm in zip(
                self.parts, self.norms, reference.parts, reference.norms, strict=True
            )
        ]
        difference = self.num_pairs - reference.num_pairs
        return sum(cosines) / LONGEST * math.exp(-(difference**2) / (2 * CIDER_SIGMA**2))


def _check(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates cannot be compared with the references of {len(references)}")
    if not candidates:
        raise TrainingError("there are no captions to measure; the split has none")
    for number, captions in enumerate(references):
        if not captions:
            raise TrainingError(f"caption {number} has no reference to compare with; measure on clips with captions")


def _ngrams(text: Words, size: int) -> Ngrams:
    return Counter(tuple(text[i : i + size]) for i in range(len(text) - size + 1))


def _all_ngrams(text: Words) -> Ngrams:
    return Counter(tuple(text[i : i + n]) for n in range(1, LONGEST + 1) for i in range(len(text) - n + 1))


def _bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Computes BLEU, 0 to 1, from counts over the whole corpus, which is not a mean over captions."""
    found, total = np.zeros(LONGEST), np.zeros(LONGEST)
    length = closest = 0
    for candidate, others in zip(candidates, references, strict=True):
        length += len(candidate)
        closest += min((abs(len(other) - len(candidate)), len(other)) for other in others)[1]
        for size in range(1, LONGEST + 1):
            counts, most = _ngrams(candidate, size), Counter[tuple[str, ...]]()
            for other in others:
                most |= _ngrams(other, size)
            found[size - 1] += (counts & most).total()
            total[size - 1] += counts.total()
    if not found.all():
        return 0.0
    return float((found / total).prod() ** (1 / LONGEST) * min(1.0, math.exp(1 - closest / length)))


def _rouge(candidate: Words, references: Sequence[Words]) -> float:
    """Computes the F-measure, 0 to 1, of the best precision and the best recall of any reference."""
    common = [_longest_common(candidate, reference) for reference in references]
    precision = max(common) / max(len(candidate), 1)
    recall = max(both / max(len(reference), 1) for both, reference in zip(common, references, strict=True))
    if not precision:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def _longest_common(one: Words, other: Words) -> int:
    """Counts the words of the longest sequence that both hold in the same order, perhaps with gaps."""
    row = [0] * (len(other) + 1)
    for word in one:
        before, row = row, [0]
        for j, theirs in enumerate(other):
            row.append(before[j] + 1 if word == theirs else max(before[j + 1], row[j]))
    return row[-1]
