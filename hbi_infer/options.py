"""Options: one frozen dataclass for each task. A default lives here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hbi_infer.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FrameSampling:
    """How a video becomes the frames that a model sees; a bundle says it, training and serving share it.

    Attributes:
        frames_per_second: Frames taken for each second of video (the rate r of the published setting, 1).
        max_frames: F, the most frames of one clip; a clip that gives more keeps F of them, evenly spread.
        image_size: H = W in pixels: the short side is scaled to it, then the centre is cropped.
        clip_seconds: A longer video is cut into clips of this many seconds, so that a result names a moment.
    """

    frames_per_second: float = 1.0
    max_frames: int = 12
    image_size: int = 224
    clip_seconds: float = 12.0

    def __post_init__(self) -> None:
        for name in ("frames_per_second", "max_frames", "image_size", "clip_seconds"):
            value = getattr(self, name)
            if not value > 0:
                raise InputError(f"{name} is {value}; it must be greater than 0")


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How a question about videos is answered.

    Attributes:
        top_k: The most answers that are named, the likeliest first.
        min_probability: Where the likeliest answer is less probable, the answer is "don't know". At 0.5 an answer is
            given where it is more likely right than wrong.
        all_clips: Whether each clip of a video has an answer; by default the clip of the most probable one speaks for
            the video.
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
        max_tokens: The most tokens, the end included.
        beam_size: Candidates that are kept; 1 takes the likeliest token each time.
        length_penalty: Candidates are compared by log-probability / length ^ penalty: 0 favours short ones.
        no_repeat_ngram: No run of so many tokens occurs twice; 0 allows all.
        nucleus: Tokens are drawn from the fewest that together have this probability; None draws nothing.
        temperature: Of the probabilities that are drawn from.
        seed: Of the drawing.
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
        """The same, for a model of texts of `max_words` tokens, the start among them."""
        return replace(self, max_tokens=min(self.max_tokens, max_words - 1))
