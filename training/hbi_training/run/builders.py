"""Building the parts of a training run from its recipe: accelerator, vocabulary, model, batches, training step."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor

from hbi_infer.errors import TrainingError
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_training.data.batches import TrainingBatches
from hbi_training.data.frame_cache import Split
from hbi_training.data.records import VideoRecord, common_answers
from hbi_training.data.shapes.stills import training_stills
from hbi_training.evaluation.evaluate import encode_clips
from hbi_training.evaluation.frame_features import frame_features
from hbi_training.model.hbi import VIDEO_ENCODER
from hbi_training.objective.objective import Objective
from hbi_training.objective.self_critical import CaptionCritic
from hbi_training.objective.training_step import TrainingStep
from hbi_training.run.recipe import OptimiserOptions, Recipe, recipe_to_mapping
from hbi_training.weights.checkpoint import Model, build_model, load_checkpoint, start_from
from hbi_training.weights.rounding import computes_in_bfloat16

Say = Callable[[str], None]

NUM_PROCESSES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables in which torchrun and MPI give the number of processes, as Accelerate reads them."""
NUM_PROCESSES_HERE = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")
"""Variables that give the number of those on this machine."""


def chosen_precision(options: OptimiserOptions, *, cpu: bool) -> str:
    """Returns the mixed precision of a run: "no", "bf16" or "fp16"."""
    if options.mixed_precision == "auto":
        return "bf16" if computes_in_bfloat16(cpu=cpu) else "no"
    return options.mixed_precision


def uses_processor(*, cpu: bool) -> bool:
    """Returns whether a run computes on the processor: because it was asked to, or as the processes have no GPU.

    Args:
        cpu: True asks for the processor even if there is a GPU.

    Raises:
        TrainingError: There are fewer GPUs than processes.
    """
    num_processes, num_here = (
        max(int(os.environ.get(name) or 1) for name in names) for names in (NUM_PROCESSES, NUM_PROCESSES_HERE)
    )
    if cpu or num_processes == 1:  # one process takes whatever device there is
        return cpu
    num_gpus = torch.cuda.device_count()
    if 0 < num_gpus < num_here:
        raise TrainingError(
            f"{num_here} processes were started, and only {num_gpus} can have a GPU; start so many, or give --cpu"
        )
    return not num_gpus


def build_accelerator(precision: str, *, cpu: bool) -> Accelerator:
    """Builds the accelerator, which joins the devices of a run and computes in mixed precision."""
    # A recipe may leave parts of its model untrained, for example a reconstruction that no task reads.
    several = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(mixed_precision=precision, cpu=cpu, kwargs_handlers=[several])


def build_vocabulary(recipe: Recipe, records: Sequence[VideoRecord]) -> str:
    """Returns the content of tokenizer.json: CLIP's own vocabulary, or the part that the training texts need."""
    if recipe.data.vocabulary == "clip":
        return clip_tokenizer_json(None)
    corpus = [caption for record in records for caption in record.captions + record.hard_negatives]
    if recipe.objective.answering:
        corpus += [question.question for record in records for question in record.questions]
    return clip_tokenizer_json(corpus)


def closed_list(recipe: Recipe, records: Sequence[VideoRecord]) -> tuple[str, ...]:
    """Returns the answers that a run learns, the most frequent first; empty without the objective's answering."""
    return common_answers(records, recipe.data.max_answers) if recipe.objective.answering else ()


def build_first_model(
    recipe: Recipe, tokenizer: Tokenizer, answers: Sequence[str], say: Say
) -> tuple[Model, dict[str, Any]]:
    """Builds the model with its first weights: random ones from the recipe's seed, or those of `recipe.initial`.

    Args:
        recipe: Recipe to train.
        tokenizer: Tokenizer of the model.
        answers: Closed list of answers; an empty one means no answer head, unless the recipe's model lists answers.
        say: Callback for a line about the weights that are copied.

    Returns:
        The model, and the recipe as JSON, in which `initial` is the recipe of the earlier stage.
    """
    torch.manual_seed(recipe.seed)
    model = build_model({**recipe.model, **({"answers": tuple(answers)} if answers else {})}, tokenizer)
    mapping = recipe_to_mapping(recipe)
    if recipe.initial:
        initial = load_checkpoint(Path(recipe.initial))
        say(start_from(initial, model, tokenizer))
        mapping["initial"] = initial.provenance.get("recipe", recipe.initial)
    return model, mapping


