"""Sizes and choices of a model: all that is needed to build it, saved beside the weights."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from difflib import get_close_matches
from math import ceil
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from hbi_infer.errors import TrainingError
from hbi_infer.options import FrameSampling

LEVELS = ("entity", "action", "event")
CLIP_POSITIONS, CLIP_PIXELS = 77, 224
"""Values of CLIP's own configuration, for mappings that leave them out."""

T = TypeVar("T")


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Builds a dataclass from a mapping of its fields.

    Raises:
        TrainingError: A key is unknown (the message names the nearest known one) or missing, a value is not the number
            that it must be, or a choice is not among those allowed.
    """
    if not isinstance(values, Mapping):
        raise TrainingError(f"{where} is {values!r:.80}; it must be a mapping")
    kinds = get_type_hints(cls)
    members = fields(cls)  # type: ignore[arg-type]
    refuse_unknown(values, [member.name for member in members], where)
    typed = {key: _typed(value, kinds[key], f"{where}: {key}") for key, value in values.items()}
    needed = [member.name for member in members if member.default is MISSING and member.default_factory is MISSING]
    if missing := [name for name in needed if name not in values]:
        raise TrainingError(f"{where} has no {' and no '.join(missing)}")
    return cls(**typed)


def refuse_unknown(keys: Iterable[str], known: Collection[str], where: str) -> None:
    """Refuses unknown keys.

    Raises:
        TrainingError: A key is unknown; the message names the nearest known one.
    """
    for key in keys:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
            raise TrainingError(f"{where} has the unknown key {str(key)!r:.80}; {hint}")


def require_positive(options: Any, *names: str) -> None:
    """Refuses counts below 1.

    Raises:
        TrainingError: A count is below 1.
    """
    for name in names:
        if (value := getattr(options, name)) < 1:
            raise TrainingError(f"{name} is {value}; it must be at least 1")


def check_clip_sizes(clip: Mapping[str, Any], max_words: int, sampling: FrameSampling) -> None:
    """Checks that CLIP's encoders take the texts and the frames of a model.

    Raises:
        TrainingError: The width of the tokens is missing, texts are longer than the table of positions, or frames have
            another size.
    """
    if "projection_dim" not in clip:
        raise TrainingError("the model's clip has no projection_dim: the width of every token")
    positions = clip.get("text_config", {}).get("max_position_embeddings", CLIP_POSITIONS)
    if max_words > positions:
        raise TrainingError(
            f"max_words is {max_words}, and clip's text_config has max_position_embeddings {positions}; a text cannot "
            "be longer"
        )
    pixels = clip.get("vision_config", {}).get("image_size", CLIP_PIXELS)
    if pixels != sampling.image_size:
        raise TrainingError(
            f"sampling takes frames of {sampling.image_size} pixels, and clip's vision_config has image_size {pixels}; "
            "they must agree"
        )


def _typed(value: Any, kind: Any, where: str) -> Any:
    """Returns a value as its annotation wants it: lists become tuples, numbers and choices are checked."""
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(value)
    if get_origin(kind) is Literal:
        value = "no" if value is False else value  # YAML reads a bare no as False
        if value not in (choices := get_args(kind)):
            raise TrainingError(f"{where} is {value!r:.80}; choose one of: {', '.join(choices)}")
        return value
    if kind is str and not (isinstance(value, str) and "\0" not in value):
        raise TrainingError(f"{where} is {value!r:.80}; it must be a text")
    wanted = set(get_args(kind)) if isinstance(kind, UnionType) else {kind}
    if not wanted <= {int, float, type(None)} or (value is None and type(None) in wanted):
        return value
    if float in wanted and isinstance(value, str):  # YAML reads 2e-3 as a text, and 2.0e-3 as a number
        with suppress(ValueError):
            value = float(value)
    is_number = not isinstance(value, bool) and isinstance(value, (int, float) if float in wanted else int)
    if not is_number or not abs(value) < 2**63:  # so not infinite either
        what = "a number" if float in wanted else "a whole number"
        raise TrainingError(f"{where} is {value!r:.80}; it must be {what}")
    return value


@dataclass(frozen=True, kw_only=True)
class HBIConfig:
    """Sizes and choices of an HBI model.

    Attributes:
        clip: CLIP encoders in the format of `transformers.CLIPConfig`: `text_config`, `vision_config`,
            `projection_dim` (D, the width of every token of the model).
        vision_stem: "patch" is CLIP's own patch embedding. "convolution" puts a few strided convolutions in its place
            (Xiao et al. 2021), which learn from far fewer clips; the grid of patches stays the same. "residual" has
            two more before each of those that halve the picture: without them circles pass for squares.
        max_words: Greatest number T of text tokens, start and end included.
        temporal_layers: Layers of the transformer over frames; 0 leaves it out.
        temporal_positions: Rows of its table of positions; None for F. The released code has CLIP's 77.
        temporal_layer_norm_eps: Epsilon of its layer norms: 1e-12 in the released code, elsewhere 1e-5.
        temporal_heads: Heads of the temporal transformer; D must be a multiple of it. The released code has D / 64.
        frame_window: Number of frames before it, and after it, that a frame sees in each temporal layer, which then is
            one of a `NeighbourMixer`: a frame of the entity level knows its neighbours alone. None for a transformer
            over all frames, as published.
        word_window: Number of words before it that a word sees in each layer of CLIP's text encoder; None for all.
        context_layers: Layers of a transformer over the whole clip, and of one over the whole text, between the entity
            level and the merging; 0 leaves them out. Each has `temporal_heads` heads.
        marks_play: Whether the start and end marks of a text are players of the games, as published. Without them the
            marks are read by the text encoder alone, and only words are merged.
        merge_heads: Heads of the attention of merged tokens; D must be a multiple of it.
        text_merge_ratios: Ratio of text tokens at each level above the first to those at the level below.
        video_merge_ratios: Ratio of video tokens, likewise.
        neighbours: Nearest neighbours k of DPC-KNN, counting the token itself.
        reconstruction_layers: Layers of the cross-modal transformer that reconstructs the tokens of a pair; 0 leaves it
            out. It has `temporal_heads` heads.
        merging: "masked" leaves padding out of everything: a padded token changes no output, and a short clip gets
            fewer clusters. "released" repeats the authors' code: as many clusters as the padded length asks for,
            padding that leaks through the convolution and through the batch's largest distance, slots ordered by
            score instead of by time.
        padded_partner: "ignore" takes each maximum over real tokens only. "zero" is the released entity level: a
            padded partner counts as a similarity of 0.
        level_rates: Factor of each level's similarity in the score.
        answers: Closed list of answers to questions; an empty one leaves the answer head out.
        answer_widths: Widths of the answer head's projections and of its classifier's hidden layer.
        answer_rates: Factor of each level's logits.
        answer_temperature: Divisor of the logits that makes their softmax the rate of right answers; fitted on the
            validation split.
        caption_layers: Layers of the decoder that writes captions; 0 leaves it out.
        sampling: Options for taking frames from a video.
    """

    clip: Mapping[str, Any]
    vision_stem: Literal["patch", "convolution", "residual"] = "patch"
    max_words: int = 32
    temporal_layers: int = 4
    temporal_positions: int | None = None
    temporal_layer_norm_eps: float = 1e-5
    temporal_heads: int = 8
    frame_window: int | None = None
    word_window: int | None = None
    context_layers: int = 0
    marks_play: bool = True
    merge_heads: int = 8
    text_merge_ratios: tuple[float, ...] = (0.25, 0.5)
    video_merge_ratios: tuple[float, ...] = (0.25, 0.5)
    neighbours: int = 3
    reconstruction_layers: int = 0
    merging: Literal["masked", "released"] = "masked"
    padded_partner: Literal["ignore", "zero"] = "ignore"
    level_rates: tuple[float, ...] = (1.0, 1.0, 1.0)
    answers: tuple[str, ...] = ()
    answer_widths: tuple[int, int] = (256, 512)
    answer_rates: tuple[float, ...] = (0.4, 0.4, 0.2)
    answer_temperature: float = 1.0
    caption_layers: int = 0
    sampling: FrameSampling = field(default_factory=FrameSampling)

    def __post_init__(self) -> None:
        check_clip_sizes(self.clip, self.max_words, self.sampling)
        if self.temporal_positions is not None and self.temporal_positions < self.sampling.max_frames:
            raise TrainingError(
                f"temporal_positions is {self.temporal_positions}, and sampling takes up to "
                f"{self.sampling.max_frames} frames"
            )
        for name in ("frame_window", "word_window"):
            if (window := getattr(self, name)) is not None and window < 1:
                raise TrainingError(f"{name} is {window}; it must be at least 1, or null for no window")
        if self.merging == "released" and not self.marks_play:
            raise TrainingError("the released merging has the start and end marks among its tokens: set marks_play")
        levels = len(LEVELS)
        if len(self.text_merge_ratios) != levels - 1 or len(self.video_merge_ratios) != levels - 1:
            raise TrainingError(f"text_merge_ratios and video_merge_ratios take {levels - 1} numbers each")
        for rates in ("level_rates", "answer_rates"):
            if len(getattr(self, rates)) != levels:
                raise TrainingError(f"{rates} takes {levels} numbers, for {', '.join(LEVELS)}")
        for name in ("temporal_heads", "merge_heads"):
            if self.width % getattr(self, name):
                raise TrainingError(f"projection_dim {self.width} is not a multiple of {name} {getattr(self, name)}")

    @property
    def width(self) -> int:
        """Width D of every token."""
        return int(self.clip["projection_dim"])

    @property
    def text_token_counts(self) -> tuple[int, ...]:
        """Number of text tokens at each level for a text of `max_words`."""
        return level_token_counts(self.max_words, self.text_merge_ratios)

    @property
    def video_token_counts(self) -> tuple[int, ...]:
        """Number of video tokens at each level for a clip of F frames."""
        return level_token_counts(self.sampling.max_frames, self.video_merge_ratios)

    def to_json(self) -> dict[str, Any]:
        """Returns a mapping that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> HBIConfig:
        """Builds the configuration from the mapping of `to_json` or from a recipe's `model` section.

        Raises:
            TrainingError: A key is unknown or a size is impossible.
        """
        given = dict(values)
        if "sampling" in given:
            given["sampling"] = from_mapping(FrameSampling, given["sampling"], "sampling")
        return from_mapping(cls, given, "the model's configuration")


def level_token_counts(num_tokens: int, ratios: tuple[float, ...]) -> tuple[int, ...]:
    """Returns the number of tokens at each level: 32 with ratios (0.25, 0.5) gives (32, 8, 4)."""
    counts = [num_tokens]
    for ratio in ratios:
        counts.append(max(ceil(counts[-1] * ratio), 1))
    return tuple(counts)
