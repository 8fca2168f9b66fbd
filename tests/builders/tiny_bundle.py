"""A bundle that knows the mean colours of frames and the words red, green and blue, and videos of one colour each.

It answers which of them a clip shows, not counting colours that the question names, and its captions are
"a COLOUR video". It has the graphs, names and types of a trained bundle, so that everything but the training can be
tested for real.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from hbi_engines.engine import TensorSpec
from hbi_infer.model.bundle import Bundle, default_bundle_path, write_bundle
from hbi_infer.model.graph_names import TASKS, graphs_of_task, missing_graphs
from hbi_infer.model.manifest import BundleManifest, GraphSpec, LevelSpec, Provenance, TokenizerSpec
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_infer.options import FrameSampling

COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}
NOTICE = "this model knows red, green and blue"
SAMPLING = FrameSampling(frames_per_second=2.0, max_frames=4, image_size=16, clip_seconds=2.0)
MAX_WORDS = 8
OPSET = 20

ONNX_TYPES = {
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
    "int64": TensorProto.INT64,
    "float32": TensorProto.FLOAT,
}
FRAMES = SAMPLING.max_frames
VIDEO_INPUTS = (
    TensorSpec("frames", "uint8", ("B", FRAMES, SAMPLING.image_size, SAMPLING.image_size, 3)),
    TensorSpec("frame_mask", "bool", ("B", FRAMES)),
)
TEXT_INPUTS = (TensorSpec("token_ids", "int64", ("B", "T")), TensorSpec("token_mask", "bool", ("B", "T")))


def outputs(num_tokens: int | str) -> tuple[TensorSpec, ...]:
    return (
        TensorSpec("entity_tokens", "float32", ("B", num_tokens, 3)),
        TensorSpec("entity_weights", "float32", ("B", num_tokens)),
        TensorSpec("event_tokens", "float32", ("B", 1, 3)),
        TensorSpec("event_weights", "float32", ("B", 1)),
        TensorSpec("event_slots", "int64", ("B", num_tokens)),
    )


def make_graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    constants: dict[str, npt.NDArray[Any]],
) -> bytes:
    def values(specs: Sequence[TensorSpec]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(spec.name, ONNX_TYPES[spec.dtype], spec.shape) for spec in specs]

    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", values(inputs), values(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


# Of both encoders: from entity tokens (B, N, 3), `is_real` (B, N) and unnormalised `salience` (B, N) to weights, and to
# the one event token.
SUMMARY = [
    helper.make_node("ReduceSum", ["salience", "last"], ["salience_sum"], keepdims=1),
    helper.make_node("Div", ["salience", "salience_sum"], ["entity_weights"]),
    helper.make_node("Unsqueeze", ["entity_weights", "first"], ["row"]),
    helper.make_node("MatMul", ["row", "entity_tokens"], ["event_tokens"]),
    helper.make_node("ReduceSum", ["entity_weights", "last"], ["event_weights"], keepdims=1),
    helper.make_node("Cast", ["is_real"], ["ones"], to=TensorProto.INT64),
    helper.make_node("Sub", ["ones", "first"], ["event_slots"]),
]
AXES = {"first": np.array([1]), "last": np.array([-1])}


def video_encoder() -> bytes:
    """The mean colour of each frame, without its grey part: a token; all frames with equal weights."""
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "pixels"], ["colours"], keepdims=0),
        helper.make_node("ReduceMean", ["colours", "last"], ["grey"], keepdims=1),
        helper.make_node("Sub", ["colours", "grey"], ["entity_tokens"]),
        helper.make_node("Cast", ["frame_mask"], ["salience"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["frame_mask"], ["is_real"]),
        *SUMMARY,
    ]
    return make_graph(nodes, VIDEO_INPUTS, outputs(FRAMES), {"pixels": np.array([2, 3]), **AXES})


def text_encoder(tokenizer: Tokenizer) -> bytes:
    """The colour of each colour word, without its grey part; nearly all weight on those words."""
    table = np.zeros((tokenizer.vocabulary_size, 3), np.float32)
    for word, colour in COLOURS.items():
        token_id = tokenizer.encode([word], MAX_WORDS).ids[0, 1]
        table[token_id] = np.array(colour) - np.mean(colour)
    salience = 1e-4 + np.any(table, axis=1).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "token_ids"], ["entity_tokens"]),
        helper.make_node("Gather", ["word_salience", "token_ids"], ["unmasked"]),
        helper.make_node("Cast", ["token_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["unmasked", "mask"], ["salience"]),
        helper.make_node("Identity", ["token_mask"], ["is_real"]),
        *SUMMARY,
    ]
    constants = {"table": table, "word_salience": salience.astype(np.float32), **AXES}
    return make_graph(nodes, TEXT_INPUTS, outputs("T"), constants)


def token_inputs(side: str, num_tokens: int | str) -> tuple[TensorSpec, ...]:
    """What graphs on tokens take of one side: the outputs of its encoder but for the slots."""
    return tuple(
        TensorSpec(f"{side}_{spec.name}", spec.dtype, spec.shape)
        for spec in outputs(num_tokens)
        if not spec.name.endswith("slots")
    )


ANSWERS = tuple(COLOURS)
ANSWERER = token_inputs("text", "T") + token_inputs("video", FRAMES), (TensorSpec("logits", "float32", ("B", 3)),)
COLOUR_UNITS = np.array([np.array(colour) - np.mean(colour) for colour in COLOURS.values()], np.float32).T / 171.464


def answerer() -> bytes:
    """How much of each colour is in the clip, less what is in the question."""
    nodes = [
        helper.make_node("MatMul", ["video_event_tokens", "for_video"], ["seen"]),
        helper.make_node("MatMul", ["text_event_tokens", "for_text"], ["named"]),
        helper.make_node("Sub", ["seen", "named"], ["each"]),
        helper.make_node("Squeeze", ["each", "first"], ["logits"]),
    ]
    constants = {"for_video": 0.02 * COLOUR_UNITS, "for_text": 0.05 * COLOUR_UNITS, "first": np.array([1])}
    return make_graph(nodes, *ANSWERER, constants)


def states(name: str, length: int | str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(f"{name}_{part}", "float32", ("B", 1, 1, length, 3)) for part in ("keys", "values"))


MEMORY = (*states("memory", 1), TensorSpec("memory_mask", "bool", ("B", 1)))


def captioner(tokenizer: Tokenizer) -> dict[str, tuple[bytes, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]]:
    """Two graphs that write "a red video": what follows a token is fixed, but for the colour, which memory knows.

    The cache holds nothing of use, but grows as that of a real decoder does.
    """
    size, ids = tokenizer.vocabulary_size, tokenizer.encode([f"a {' '.join(COLOURS)} video"], MAX_WORDS).ids[0]
    start, article, *colours, video, end = ids.tolist()
    follows = np.zeros((size, size), np.float32)
    follows[start, article] = follows[video, end] = follows[article, colours] = follows[colours, video] = 12
    colour_words = np.zeros((3, size), np.float32)
    colour_words[:, colours] = 0.02 * COLOUR_UNITS
    behind_article = np.zeros((size, 1), np.float32)
    behind_article[article] = 1
    logits = TensorSpec("logits", "float32", ("B", size))
    read = [
        helper.make_node("Unsqueeze", ["video_event_tokens", "heads"], ["memory_keys"]),
        *(helper.make_node("Identity", ["memory_keys"], [name]) for name in ("memory_values", "present_keys")),
        helper.make_node("Identity", ["memory_keys"], ["present_values"]),
        helper.make_node("Cast", ["video_event_weights"], ["memory_mask"], to=TensorProto.BOOL),
        helper.make_node("MatMul", ["video_event_weights", "start_row"], ["logits"]),
    ]
    write = [
        helper.make_node("Gather", ["follows", "token_ids"], ["base"]),
        helper.make_node("Squeeze", ["memory_keys", "colour_axes"], ["colour"]),
        helper.make_node("MatMul", ["colour", "colour_words"], ["named"]),
        helper.make_node("Gather", ["behind_article", "token_ids"], ["gate"]),
        helper.make_node("Mul", ["named", "gate"], ["gated"]),
        helper.make_node("Add", ["base", "gated"], ["logits"]),
        *(
            helper.make_node("Concat", [f"past_{part}", f"memory_{part}"], [f"present_{part}"], axis=3)
            for part in ("keys", "values")
        ),
    ]
    prefill = token_inputs("video", FRAMES), (logits, *MEMORY, *states("present", 1))
    step = (TensorSpec("token_ids", "int64", ("B",)), *MEMORY, *states("past", "t")), (logits, *states("present", "u"))
    return {
        "captioner_prefill": (
            make_graph(read, *prefill, {"heads": np.array([1, 2]), "start_row": follows[start : start + 1]}),
            *prefill,
        ),
        "captioner_step": (
            make_graph(
                write,
                *step,
                {
                    "follows": follows,
                    "colour_words": colour_words,
                    "behind_article": behind_article,
                    "colour_axes": np.array([1, 2, 3]),
                },
            ),
            *step,
        ),
    }


@cache
def tokenizer_json() -> str:
    return clip_tokenizer_json([f"a {' then '.join(COLOURS)} video", "what colour is it?"])


@cache
def every_graph() -> dict[str, tuple[bytes, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]]:
    """Name -> graph, inputs, outputs."""
    tokenizer = Tokenizer.from_json(tokenizer_json())
    return {
        "video_encoder": (video_encoder(), VIDEO_INPUTS, outputs(FRAMES)),
        "text_encoder": (text_encoder(tokenizer), TEXT_INPUTS, outputs("T")),
        "answerer": (answerer(), *ANSWERER),
        **captioner(tokenizer),
    }


def tiny_graphs(*tasks: str) -> dict[str, bytes]:
    """Of a bundle that can search and do these tasks, as older versions wrote it: one graph encodes clips."""
    names = {"video_encoder"} | {name for task in ("retrieve", *tasks) for name in graphs_of_task(task)}
    return {name: content for name, (content, _, _) in every_graph().items() if name in names}


def tiny_manifest(*tasks: str) -> BundleManifest:
    return BundleManifest(
        name="tiny",
        notice=NOTICE,
        width=3,
        max_words=MAX_WORDS,
        vocabulary_size=Tokenizer.from_json(tokenizer_json()).vocabulary_size,
        sampling=SAMPLING,
        levels=(LevelSpec("entity", FRAMES, MAX_WORDS, 1.0), LevelSpec("event", 1, 1, 0.5)),
        padded_partner="ignore",
        logit_scale=10.0,
        tasks=("retrieve", *tasks),
        answers=ANSWERS if "qa" in tasks else (),
        tokenizer=TokenizerSpec(),
        graphs={
            name: GraphSpec(
                file=f"{name}.onnx",
                opset=OPSET,
                precision="float32",
                inputs=every_graph()[name][1],
                outputs=every_graph()[name][2],
            )
            for name in tiny_graphs(*tasks)
        },
        provenance=Provenance(
            recipe="tests/builders/tiny_bundle.py",
            data="none",
            seed=0,
            code_version="test",
            metrics={"text_to_video_r1": 1.0},
        ),
    )


def write_tiny_bundle(folder: Path, *tasks: str) -> Path:
    """Write the bundle to `folder`, in a tenth of a second but for the first one of a process.

    Args:
        folder: The bundle.
        tasks: What it can do besides searching: "qa", "caption".
    """
    write_bundle(folder, tiny_manifest(*tasks), tiny_graphs(*tasks), tokenizer_json())
    return folder


def write_part_of_embedded(folder: Path, *graphs: str) -> Bundle:
    """The embedded bundle with some of its graphs, and what they can do: of it all, a test takes much longer."""
    whole = Bundle.load(default_bundle_path())
    manifest = replace(
        whole.manifest,
        tasks=tuple(task for task in TASKS if not missing_graphs(task, graphs)),
        answers=whole.manifest.answers if "answerer" in graphs else (),
        graphs={name: whole.manifest.graphs[name] for name in graphs},
    )
    write_bundle(folder, manifest, {name: whole.graph_bytes(name) for name in graphs}, whole.tokenizer_json())
    return Bundle.load(folder)


def write_video(path: Path, *colours: str, seconds_each: float = 2.0) -> Path:
    """An H.264 video of 64 x 48 pixels that shows each of the colours in turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for colour in colours:
            picture = np.broadcast_to(np.array(COLOURS[colour], np.uint8), (48, 64, 3))
            for _ in range(round(seconds_each * 10)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    return path
