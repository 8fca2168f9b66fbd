"""Texts that are tokenized and encoded once, cut or refused."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hbi_infer.api import HBI, Index
from hbi_infer.cli import app
from hbi_infer.errors import InputError
from hbi_infer.model.neutral_texts import neutral_sentences
from hbi_infer.model.tokenizer import TokenBatch, Tokenizer
from hbi_infer.tasks.texts import QueryTruncatedWarning, encode_texts
from tests.builders.searched_index import names, search
from tests.builders.tiny_bundle import (
    write_tiny_bundle,
    write_video,
)


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_query_is_refused(index: Index, query: str) -> None:
    with pytest.raises(InputError, match="a query is empty: give a sentence"):
        search(index, ["red", query])


def test_a_query_that_is_too_long_is_searched_with_a_warning(index: Index) -> None:
    with pytest.warns(QueryTruncatedWarning, match=r"longer than the 8 tokens .* cut at word 7, 'green'"):
        matches = index.search("red red red red red red green green green")
    assert names(matches)[0].startswith("red")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index.search("red")


def test_a_warning_shows_the_beginning_of_a_long_query(index: Index) -> None:
    letters = "x" * 5000
    with pytest.warns(QueryTruncatedWarning) as seen:
        search(index, [letters, f"red {'green ' * 1000}"])
    one, other = (str(warning.message) for warning in seen)
    assert one.startswith(f"the query '{letters[:60]}...' is longer than the 8 tokens")
    assert f"cut at word 1, '{letters[:60]}...'" in one
    assert other.startswith("the query 'red green green ")
    assert max(len(one), len(other)) < 300


def test_no_queries_are_refused(index: Index) -> None:
    with pytest.raises(InputError, match="there is no query: give at least one"):
        search(index, [])


class Counting(HBI):
    """A model that counts the texts that it tokenizes."""

    num_tokenized = 0

    def tokenize(self, texts: Sequence[str]) -> TokenBatch:
        self.num_tokenized += len(texts)
        return super().tokenize(texts)


def test_a_text_is_tokenized_once(tmp_path: Path) -> None:
    model = Counting.load(write_tiny_bundle(tmp_path / "bundle", "qa"), device="cpu", threads=1)
    video = write_video(tmp_path / "videos" / "red.mp4", "red")
    with Index.open(tmp_path / "videos", model, location=tmp_path / "index.sqlite") as index:
        index.update(workers=1)
        index.search("red")  # the background of the index is computed once
        for task in (
            lambda: index.search("red"),
            lambda: index.explain(video, "red"),
            lambda: index.answer("what colour?"),
            lambda: model.answer(video, "what colour?"),
            lambda: model.rank_captions(video, ["red"]),
        ):
            before = model.num_tokenized
            task()
            assert model.num_tokenized == before + 1


def test_commands_tokenize_a_text_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle", "qa")
    video = write_video(tmp_path / "videos" / "red.mp4", "red")
    texts: list[str] = []
    encode = Tokenizer.encode

    def counting(self: Tokenizer, given: Sequence[str], *arguments: Any, **options: Any) -> TokenBatch:
        texts.extend(given)
        return encode(self, given, *arguments, **options)

    monkeypatch.setattr(Tokenizer, "encode", counting)
    shared = ["--bundle", str(bundle), "--index", str(tmp_path / "index.sqlite"), "--json"]
    for command in (
        ["retrieve", "--videos", str(video.parent), "--query", "red", *shared],
        ["qa", "--video", str(video.parent), "--question", "what colour?", *shared],
        ["explain", "--video", str(video), "--videos", str(video.parent), "--query", "blue", *shared],
    ):
        assert CliRunner().invoke(app, command).exit_code == 0
    asked = [text for text in texts if text not in neutral_sentences()]
    assert asked == ["red", "what colour?", "blue"]


def test_where_texts_were_cut(index: Index) -> None:
    with pytest.warns(QueryTruncatedWarning):
        texts = encode_texts(index.encoder, ["red", "red red red red red red green"], "query")
    assert texts.cut_at_words == (None, 7)
    assert len(texts) == 2
    assert texts.item(1)["entity"].tokens.shape[0] == 1
