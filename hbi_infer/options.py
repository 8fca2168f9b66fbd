"""Options: one frozen dataclass for each task. A default lives here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, get_args

from hbi_infer.errors import InputError

ADDED_LATER = {"added_later": True}
"""Marks a field that the first bundles did not have: where it is missing it has its default, and it is only written
with another value, so that versions that do not know it can read the rest."""
Fit = Literal["crop", "squash", "pad"]
Rounding = Literal["torchvision", "transformers"]
Interpolation = Literal["bicubic", "bilinear"]
Dedupe = Literal["off", "same", "near"]


@dataclass(frozen=True, kw_only=True)
class FrameSampling:
    """How a video becomes the frames that a model sees. Each bundle states it; training and serving share it.

    Attributes:
        frames_per_second: Frames taken for each second of video (the rate r of the published setting, 1).
        max_frames: F, the largest number of frames of one clip; a clip that gives more keeps F, evenly spread.
        image_size: H = W in pixels.
        clip_seconds: Length of the clips that a longer video is cut into, so that a result names a moment.
        fit: How a picture becomes a square: "crop" scales its short side and cuts out the centre, "squash" scales both
            sides alike, "pad" scales its long side and puts black bars beside it.
        resize_to: Number of pixels that the side is scaled to before the centre is cut out; None for `image_size`.
        rounding: Library whose rounding of sizes and margins is followed; they differ by a pixel.
        interpolation: How values between pixels are found when a picture is scaled.
    """

    frames_per_second: float = 1.0
    max_frames: int = 12
    image_size: int = 224
    clip_seconds: float = 12.0
    fit: Fit = field(default="crop", metadata=ADDED_LATER)
    resize_to: int | None = field(default=None, metadata=ADDED_LATER)
    rounding: Rounding = field(default="torchvision", metadata=ADDED_LATER)
    interpolation: Interpolation = field(default="bicubic", metadata=ADDED_LATER)

    def __post_init__(self) -> None:
        for name in ("frames_per_second", "max_frames", "image_size", "clip_seconds", "resize_to"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}; it must be greater than 0")
        kinds = (("fit", Fit), ("rounding", Rounding), ("interpolation", Interpolation))
        for name, choices in ((name, get_args(kind)) for name, kind in kinds):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {getattr(self, name)!r}; choose one of: {', '.join(choices)}")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Choice of the files of a folder that are taken for videos.

    Attributes:
        exclude: Patterns of files and folders to leave out, compared as in `hbi_infer.files.path_matcher`: one with a
            "/" with the path relative to the folder, one without with the name alone too. A path may also be given in
            full.
        all_files: Whether a file whose suffix is no video's is a video if its content is one.
    """

    exclude: tuple[str, ...] = ()
    all_files: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.exclude, str):
            raise InputError(f"exclude is {self.exclude!r}; give several patterns, such as ({self.exclude!r},)")
        object.__setattr__(self, "exclude", tuple(filter(None, self.exclude)))


VIDEOS_BY_SUFFIX = Finding()
"""How videos are found unless asked otherwise."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Conditions on the videos to search. A video must meet all that are given.

    Attributes:
        path_glob: Pattern of the path relative to the folder, with `*` (also over "/"), `?` and `[...]`; compared as in
            `hbi_infer.files.path_matcher`.
        folder: Only videos in this folder or below it, relative to the indexed one; compared in the same way.
        min_seconds: Least duration of the video.
        max_seconds: Greatest duration of the video.
        newer_than: Only files changed at this time or later; local time if it has no time zone.
        older_than: Only files changed before this time.
    """

    path_glob: str | None = None
    folder: str | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    newer_than: datetime | None = None
    older_than: datetime | None = None


EVERYTHING = Filter()
"""The filter that every video passes."""


MIN_MATCH = 0.97
"""Least match of the results that a command shows: of sentences about nothing here, 3 in 100 reach it."""


