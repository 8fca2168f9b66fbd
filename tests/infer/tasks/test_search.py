from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from benchmarks.synthetic_tokens import make_index
from hbi_engines.engine import TensorSpec
from hbi_infer.api import HBI, Index
from hbi_infer.errors import BundleError, InputError, VideoError
from hbi_infer.index.background import background_of
from hbi_infer.model.bundle import write_bundle
from hbi_infer.model.manifest import GraphSpec
from hbi_infer.options import EVERYTHING, Filter, Searching
from hbi_infer.tasks.search import well_matched
from hbi_infer.tasks.texts import encode_texts
from hbi_infer.tokens.similarity import similarity
from tests.builders.searched_index import VIDEOS, names, search
from tests.builders.tiny_bundle import (
    COLOURS,
    FRAMES,
    OPSET,
    make_graph,
    outputs,
    tiny_graphs,
    tiny_manifest,
    tokenizer_json,
    write_video,
)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with make_index(tmp_path_factory.mktemp("synthetic"), 2000, width=64, num_queries=20) as index:
        yield index


def test_each_query_gets_its_matches(index: Index) -> None:
    red, blue = search(index, ["a red video", "green then blue"])
    assert set(names(red)[:2]) == {"red.mp4", "red_too.mp4"}
    assert names(blue)[0] == "green_then_blue.mp4"
    for matches in (red, blue):
        assert [match.rank for match in matches] == [1, 2, 3, 4]
        assert sorted((match.score for match in matches), reverse=True) == [match.score for match in matches]


def test_a_video_is_found_with_its_best_clip_or_with_all(index: Index) -> None:
    assert len(search(index, ["blue"])[0]) == len(VIDEOS)
    every = search(index, ["blue"], all_clips=True, top_k=100)[0]
    assert len(every) == index.store.num_clips() == 10
    assert len(search(index, ["blue"], all_clips=True)[0]) == 10
    assert len(search(index, ["blue"], all_clips=True, top_k=3)[0]) == 3


def test_equal_scores_come_in_the_order_of_indexing(index: Index) -> None:
    matches = search(index, ["blue"], all_clips=True, top_k=100)[0]
    starts = [match.start_seconds for match in matches if match.path.name == "long.mp4" and match.start_seconds > 3]
    assert starts == sorted(starts)
    assert matches == search(index, ["blue"], all_clips=True, top_k=100)[0]


def test_a_shortlist_filled_by_one_long_video_is_widened(index: Index) -> None:
    few = search(index, ["blue"], top_k=4, shortlist=1, exact_up_to=0)[0]
    assert few == search(index, ["blue"], top_k=4)[0]
    assert len({match.path for match in few}) == 4


@pytest.mark.parametrize("exact_up_to", [None, 0, 2])
def test_filters_hold_for_all_three_ways_of_searching(index: Index, exact_up_to: int | None) -> None:
    def found(where: Filter) -> set[str]:
        return set(names(search(index, ["red"], where=where, exact_up_to=exact_up_to)[0]))

    assert found(Filter(path_glob="*red*")) == {"red.mp4", "red_too.mp4"}
    assert found(Filter(folder="copies")) == {"red_too.mp4"}
    assert found(Filter(min_seconds=3)) == {"green_then_blue.mp4", "long.mp4"}
    assert found(Filter(path_glob="none")) == set()


