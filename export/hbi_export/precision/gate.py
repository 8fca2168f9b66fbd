"""The gate of a release: what rounding changes in tensors and in the metrics of tasks, on real clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hbi_export.graphs.parity import OutputCheck, compare
from hbi_export.precision.compared_model import Side
from hbi_export.precision.measurement import Measurement, measure_side
from hbi_infer.errors import ExportError
from hbi_training.data.frame_cache import Split
from hbi_training.run.commands import load_split

GATED = ("text_to_video/R@1", "video_to_text/R@1", "answer/accuracy", "caption/CIDEr")
"""Metrics that may not fall."""


@dataclass(frozen=True)
class CheckData:
    """Clips to compare sides on.

    Attributes:
        folder: Of a data set.
        data_format: As in `hbi_training.data.formats`.
        split: Of it.
        num: Only so many clips; None for all.
        workers: Decoding processes; None for one a core.
    """

    folder: Path
    data_format: str = "manifest"
    split: str = "test"
    num: int | None = None
    workers: int | None = None

    def load(self, side: Side) -> Split:
        """The clips, sampled as a side needs them."""
        return load_split(self.folder, self.data_format, self.split, side.sampling, self.workers, self.num)


@dataclass(frozen=True)
class Comparison:
    """One side against the reference.

    Attributes:
        side: What was compared.
        checks: Each output of each graph that both have.
        metrics: Of the side.
        reference: The reference's.
    """

    side: Side
    checks: Sequence[OutputCheck]
    metrics: dict[str, float]
    reference: dict[str, float]

    @property
    def changes(self) -> dict[str, float]:
        """Gated metric that both have -> by how many points the side is better."""
        both = self.metrics.keys() & self.reference.keys()
        return {name: self.metrics[name] - self.reference[name] for name in GATED if name in both}

    def falls(self, max_drop: float) -> list[str]:
        """What fell by more than `max_drop` points, as text."""
        return [
            f"{name} falls by {-change:.2f} points, from {self.reference[name]:.2f} to {self.metrics[name]:.2f}"
            for name, change in self.changes.items()
            if not change >= -max_drop - 1e-9
        ]


@dataclass(frozen=True)
class PrecisionReport:
    """What `compare_sides` found.

    Attributes:
        reference: What the sides were compared with.
        num_clips: On how many clips.
        max_drop: By how many points a metric may fall.
        comparisons: A side each.
    """

    reference: Side
    num_clips: int
    max_drop: float
    comparisons: Sequence[Comparison]

    def require(self, consequence: str = "") -> None:
        """The gate.

        Args:
            consequence: What a refusal means, such as ", OUT was not written".

        Raises:
            ExportError: A metric of a side fell too far.
        """
        refused = [
            f"{comparison.side}: {fall}" for comparison in self.comparisons for fall in comparison.falls(self.max_drop)
        ]
        if refused:
            raise ExportError(
                f"refused{consequence}: {'; '.join(refused)}. At most {self.max_drop:g} is allowed (one of "
                f"{self.num_clips} clips is {100 / self.num_clips:.2f} points of a recall): use another precision, "
                "calibrate with clips more like these, or give another --max-drop"
            )

    @property
    def caveats(self) -> list[str]:
        """What was not measured although it seems so, a line for each side."""
        return [
            f"{part.side}: processors compute fp16 in float32, so that only the rounding of weights was measured; on a "
            "machine with a GPU measure it with hbi-export check --device cuda"
            for part in self.comparisons
            if "fp16" in part.side.precisions and part.side.device in ("cpu", "openvino")
        ]

    def to_json(self) -> dict[str, Any]:
        """As what `json.dumps` takes."""
        return {
            "reference": {"model": self.reference.name, "device": self.reference.device},
            "clips": self.num_clips,
            "max_drop": self.max_drop,
            "caveats": self.caveats,
            "sides": [
                {
                    "model": part.side.name,
                    "device": part.side.device,
                    "precisions": sorted(part.side.precisions),
                    "refused": part.falls(self.max_drop),
                    "changes": part.changes,
                    "metrics": part.metrics,
                    "reference_metrics": part.reference,
                    "tensors": [asdict(check) for check in part.checks],
                }
                for part in self.comparisons
            ],
        }


def compare_sides(
    reference: Side,
    sides: Iterable[Side],
    data: CheckData,
    *,
    max_drop: float,
    on_side: Callable[[Side], None] = lambda _: None,
) -> PrecisionReport:
    """Measures sides against a reference.

    Args:
        reference: What to compare with.
        sides: Each is measured in turn.
        data: On what.
        max_drop: By how many points a metric may fall.
        on_side: Called before a side is measured.

    Raises:
        ExportError: A side takes other frames, words or answers than the reference, or gives values that are no
            numbers.
        TrainingError: The clips have no texts for what the sides can do.
        DataError: There is no such data set.
    """
    sides = list(sides)
    for side in sides:
        _require_alike(reference, side)
    clips = data.load(reference)
    on_side(reference)
    expected = measure_side(reference, clips)
    comparisons = []
    for side in sides:
        on_side(side)
        found = measure_side(side, clips, expected)
        checks = list(_output_checks(found, expected))
        comparisons.append(Comparison(side, checks, dict(found.metrics), dict(expected.metrics)))
    return PrecisionReport(reference, len(clips.cache.decoded), max_drop, comparisons)


def _output_checks(found: Measurement, expected: Measurement) -> Iterator[OutputCheck]:
    """Graphs of another size, as those of another model, have nothing to compare."""
    for graph, outputs in found.outputs.items():
        for name, array in outputs.items():
            other = expected.outputs.get(graph, {}).get(name)
            if other is not None and other.shape == array.shape:
                yield compare(graph, "real", name, array, other)


def _require_alike(reference: Side, side: Side) -> None:
    for what, one, other in (
        ("frame sampling", reference.sampling, side.sampling),
        ("levels", list(reference.rates), list(side.rates)),
        ("number of words", reference.max_words, side.max_words),
        ("answers", reference.answers, side.answers),
        ("tokenizer", reference.tokenizer_json, side.tokenizer_json),
    ):
        if one != other:
            raise ExportError(
                f"{side} has another {what} than {reference}: compare a bundle with the bundle or the checkpoint that "
                "it was made from"
            )