@dataclass(frozen=True, kw_only=True)
class Searching:
    """How an index is searched.

    Attributes:
        top_k: Largest number of results for each query.
        where: Only videos that pass this filter.
        all_clips: Whether a video may be found with several of its clips; by default only the best one counts.
        shortlist: Number of clips that are scored exactly when there are too many to score all.
        exact_up_to: Largest number of clips that are all scored exactly; None for as many as fit in 512 MiB.
        rerank: Number of best results that are scored again by reconstructed tokens and ordered by that score; 0
            leaves it out, and fewer than `top_k` count as `top_k`. Only single texts can be reranked.
        without: Texts that say what must not be there; `hbi_infer.tasks.query` says how that counts.
        dedupe: Likeness of the clips of other videos that are folded into a better result: "same" folds those that show
            the same, as copied files do, "near" also what shows nearly the same, as other encodings do, "off" none.
        min_match: Least `match` of a result, from 0 to 1; see `hbi_infer.tokens.background`. What is like a video has
            no match and is never left out.
    """

    top_k: int = 10
    where: Filter = EVERYTHING
    all_clips: bool = False
    shortlist: int = 1000
    exact_up_to: int | None = None
    rerank: int = 0
    without: tuple[str, ...] = ()
    dedupe: Dedupe = "same"
    min_match: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("top_k", 1), ("shortlist", 1), ("rerank", 0)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
        if not 0 <= self.min_match <= 1:
            raise InputError(f"min_match is {self.min_match}; it must be from 0 to 1")
        if isinstance(self.without, str):
            raise InputError(f"without is {self.without!r}; give several texts, such as ({self.without!r},)")
        if not all(text.strip() for text in self.without):
            raise InputError("a text of without is empty: give a sentence that says what must not be there")
        if self.without and self.rerank:
            raise InputError(f"rerank is {self.rerank} and without is given: only single texts can be reranked")
        if self.dedupe not in get_args(Dedupe):
            raise InputError(f"dedupe is {self.dedupe!r}; choose one of: {', '.join(get_args(Dedupe))}")


@dataclass(frozen=True, kw_only=True)
class Explaining:
    """The clip of a video that is explained; by default the one that matches best.

    Attributes:
        clip: Number of the clip, counted from 1.
        at_seconds: A time inside the clip.
    """

    clip: int | None = None
    at_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.clip is not None and self.at_seconds is not None:
            raise InputError("clip and at_seconds are both given: give one of them")


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How a question about videos is answered.

    Attributes:
        top_k: Largest number of answers that are named, the likeliest first.
        min_probability: Least probability at which an answer is given instead of "don't know". At 0.5 an answer is
            given where it is more likely right than wrong.
        all_clips: Whether each clip of a video gets an answer; by default the clip with the most probable answer
            speaks for the video.
    """

    top_k: int = 3
    min_probability: float = 0.5
    all_clips: bool = False

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}; it must be at least 1")
        if not 0 <= self.min_probability <= 1:
            raise InputError(f"min_probability is {self.min_probability}; it must be from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How a caption is written, token by token.

    Attributes:
        max_tokens: Largest number of tokens, the end included.
        beam_size: Number of candidates that are kept; 1 takes the likeliest token each time.
        length_penalty: Exponent p of log-probability / length ^ p, by which candidates are compared; 0 favours short
            ones.
        no_repeat_ngram: Length of the runs of tokens that may not occur twice; 0 allows all.
        nucleus: Probability that the fewest tokens to draw from have together; None draws nothing.
        temperature: Divisor of the logits before a token is drawn.
        seed: Random seed for drawing.
    """

    max_tokens: int = 40
    beam_size: int = 4
    length_penalty: float = 1.0
    no_repeat_ngram: int = 0
    nucleus: float | None = None
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 1), ("beam_size", 1), ("no_repeat_ngram", 0), ("length_penalty", 0)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
        if self.nucleus is not None and not 0 < self.nucleus <= 1:
            raise InputError(f"nucleus is {self.nucleus}; it must be more than 0 and at most 1")
        if self.nucleus is not None and self.beam_size > 1:
            raise InputError(f"beam_size is {self.beam_size}; drawing from a nucleus needs a beam_size of 1")
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature}; it must be greater than 0")

    def within(self, max_words: int) -> Decoding:
        """Returns these options for a model whose texts have at most `max_words` tokens, the start included."""
        return replace(self, max_tokens=min(self.max_tokens, max_words - 1))