def build_batches(
    recipe: Recipe, train: Split, tokenizer: Tokenizer, model: Model, answers: Sequence[str], accelerator: Accelerator
) -> TrainingBatches:
    """Builds this device's batches of B clips each, of those that could be decoded, and preloads their frames."""
    train.cache.preload()
    rows = train.cache.decoded
    return TrainingBatches(
        [train.records[row] for row in rows],
        train.cache,
        tokenizer,
        rows=rows,
        batch_size=recipe.optimiser.batch_size,
        max_words=model.config.max_words,
        seed=recipe.seed,
        num_negatives=recipe.objective.hard_negatives,
        shift_pixels=recipe.data.shift_pixels,
        answers=answers,
        num_questions=recipe.objective.questions,
        rank=accelerator.process_index,
        num_ranks=accelerator.num_processes,
    )


def build_step(recipe: Recipe, model: Model, batches: TrainingBatches, device: torch.device, say: Say) -> TrainingStep:
    """Builds the model with its loss, and freezes the parts that the recipe names.

    Raises:
        TrainingError: The model lacks a part that is to be frozen, or a task that the objective needs.
    """
    freeze(model, recipe.optimiser.frozen)
    known_tokens, known_features = None, None
    if set(VIDEO_ENCODER) <= set(recipe.optimiser.frozen) and not recipe.data.shift_pixels:
        say(f"computing the tokens of {len(batches.records)} clips, which stay as they are")
        known_tokens = encode_clips(model.to(device), batches.cache)
    elif "frame_encoder" in recipe.optimiser.frozen and not recipe.data.shift_pixels:
        known_features = _known_features(model.to(device), batches, say).to(device)
    critic = None
    if recipe.objective.self_critical:
        references = [record.captions for record in batches.records]
        critic = CaptionCritic(references, batches.tokenizer, num_samples=recipe.objective.self_critical_samples)
    stills = None
    if recipe.objective.stills:
        if recipe.data.shift_pixels:
            raise TrainingError("the objective's stills needs frames where they were drawn: set data.shift_pixels to 0")
        times_seconds = batches.cache.timestamps_seconds(batches.rows)
        stills = training_stills(recipe.data.folder, batches.records, times_seconds)
    return TrainingStep(model, recipe.objective, known_tokens, known_features, critic, stills)


def _known_features(model: Model, batches: TrainingBatches, say: Say) -> Tensor:
    """Returns the features of all frames by the frozen frame encoder, and says now and then how many there are."""
    number, done = len(batches.records), 0

    def advance(clips: int) -> None:
        nonlocal done
        if 10 * (done + clips) // number > 10 * done // number:
            say(f"the frames' features, which stay as they are: {done + clips} of {number} clips")
        done += clips

    return frame_features(model.frame_encoder, batches.cache, advance=advance)


def freeze(model: Model, names: Sequence[str]) -> None:
    """Excludes parts of a model from training.

    Raises:
        TrainingError: The model has no part of that name.
    """
    parts: dict[str, Any] = {**dict(model.named_children()), **dict(model.named_parameters(recurse=False))}
    for name in names:
        if name not in parts:
            raise TrainingError(
                f"the optimiser's frozen names {name}, which the model does not have; it has {', '.join(parts)}"
            )
        parts[name].requires_grad_(False)


def require_captions(objective: Objective, records: Sequence[VideoRecord]) -> None:
    """Refuses clips without captions where the caption decoder is trained.

    Raises:
        TrainingError: A clip has no caption.
    """
    if objective.writes_captions and not all(record.captions for record in records):
        term = "captioning" if objective.captioning else "self_critical"
        raise TrainingError(f"the objective's {term} needs captions, and some clips of the data set have none")