@pytest.mark.parametrize("exact_up_to", [None, 0])
def test_scores_are_those_of_the_reference(synthetic: Index, exact_up_to: int | None) -> None:
    encoder, store = synthetic.encoder, synthetic.store
    ids, records = store.fetch_tokens(store.clip_ids(EVERYTHING))
    queries = [f"query {number}" for number in range(20)]
    texts = encode_texts(encoder, queries, "query").levels
    expected = similarity(texts, store.layout.unpack(records), encoder.scoring.rates)
    found = search(synthetic, queries, all_clips=True, exact_up_to=exact_up_to)
    recalls = []
    for scores, matches in zip(expected, found, strict=True):
        best = np.argsort(-scores)[:10]
        clips = [(synthetic.folder / clip.path, clip.start_seconds) for clip in store.clips(ids[best].tolist())]
        got = [(match.path, match.start_seconds) for match in matches]
        recalls.append(len(set(got) & set(clips)) / 10)
        if exact_up_to is None:
            np.testing.assert_allclose([match.score for match in matches], scores[best], atol=1e-4)
    assert np.mean(recalls) == 1.0 if exact_up_to is None else np.mean(recalls) >= 0.97


def test_a_change_by_another_process_is_seen(tmp_path: Path) -> None:
    with make_index(tmp_path, 30, width=16, num_queries=1) as index:
        assert len(search(index, ["query 0"], all_clips=True, top_k=100)[0]) == 30
        with make_index(tmp_path, 10, width=16) as other:  # indexes the first video again
            other.store.remove(["2.mp4"])
        assert len(search(index, ["query 0"], all_clips=True, top_k=100)[0]) == 20
        assert len(search(index, ["query 0"], all_clips=True, top_k=100, exact_up_to=0)[0]) == 20


