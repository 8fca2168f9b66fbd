"""Sentences, and words alone, against a BERT of `transformers`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from hbi_engines.registry import open_engine
from hbi_infer.convert.sentence_encoder import WORDS_WEIGHT, BertWeights, WordFlags, sentence_graph, text_graph
from hbi_infer.errors import BundleError

WIDTH, LAYERS, VOCABULARY = 64, 2, 40
PAD, START, END = 0, 1, 2
FIRST_CONTINUED = 30
"""Tokens from this one on continue a word."""

SILENT = 5


@pytest.fixture(scope="module")
def bert() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=96,
        max_position_embeddings=32,
        layer_norm_eps=1e-12,
        initializer_range=0.3,
    )
    return transformers.BertModel(config, add_pooling_layer=False).eval()


@pytest.fixture(scope="module")
def weights(bert: Any) -> BertWeights:
    return BertWeights({name: tensor.numpy() for name, tensor in bert.state_dict().items()}, LAYERS, WIDTH)


def flags() -> WordFlags:
    continues = np.arange(VOCABULARY) >= FIRST_CONTINUED
    begins = ~continues & (np.arange(VOCABULARY) > END)
    return WordFlags(begins, continues, begins & (np.arange(VOCABULARY) != SILENT), START, END)


def batch(*texts: list[int]) -> dict[str, npt.NDArray[Any]]:
    width = max(map(len, texts)) + 2
    ids, mask = np.full((len(texts), width), PAD), np.zeros((len(texts), width), np.bool_)
    for row, text in enumerate(texts):
        ids[row, : len(text) + 2] = [START, *text, END]
        mask[row, : len(text) + 2] = True
    return {"token_ids": ids, "token_mask": mask}


def mean(bert: Any, text: list[int]) -> npt.NDArray[np.float32]:
    """The mean token of one text, the definition."""
    with torch.no_grad():
        hidden = bert(torch.tensor([[START, *text, END]])).last_hidden_state
    made: npt.NDArray[np.float32] = hidden[0].mean(0).numpy()
    return made


TEXTS = ([3, 4, 31, 32, SILENT, 6], [7], [SILENT, 33, 8, 30], [], [SILENT])


def run(graph: bytes, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    engine = open_engine(graph, "cpu")
    try:
        return engine.run(inputs)
    finally:
        engine.close()


def test_sentences_are_unit_means(bert: Any, weights: BertWeights) -> None:
    found = run(sentence_graph(weights), batch(*TEXTS))["vectors"]
    expected = np.stack([mean(bert, text) for text in TEXTS])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_text_is_its_sentence_and_its_words_alone(bert: Any, weights: BertWeights) -> None:
    made = run(text_graph(weights, flags()), batch(*TEXTS))
    # (place of a word, its tokens) of each text
    words = [
        {1: [3], 2: [4, 31, 32], 5: [SILENT], 6: [6]},
        {1: [7]},
        {1: [SILENT, 33], 3: [8, 30]},
        {},
        {1: [SILENT]},
    ]
    for row, text in enumerate(TEXTS):
        tokens = made["entity_tokens"][row]
        for place, alone in {0: text, **words[row]}.items():
            expected = mean(bert, alone)
            np.testing.assert_allclose(tokens[place], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_weights_of_words_that_say_something(weights: BertWeights) -> None:
    made = run(text_graph(weights, flags()), batch(*TEXTS))["entity_weights"]
    third, half = WORDS_WEIGHT / 3, WORDS_WEIGHT / 2
    expected = [
        [1 - WORDS_WEIGHT, third, third, 0, 0, 0, third, 0],
        [1 - WORDS_WEIGHT, WORDS_WEIGHT, 0, 0, 0, 0, 0, 0],
        [1 - WORDS_WEIGHT, half, 0, half, 0, 0, 0, 0],  # a silent token that goes on is a word of its own
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(made, expected, atol=1e-6)


def test_slots_lead_from_each_piece_to_where_its_word_begins(weights: BertWeights) -> None:
    made = run(text_graph(weights, flags()), batch(*TEXTS))["entity_slots"]
    assert made.tolist() == [
        [0, 1, 2, 2, 2, 5, 6, -1],
        [0, 1, -1, -1, -1, -1, -1, -1],
        [0, 1, 1, 3, 3, -1, -1, -1],
        [0, -1, -1, -1, -1, -1, -1, -1],
        [0, 1, -1, -1, -1, -1, -1, -1],
    ]


def test_padding_changes_nothing(weights: BertWeights) -> None:
    graph = text_graph(weights, flags())
    together = run(graph, batch(*TEXTS))
    for row, text in enumerate(TEXTS):
        alone = run(graph, batch(text))
        for name, array in alone.items():
            np.testing.assert_allclose(together[name][row, : array.shape[1]], array[0], atol=1e-4)


def test_weights_that_are_missing(weights: BertWeights) -> None:
    tensors = {name: tensor for name, tensor in weights.tensors.items() if "layer.1.output.dense.bias" not in name}
    with pytest.raises(BundleError, match=r"the sentence encoder has no encoder\.layer\.1\.output\.dense\.bias"):
        sentence_graph(BertWeights(tensors, LAYERS, WIDTH))
