"""The gate of a release: compares models on real clips, in their tensors and in the metrics of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hbi_export.graphs.parity import OutputCheck, compare
from hbi_export.options import MAX_DROP, CheckData
from hbi_export.precision.compared_model import ComparedModel
from hbi_export.precision.measurement import Measurement, measure_model
from hbi_infer.errors import ExportError
from hbi_training.data.frame_cache import Split
from hbi_training.run.commands import load_split

GATED = ("text_to_video/R@1", "video_to_text/R@1", "answer/accuracy", "caption/CIDEr")
"""Metrics that may fall by no more than is allowed."""


def load_clips(data: CheckData, model: ComparedModel) -> Split:
    """Decodes the clips of a split, sampled as a model needs them.

    Raises:
        DataError: There is no such data set.
    """
    return load_split(data.folder, data.data_format, data.split, model.sampling, data.workers, data.num)


@dataclass(frozen=True)
class Comparison:
    """Comparison of one model with the reference.

    Attributes:
        model: The model.
        checks: Comparisons of each output of each graph that both have.
        metrics: Metrics of the model.
        reference: Metrics of the reference.
    """

    model: ComparedModel
    checks: Sequence[OutputCheck]
    metrics: dict[str, float]
    reference: dict[str, float]

    @property
    def changes(self) -> dict[str, float]:
        """Gated metric that both have -> points by which the model is better."""
        both = self.metrics.keys() & self.reference.keys()
        return {name: self.metrics[name] - self.reference[name] for name in GATED if name in both}

    def falls(self, max_drop: float) -> list[str]:
        """Returns a text for each metric that fell by more than `max_drop` points."""
        return [
            f"{name} falls by {-change:.2f} points, from {self.reference[name]:.2f} to {self.metrics[name]:.2f}"
            for name, change in self.changes.items()
            if not change >= -max_drop - 1e-9
        ]


@dataclass(frozen=True)
class PrecisionReport:
    """Result of `compare_models`.

    Attributes:
        reference: The reference.
        num_clips: Number of clips.
        max_drop: Points by which a metric may fall.
        comparisons: A comparison for each model.
    """

    reference: ComparedModel
    num_clips: int
    max_drop: float
    comparisons: Sequence[Comparison]

    def require(self, consequence: str = "") -> None:
        """Refuses models that do worse than is allowed.

        Args:
            consequence: End of "refused" in the message, such as ", OUT was not written".

        Raises:
            ExportError: A metric of a model fell too far.
        """
        refused = [
            f"{comparison.model}: {fall}" for comparison in self.comparisons for fall in comparison.falls(self.max_drop)
        ]
        if refused:
            raise ExportError(
                f"refused{consequence}: {'; '.join(refused)}. At most {self.max_drop:g} is allowed (one of "
                f"{self.num_clips} clips is {100 / self.num_clips:.2f} points of a recall): use another precision, "
                "calibrate with clips more like these, or give another --max-drop"
            )

    @property
    def caveats(self) -> list[str]:
        """A line for each model of which less was measured than it seems."""
        return [
            f"{part.model}: processors compute fp16 in float32, so that only the rounding of weights was measured; on "
            "a machine with a GPU measure it with hbi-export check --device cuda"
            for part in self.comparisons
            if "fp16" in part.model.precisions and part.model.device in ("cpu", "openvino")
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns the report as `json.dumps` takes it."""
        return {
            "reference": {"model": self.reference.name, "device": self.reference.device},
            "clips": self.num_clips,
            "max_drop": self.max_drop,
            "caveats": self.caveats,
            "sides": [
                {
                    "model": part.model.name,
                    "device": part.model.device,
                    "precisions": sorted(part.model.precisions),
                    "refused": part.falls(self.max_drop),
                    "changes": part.changes,
                    "metrics": part.metrics,
                    "reference_metrics": part.reference,
                    "tensors": [asdict(check) for check in part.checks],
                }
                for part in self.comparisons
            ],
        }


def compare_models(
    reference: ComparedModel,
    models: Sequence[ComparedModel],
    data: CheckData,
    *,
    max_drop: float = MAX_DROP,
    on_model: Callable[[ComparedModel], None] = lambda _: None,
) -> PrecisionReport:
    """Measures models against a reference.

    Args:
        reference: The reference.
        models: Models that are measured in turn.
        data: Clips.
        max_drop: Points by which a metric may fall.
        on_model: Called before a model is measured.

    Raises:
        ExportError: A model takes other frames, words or answers than the reference, or gives values that are not
            numbers.
        TrainingError: The clips have no texts for the models' tasks.
        DataError: There is no such data set.
    """
    for model in models:
        _require_alike(reference, model)
    clips = load_clips(data, reference)
    on_model(reference)
    expected = measure_model(reference, clips)
    comparisons = []
    for model in models:
        on_model(model)
        found = measure_model(model, clips, expected)
        checks = list(_output_checks(found, expected))
        comparisons.append(Comparison(model, checks, dict(found.metrics), dict(expected.metrics)))
    return PrecisionReport(reference, len(clips.cache.decoded), max_drop, comparisons)


def _output_checks(found: Measurement, expected: Measurement) -> Iterator[OutputCheck]:
    """Compares outputs of equal shapes; graphs of another model may have others."""
    for graph, outputs in found.outputs.items():
        for name, array in outputs.items():
            other = expected.outputs.get(graph, {}).get(name)
            if other is not None and other.shape == array.shape:
                yield compare(graph, "real", name, array, other)


def _require_alike(reference: ComparedModel, model: ComparedModel) -> None:
    for what, one, other in (
        ("frame sampling", reference.sampling, model.sampling),
        ("levels", list(reference.scoring.rates), list(model.scoring.rates)),
        ("number of words", reference.max_words, model.max_words),
        ("answers", reference.answers, model.answers),
        ("tokenizer", reference.tokenizer_json, model.tokenizer_json),
    ):
        if one != other:
            raise ExportError(
                f"{model} has another {what} than {reference}: compare a bundle with the bundle or the checkpoint that "
                "it was made from"
            )