@pytest.mark.parametrize("name", ["top_k", "shortlist"])
def test_numbers_below_one_are_refused(index: Index, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 0; it must be at least 1"):
        index.search("red", Searching(**{name: 0}))


def test_videos_like_one_of_the_index(index: Index) -> None:
    matches = index.like(index.folder / "red.mp4")
    assert names(matches)[0] == "red_too.mp4"
    assert len(matches) == 3
    assert "red.mp4" not in names(matches)
    assert names(index.like(index.folder / "long.mp4", top_k=1)) == ["green_then_blue.mp4"]
    assert index.like(index.folder / "red.mp4", Searching(exact_up_to=0, shortlist=1)) == matches


def test_a_video_is_itself_by_whichever_way_it_is_named(index: Index, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(index.folder)
    for path in (tmp_path / "link" / "red.mp4", index.folder / "copies" / ".." / "red.mp4"):
        assert names(index.like(path)) == names(index.like(index.folder / "red.mp4"))


def test_videos_like_one_that_has_changed_since_it_was_indexed(index: Index, tmp_path: Path) -> None:
    """The file as it is now counts, not the tokens of the one that was indexed."""
    folder = tmp_path / "videos"
    shutil.copytree(index.folder, folder)
    with Index.open(folder, index.encoder, location=tmp_path / "index.sqlite") as copy:
        copy.update(workers=1)
        assert names(copy.like(folder / "red.mp4"))[0] == "red_too.mp4"
        write_video(folder / "red.mp4", "blue", "blue", "blue")
        changed = copy.like(folder / "red.mp4")
        assert names(changed)[0] != "red_too.mp4"
        assert "red.mp4" not in names(changed), "its own clips of before are not among the results"
        blue = write_video(tmp_path / "elsewhere.mp4", "blue", "blue", "blue")
        assert [match.score for match in changed] == [
            match.score for match in copy.like(blue) if match.path.name != "red.mp4"
        ]


def test_only_texts_can_be_reranked(index: Index) -> None:
    with pytest.raises(InputError, match="rerank is 3, and the query is a video: only texts can be reranked"):
        index.like(index.folder / "red.mp4", Searching(rerank=3))


def test_videos_like_one_from_elsewhere(index: Index, tmp_path: Path) -> None:
    matches = index.like(write_video(tmp_path / "query.mp4", "green", "red"), Searching(dedupe="off"))
    assert len(matches) == len(VIDEOS)
    by_name = {match.path.name: match for match in matches}
    # Each of the two clips counts.
    assert {"red.mp4", "red_too.mp4", "green_then_blue.mp4"} == set(names(matches[:3]))
    assert by_name["green_then_blue.mp4"].start_seconds == 0


def test_a_video_that_cannot_be_decoded_cannot_be_searched_with(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"damaged\.mp4 .*: give a video that can be played"):
        index.like(path)


def test_a_match_as_json(index: Index) -> None:
    match = index.search("green", top_k=1)[0]
    document = json.loads(json.dumps(match.to_json()))
    assert document["path"] == str(index.folder / "green_then_blue.mp4")
    assert document["best_frame_seconds"] == list(match.best_frame_seconds)
    assert set(document) == {
        "rank",
        "score",
        "path",
        "start_seconds",
        "end_seconds",
        "best_frame_seconds",
        "video_seconds",
        "copies",
        "match",
    }
    assert document["copies"] == []


def test_a_video_that_shows_the_same_is_folded_into_the_better_result(index: Index) -> None:
    folded = index.search("a red video")
    assert [match.rank for match in folded] == [1, 2, 3]
    assert set(names(folded[1:])) == {"green_then_blue.mp4", "long.mp4"}
    (copy,) = folded[0].copies
    assert {folded[0].path, copy.path} == {index.folder / "red.mp4", index.folder / "copies" / "red_too.mp4"}
    assert (copy.start_seconds, copy.end_seconds) == (0.0, 2.0)
    assert json.loads(json.dumps(folded[0].to_json()))["copies"] == [
        {"path": str(copy.path), "start_seconds": 0.0, "end_seconds": 2.0}
    ]
    assert not any(match.copies for match in folded[1:])
    assert index.search("a red video", top_k=1) == folded[:1], "copies of the last result are counted too"
    assert len(index.search("a red video", Searching(dedupe="off"))) == 4


@pytest.mark.parametrize("exact_up_to", [None, 0])
def test_folding_makes_room_for_other_results(index: Index, exact_up_to: int | None) -> None:
    found = search(index, ["a red video"], dedupe="same", top_k=2, shortlist=1, exact_up_to=exact_up_to)[0]
    assert [match.path.name.startswith("red") for match in found] == [True, False]


def test_moments_of_one_video_are_not_folded(index: Index) -> None:
    only = Filter(path_glob="long.mp4")
    found = search(index, ["blue"], dedupe="near", all_clips=True, top_k=100, where=only)[0]
    assert len(found) == 6
    assert not any(match.copies for match in found)


@pytest.mark.parametrize("exact_up_to", [None, 0])
def test_what_must_not_be_there_goes_down(index: Index, exact_up_to: int | None) -> None:
    """Half of one video is blue; it and the blue one lose, and nothing else does."""
    plain = {match.path.name: match for match in search(index, ["green"], exact_up_to=exact_up_to)[0]}
    without = search(index, ["green"], without=("a blue video",), exact_up_to=exact_up_to, all_clips=True)[0]
    assert without[0] == plain["green_then_blue.mp4"], "its green half is as before"
    assert {match.path.name for match in without[1:3]} == {"red.mp4", "red_too.mp4"}
    assert [match.score for match in without[1:3]] == [plain[name].score for name in names(without[1:3])]
    assert all(match.score < plain["long.mp4"].score - 0.1 for match in without[3:])


@pytest.mark.parametrize("exact_up_to", [None, 0])
def test_like_a_video_without_something(index: Index, tmp_path: Path, exact_up_to: int | None) -> None:
    query = write_video(tmp_path / "query.mp4", "blue", "red")
    options = Searching(without=("red",), exact_up_to=exact_up_to, dedupe="off")
    assert set(names(index.like(query, options))[:2]) == {"long.mp4", "green_then_blue.mp4"}
    assert set(names(index.like(query, options))[-2:]) == {"red.mp4", "red_too.mp4"}


def test_a_picture_is_a_clip_of_one_frame(index: Index, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), COLOURS["green"]).save(tmp_path / "photo.jpg")
    (best, *_) = index.like(tmp_path / "photo.jpg")
    assert (best.path.name, best.start_seconds) == ("green_then_blue.mp4", 0.0)
    assert best.score == pytest.approx(1.5, abs=0.01)


def test_a_picture_that_cannot_be_read(index: Index, tmp_path: Path) -> None:
    (tmp_path / "photo.heic").write_bytes(b"no picture")
    message = "photo.heic is no JPEG, PNG or WebP picture .*: give a JPEG, PNG or WebP picture, or a video"
    with pytest.raises(VideoError, match=message):
        index.like(tmp_path / "photo.heic")


@pytest.mark.parametrize("exact_up_to", [None, 0])
def test_joined_texts_must_all_match(synthetic: Index, exact_up_to: int | None) -> None:
    """A text joined with itself finds what it finds alone; the order of texts does not matter."""
    alone = search(synthetic, ["query 3"], exact_up_to=exact_up_to, top_k=5)[0]
    options = Searching(dedupe="off", exact_up_to=exact_up_to, top_k=5)
    twice = synthetic.search(["query 3", "query 3"], options)
    assert [match.path for match in twice] == [match.path for match in alone]
    both = synthetic.search(["query 3", "query 7"], options)
    assert both == synthetic.search(["query 7", "query 3"], options)
    every = replace(options, top_k=2000, all_clips=True, exact_up_to=None)
    first, second = (
        {(match.path, match.start_seconds): match.score for match in found}
        for found in (synthetic.search(text, every) for text in ("query 3", "query 7"))
    )
    clips = sorted(first)
    standard = [
        (np.array([one[clip] for clip in clips]) - np.mean(list(one.values()))) / np.std(list(one.values()))
        for one in (first, second)
    ]
    worst = np.minimum(*standard)
    best = clips[int(worst.argmax())]
    found = replace(options, all_clips=True)
    (match, *_) = synthetic.search(["query 3", "query 7"], found)
    assert (match.path, match.start_seconds) == best
    assert match.score == pytest.approx(worst.max(), abs=0.01)


def test_a_filter_changes_no_score_of_joined_texts(index: Index) -> None:
    every = {match.path: match.score for match in index.search(["red", "green"], Searching(dedupe="off"))}
    for exact_up_to in (None, 0, 2):
        options = Searching(where=Filter(path_glob="*red*"), dedupe="off", exact_up_to=exact_up_to)
        for match in index.search(["red", "green"], options):
            assert match.score == pytest.approx(every[match.path], abs=1e-4)


def test_what_is_joined_cannot_be_reranked(index: Index) -> None:
    with pytest.raises(InputError, match="rerank is 3, and 2 texts are joined: rerank one text at a time"):
        index.search(["red", "blue"], Searching(rerank=3))


@pytest.fixture(scope="module")
def contrary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """An index of a bundle whose reranker scores a pair by how far its event tokens are from each other."""
    root = tmp_path_factory.mktemp("contrary")
    sides = {"text": outputs("T"), "video": outputs(FRAMES)}
    given = tuple(
        TensorSpec(f"{side}_{output.name}", output.dtype, output.shape)
        for side, made in sides.items()
        for output in made
        if not output.name.endswith("_slots")
    )
    made = (TensorSpec("score", "float32", ("B",)),)
    nodes = [
        helper.make_node("Mul", ["text_event_tokens", "video_event_tokens"], ["products"]),
        helper.make_node("ReduceSum", ["products", "both"], ["closeness"], keepdims=0),
        helper.make_node("Neg", ["closeness"], ["score"]),
    ]
    spec = GraphSpec(file="reranker.onnx", opset=OPSET, precision="float32", inputs=given, outputs=made)
    manifest = replace(
        tiny_manifest(), tasks=("retrieve", "rerank"), graphs={**tiny_manifest().graphs, "reranker": spec}
    )
    graphs = {**tiny_graphs(), "reranker": make_graph(nodes, given, made, {"both": np.array([1, 2])})}
    write_bundle(root / "bundle", manifest, graphs, tokenizer_json())
    for name, colours in VIDEOS.items():
        write_video(root / "videos" / name, *colours)
    model = HBI.load(root / "bundle", device="cpu", threads=1)
    with Index.open(root / "videos", model, location=root / "index.sqlite") as index:
        index.update(workers=1)
        yield index


@pytest.mark.parametrize("exact_up_to", [None, 0])
def test_the_best_are_scored_anew_by_their_reconstruction(contrary: Index, exact_up_to: int | None) -> None:
    plain = search(contrary, ["red"], exact_up_to=exact_up_to)[0]
    reranked = search(contrary, ["red"], rerank=4, exact_up_to=exact_up_to)[0]
    assert {match.path for match in reranked} == {match.path for match in plain}
    assert set(names(plain)[:2]) == set(names(reranked)[-2:]) == {"red.mp4", "red_too.mp4"}
    scores = [match.score for match in reranked]
    assert scores == sorted(scores, reverse=True)
    assert [match.rank for match in reranked] == [1, 2, 3, 4]
    # Only the best two are scored anew, and no others come among them.
    few = search(contrary, ["red"], rerank=2, top_k=1, exact_up_to=exact_up_to)[0]
    assert set(names(few)) < {"red.mp4", "red_too.mp4"}
    assert search(contrary, ["red"], rerank=1, exact_up_to=exact_up_to)[0] == reranked
    every = search(contrary, ["red"], rerank=100, all_clips=True, exact_up_to=exact_up_to)[0]
    assert len(every) == 10


def test_a_bundle_without_reconstruction_cannot_rerank(index: Index) -> None:
    with pytest.raises(
        BundleError, match="does not do rerank, only retrieve: train a model with reconstruction_layers"
    ):
        search(index, ["red"], rerank=3)


def test_a_match_says_how_unusual_the_score_is(index: Index) -> None:
    background = background_of(index)
    assert background is not None
    found = index.search("red", Searching(dedupe="off"))
    num_clips = index.store.num_clips()
    assert [match.match for match in found] == [background.match(match.score, num_clips) for match in found]
    assert all(match.match is None for match in index.like(index.folder / "red.mp4"))


def test_fewer_clips_need_less_to_be_unusual(synthetic: Index) -> None:
    few = Filter(path_glob="1?.mp4")
    everywhere = {match.path: match for match in search(synthetic, ["query 3"], top_k=1000)[0]}
    there = search(synthetic, ["query 3"], where=few)[0]
    assert there
    assert all((match.match or 0) > (everywhere[match.path].match or 0) for match in there)


def test_poor_matches_are_left_out_and_the_rest_is_ranked_anew(index: Index) -> None:
    every = index.search("red")
    least = ((every[0].match or 0) + (every[-1].match or 0)) / 2
    kept = index.search("red", Searching(min_match=least))
    assert 0 < len(kept) < len(every)
    assert kept == every[: len(kept)]
    assert well_matched(every[1:], 0) == [replace(match, rank=match.rank - 1) for match in every[1:]]
    for wrong in (-0.1, 1.1):
        with pytest.raises(InputError, match="it must be from 0 to 1"):
            Searching(min_match=wrong)


def test_the_match_of_joined_texts_is_that_of_the_worst(index: Index) -> None:
    options = Searching(dedupe="off", all_clips=True, top_k=100)
    of_one = [
        {(match.path, match.start_seconds): match.match or 0.0 for match in index.search(text, options)}
        for text in ("green", "a blue video")
    ]
    for match in index.search(["green", "a blue video"], options):
        worst = min(one[match.path, match.start_seconds] for one in of_one)
        assert match.match == pytest.approx(worst, abs=0.01)
    without = index.search("green", replace(options, without=("blue",)))
    assert {(match.path, match.start_seconds): match.match for match in without} == pytest.approx(of_one[0], abs=0.01)
