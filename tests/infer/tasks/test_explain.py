"""Explanations in Python: the map, where its tokens come from, which clip, and what its axes are called."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hbi_infer.api import HBI, Index
from hbi_infer.errors import BundleError, IndexStoreError, InputError, VideoError
from hbi_infer.index.checksums import SealedType
from hbi_infer.index.clip_tokens import IndexedFileChangedWarning
from hbi_infer.index.folder_index import default_location
from hbi_infer.model.bundle import Bundle
from hbi_infer.model.tokenizer import Tokenizer, clip_tokenizer_json
from hbi_infer.options import EVERYTHING, Explaining
from hbi_infer.tasks.explain import Explanation, LevelExplanation, NoFramesWarning, read_thumbnails
from hbi_infer.tasks.texts import QueryTruncatedWarning
from hbi_infer.tokens.banzhaf import banzhaf_interaction
from hbi_infer.tokens.levels import LevelTokens, joined, unit
from hbi_infer.tokens.scoring import Scoring
from hbi_infer.video.reader import decode, read_frames
from tests.builders.tiny_bundle import SAMPLING, write_tiny_bundle, write_video
from tests.builders.video_files import spoil
from tests.paths import SAMPLES

HALF = 2e-3
"""What half precision in the index may change."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HBI:
    return HBI.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), device="cpu", threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four frames of which only the last is red; a video of a clip of each colour; and one with a single frame."""
    folder = tmp_path / "videos"
    write_video(folder / "one red.mp4", "green", "green", "green", "red", seconds_each=0.5)
    write_video(folder / "long.mp4", "green", "blue", "red")
    write_video(folder / "still.mp4", "red", seconds_each=0.1)
    return folder


@pytest.fixture
def index(folder: Path, model: HBI) -> Iterator[Index]:
    with Index.open(folder, model, location=folder.parent / "index.sqlite") as index:
        index.update(workers=1)
        yield index


def levels_of(explanation: Explanation) -> dict[str, LevelExplanation]:
    return {level.name: level for level in explanation.levels}


@pytest.mark.parametrize("name", ["one red.mp4", "still.mp4"])
def test_the_map_is_the_interaction_of_the_pair(model: HBI, folder: Path, name: str) -> None:
    query = "a red then blue video"
    made = model.explain(folder / name, query)
    clip = decode(folder / name, SAMPLING).clips[0]
    text = model.encode_text([query])
    video = model.encode_video(clip.frames[None], clip.mask[None])
    for level in made.levels:
        sides = text[level.name], video[level.name]
        masks = [side.weights > 0 for side in sides]
        cosines = unit(sides[0].tokens).astype(np.float64) @ unit(sides[1].tokens).astype(np.float64).transpose(0, 2, 1)
        expected = banzhaf_interaction(cosines, sides[0].weights, sides[1].weights, *masks)
        np.testing.assert_allclose(level.interaction, expected[0][np.ix_(masks[0][0], masks[1][0])], atol=1e-9)
        np.testing.assert_allclose(level.text_weights, sides[0].weights[masks[0]], atol=1e-6)
        np.testing.assert_allclose(level.video_weights, sides[1].weights[masks[1]], atol=1e-6)
    assert made.score == pytest.approx(model.similarity(text, video)[0, 0])
    assert made.score == pytest.approx(sum(level.rate * level.similarity for level in made.levels))
    assert made.frame_seconds == tuple(clip.timestamps_seconds[clip.mask])
    assert levels_of(made)["entity"].interaction.shape == (7, len(made.frame_seconds))


def test_axes_are_words_and_frames(model: HBI, folder: Path) -> None:
    made = model.explain(folder / "one red.mp4", "A red video")
    assert made.words == ("[start]", "a", "red", "video", "[end]")
    assert made.frame_seconds == (0.0, 0.5, 1.0, 1.5)
    entity, event = made.levels
    assert entity.words == made.words
    assert entity.frames == ((0.0,), (0.5,), (1.0,), (1.5,))
    assert (entity.word_groups[2], entity.frame_groups[3]) == ((2,), (3,))
    assert event.words == ("[start] a red video [end]",)
    assert event.frames == (made.frame_seconds,)
    assert (event.word_groups, event.frame_groups) == (((0, 1, 2, 3, 4),), ((0, 1, 2, 3),))
    assert entity.strongest(1) == [(2, 3)]
    assert (made.unnamed_levels, made.remarks) == ((), ())


def test_the_pairs_of_the_largest_interaction_matter_more_than_random_ones(model: HBI, folder: Path) -> None:
    made = model.explain(folder / "one red.mp4", "a red video")
    for fidelity in (levels_of(made)["entity"].fidelity, made.fidelity):
        assert fidelity is not None
        random = fidelity.at_random
        assert fidelity.by_interaction.drop > random.drop + 10 * random.drop_error
        assert fidelity.by_interaction.area > random.area + 10 * random.area_error
    unmatched = model.explain(folder / "still.mp4", "blue")
    assert unmatched.fidelity is None


def test_from_the_index_it_is_the_same_to_half_precision(model: HBI, index: Index, folder: Path) -> None:
    for name in ("one red.mp4", "long.mp4", "still.mp4"):
        decoded, stored = model.explain(folder / name, "red"), index.explain(folder / name, "red")
        assert (decoded.source, stored.source) == ("video", "index")
        assert decoded.score == pytest.approx(stored.score, abs=HALF)
        same = ("words", "frame_seconds", "clip", "num_clips", "start_seconds", "end_seconds")
        assert [getattr(decoded, key) for key in same] == [getattr(stored, key) for key in same]
        for one, other in zip(decoded.levels, stored.levels, strict=True):
            assert (one.word_groups, one.frame_groups) == (other.word_groups, other.frame_groups)
            np.testing.assert_allclose(one.interaction, other.interaction, atol=HALF)
    assert index.explain(str(folder / "long.mp4"), "red").score == pytest.approx(
        next(match.score for match in index.search("red") if match.path.name == "long.mp4"), abs=HALF
    )


def test_nothing_is_decoded_that_is_indexed(index: Index, folder: Path) -> None:
    video = folder / "one red.mp4"
    before = index.explain(video, "red")
    spoil(video)
    assert index.explain(video, "red").to_json() == before.to_json()
    with pytest.warns(NoFramesWarning, match=r"one red.mp4.*: its frames are shown as times only"):
        assert read_thumbnails(before, 32) is None
    video.unlink()
    assert index.explain(video, "red").to_json() == before.to_json()


def test_a_file_that_changed_is_decoded_and_if_it_cannot_be_what_was_indexed_is_explained(
    index: Index, folder: Path
) -> None:
    video = folder / "one red.mp4"
    write_video(video, "red", "blue", seconds_each=0.5)
    changed = index.explain(video, "red")
    assert (changed.source, len(changed.frame_seconds)) == ("video", 2)
    video.write_bytes(b"no video")
    with pytest.warns(IndexedFileChangedWarning, match="one red.mp4.*has changed since it was indexed"):
        assert len(index.explain(video, "red").frame_seconds) == 4


def test_a_video_elsewhere_is_decoded(index: Index, tmp_path: Path) -> None:
    elsewhere = write_video(tmp_path / "elsewhere.mp4", "red")
    assert index.explain(elsewhere, "red").source == "video"
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    index.update(workers=1)
    with pytest.raises(VideoError, match=r"broken.mp4"):
        index.explain(tmp_path / "videos" / "broken.mp4", "red")


def test_the_index_of_the_nearest_folder_is_found_and_none_is_made(
    model: HBI, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
    video = folder / "more" / "red.mp4"
    write_video(video, "red")
    assert model.explain(video, "red").source == "video"
    assert not (folder.parent / "cache").exists()
    model.index(folder, workers=1).close()
    assert default_location(folder, model.bundle.sha256).is_file()
    assert model.explain(video, "red").source == "index"
    assert model.explain(video, "red", videos=folder).source == "index"
    with pytest.raises(InputError, match=r"has no index at .*: make it with hbi-infer index, or name no folder"):
        model.explain(video, "red", videos=video.parent)
    with pytest.raises(InputError, match="without the folder that it is of"):
        model.explain(video, "red", location=folder.parent / "cache" / "x.sqlite")
    assert not default_location(video.parent, model.bundle.sha256).exists()


def test_the_clip_that_matches_best_or_the_one_asked_for(model: HBI, index: Index, folder: Path) -> None:
    video = folder / "long.mp4"
    for made in (model.explain(video, "blue"), index.explain(video, "blue")):
        assert (made.clip, made.num_clips, made.start_seconds) == (2, 3, 2.0)
        assert made.frame_seconds[0] == 2.0
    assert index.explain(video, "blue", Explaining(clip=3)).start_seconds == 4.0
    assert [index.explain(video, "blue", Explaining(at_seconds=at)).clip for at in (0.0, 1.99, 2.0, 5.9)] == [
        1,
        1,
        2,
        3,
    ]
    for wrong, message in (
        ({"clip": 4}, r"long.mp4 has no clip 4: give a number from 1 to 3"),
        ({"clip": 0}, r"has no clip 0"),
        ({"at_seconds": 6.5}, r"long.mp4 has no clip at 6.5 s: give a time from 0 s to before 6 s"),
        ({"at_seconds": -1.0}, r"has no clip at -1 s"),
        ({"at_seconds": float("nan")}, r"has no clip at nan s"),
        ({"clip": 1, "at_seconds": 1.0}, r"both given"),
    ):
        with pytest.raises(InputError, match=message):
            index.explain(video, "blue", Explaining(**wrong))


@pytest.mark.parametrize(
    ("video", "query", "message"),
    [
        ("none.mp4", "red", r"there is no file .*none.mp4, and no index that holds it"),
        (".", "red", r"there is no file"),
        ("long.mp4", " \n", r"a query is empty"),
    ],
)
def test_what_cannot_be_explained(index: Index, folder: Path, video: str, query: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        index.explain(folder / video, query)


def test_a_query_that_is_too_long_is_cut(index: Index, folder: Path) -> None:
    with pytest.warns(QueryTruncatedWarning, match="cut at word 7"):
        made = index.explain(folder / "long.mp4", "a red video then a blue video then green")
    assert made.cut_at_word == 7
    assert made.words == ("[start]", "a", "red", "video", "then", "a", "blue", "[end]")


@pytest.mark.parametrize(
    ("field", "value"), [("tokens", np.nan), ("lengths", np.inf), ("weights", np.nan), ("weights", 0), ("weights", -1)]
)
def test_damaged_tokens_are_told(index: Index, folder: Path, field: str, value: float) -> None:
    damage(index, field, value)
    with pytest.raises(IndexStoreError, match=r"is damaged \(the tokens of long.mp4 make no sense\): make it anew"):
        index.explain(folder / "long.mp4", "red")


def test_a_slot_that_does_not_exist_is_damage(index: Index, folder: Path) -> None:
    damage(index, "event_slots", 1)
    with pytest.raises(IndexStoreError, match="is damaged"):
        index.explain(folder / "long.mp4", "red")


def damage(index: Index, field: str, value: float) -> None:
    """Put a value into every record of the index, with a checksum that is right."""
    ids, records = index.store.fetch_tokens(index.store.clip_ids(EVERYTHING))
    records = records.copy()
    records[field] = value
    sealed = SealedType(index.store.layout.dtype).seal(ids, records)
    with index.store._transaction() as execute:
        for clip_id, record in zip(ids.tolist(), sealed, strict=True):
            execute("UPDATE tokens SET record = ? WHERE clip_id = ?", (record, clip_id))


def test_json_says_everything_and_comes_back(index: Index, folder: Path) -> None:
    made = index.explain(folder / "one red.mp4", "red")
    document = made.to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document.keys() == vars(made).keys()
    for level, written in zip(made.levels, document["levels"], strict=True):
        assert written.keys() == vars(level).keys()
        np.testing.assert_array_equal(written["interaction"], level.interaction)


class Merging(HBI):
    """A model whose tokens are random but for what they were merged into."""

    def __init__(self, bundle: Bundle, text: Mapping[str, Any], video: Mapping[str, Any]) -> None:
        super().__init__(bundle, device="cpu", threads=1)
        self.scoring = Scoring(dict.fromkeys(text, 1.0))
        self._made = {"text": text, "video": video}

    def encode_tokens(self, batch: Any) -> dict[str, LevelTokens]:
        return joined([self._side("text")] * len(batch.ids))

    def encode_video(self, frames: Any, mask: Any) -> dict[str, LevelTokens]:
        return self._side("video")

    def _side(self, side: str) -> dict[str, LevelTokens]:
        levels = {}
        for number, (name, (weights, slots)) in enumerate(self._made[side].items()):
            tokens = np.random.default_rng([number, len(side)]).standard_normal((1, len(weights), 8))
            share = np.array([weights], np.float32) / np.sum(weights)
            levels[name] = LevelTokens(
                tokens.astype(np.float32), share.astype(np.float32), None if slots is None else np.array([slots])
            )
        return levels


def test_merged_tokens_are_followed_down_to_words_and_frames(model: HBI, folder: Path) -> None:
    text = {  # [start] a red video [end]; "a" has no weight at all
        "entity": ([1, 0, 1, 1, 1], None),
        "action": ([1, 1, 1, 0], [1, 1, 0, 2, 1]),
        "event": ([1, 1], [0, 1, 1, -1]),
    }
    video = {
        "entity": ([1, 1, 1, 1], None),
        "action": ([1, 1, 1], [2, 0, 2, 0]),  # the second is made of padding
        "event": ([1, 1], [1, 0, 1]),
    }
    made = Merging(model.bundle, text, video).explain(folder / "one red.mp4", "a red video")
    entity, action, event = made.levels
    assert entity.words == ("[start]", "red", "video", "[end]")
    assert action.words == ("red", "[start] a [end]", "video")
    assert action.word_groups == ((2,), (0, 1, 4), (3,))
    assert action.frames == ((0.5, 1.5), (), (0.0, 1.0))
    assert event.words == ("red", "[start] a video [end]")
    assert event.frame_groups == ((), (0, 1, 2, 3))
    assert action.interaction.shape == (3, 3)
    assert made.remarks == ("The entity level leaves out 1 word of weight 0",)


def test_pieces_of_a_word_may_be_one_token_of_the_first_level(model: HBI, folder: Path) -> None:
    """As in a bundle that encodes each word of a text alone, at the place where the word begins."""
    text = {"entity": ([2, 1, 1, 0, 0], [0, 1, 2, 2, 0])}
    made = Merging(model.bundle, text, {"entity": ([1] * 4, None)}).explain(folder / "one red.mp4", "a red video")
    assert made.levels[0].words == ("[start] [end]", "a", "red video")
    assert made.levels[0].frames == tuple((second,) for second in made.frame_seconds)
    np.testing.assert_allclose(made.levels[0].text_weights, [0.5, 0.25, 0.25])


def test_only_the_frame_nearest_to_each_word_counts_where_only_the_text_looks(model: HBI, folder: Path) -> None:
    sides = {"entity": ([1, 1, 1, 1], None)}
    merging = Merging(model.bundle, sides, sides)
    merging.scoring = Scoring({"entity": 1.0}, directions="text_to_video")
    made = merging.explain(folder / "one red.mp4", "a red")
    entity = made.levels[0]
    assert made.score == pytest.approx(float(entity.text_weights @ entity.cosines.max(axis=1)), abs=1e-6)
    arrays = entity.cosines[None], entity.text_weights[None], entity.video_weights[None]
    np.testing.assert_allclose(entity.interaction, banzhaf_interaction(*arrays, directions="text_to_video")[0])
    assert not np.allclose(entity.interaction, banzhaf_interaction(*arrays)[0])


def test_levels_of_unknown_groups_are_left_out_but_count(model: HBI, folder: Path) -> None:
    text = {"entity": ([1] * 4, None), "action": ([1, 1], None), "event": ([1, 1], [0, 1]), "whole": ([1], None)}
    video = {"entity": ([1] * 4, None), "action": ([1, 1], None), "event": ([1, 1], [0, 1]), "whole": ([1], None)}
    made = Merging(model.bundle, text, video).explain(folder / "one red.mp4", "a red")
    assert [level.name for level in made.levels] == ["entity", "whole"]
    assert made.unnamed_levels == ("action", "event")
    assert made.remarks[0].startswith("Not shown: action and event. This bundle does not say")
    assert made.levels[1].words == ("[start] a red [end]",)
    assert made.levels[1].frames == (made.frame_seconds,)
    assert made.fidelity is not None
    assert made.fidelity.num_pairs == 16 + 4 + 4 + 1


def test_a_text_of_one_token_stands_for_all_its_words(model: HBI, folder: Path) -> None:
    """As in a bundle made of CLIP alone."""
    one_token = {"frame": ([1], None), "video": ([1], None)}
    clip = Merging(model.bundle, one_token, {"frame": ([1] * 4, None), "video": ([1], None)})
    clip.scoring = Scoring({"frame": 0.0, "video": 1.0})
    made = clip.explain(folder / "one red.mp4", "a red")
    assert [level.words for level in made.levels] == [("[start] a red [end]",)] * 2
    assert [len(level.frames) for level in made.levels] == [4, 1]
    assert made.levels[0].fidelity is None or made.levels[0].fidelity.num_pairs == 4
    assert made.fidelity is None or made.fidelity.num_pairs == 1


def test_a_bundle_whose_tokens_have_no_names(model: HBI, folder: Path) -> None:
    sides = {"entity": ([1] * 3, None)}
    with pytest.raises(BundleError, match="does not say what words and frames its tokens are: export it again"):
        Merging(model.bundle, sides, sides).explain(folder / "one red.mp4", "a red")


def test_numbers_that_are_not_finite(model: HBI, folder: Path) -> None:
    broken = Merging(model.bundle, {"entity": ([1] * 4, None)}, {"entity": ([np.inf] * 4, None)})
    with np.errstate(invalid="ignore"), pytest.raises(VideoError, match="makes the model give numbers that are not"):
        broken.explain(folder / "one red.mp4", "a red")


def test_pieces_of_words_can_be_read() -> None:
    tokenizer = Tokenizer.from_json(clip_tokenizer_json())

    def pieces(text: str) -> list[str]:
        batch = tokenizer.encode([text], 32)
        return tokenizer.pieces(batch.ids[0].tolist())

    assert pieces("Two wobblers, café") == ["[start]", "two", "wob·", "blers", ",", "café", "[end]"]
    assert pieces("<|endoftext|> it's") == ["[start]", "[end]", "it", "'s", "[end]"]
    assert "".join(pieces("\u07f7")[1:-1]).replace("·", "") in ("\u07f7", r"\xdf\xb7")


def test_frames_are_read_again(folder: Path) -> None:
    clip = decode(folder / "long.mp4", SAMPLING).clips[1]
    seconds = clip.timestamps_seconds[clip.mask]
    same = read_frames(folder / "long.mp4", seconds, image_size=SAMPLING.image_size)
    np.testing.assert_array_equal(same, clip.frames[clip.mask])
    assert read_frames(folder / "long.mp4", seconds[1:2], image_size=40).shape == (1, 40, 40, 3)
    with pytest.raises(VideoError, match="is not the video that it was"):
        read_frames(folder / "long.mp4", seconds + 100, image_size=40)
    with pytest.raises(VideoError, match="cannot be opened"):
        read_frames(folder / "none.mp4", seconds, image_size=40)


def test_the_embedded_bundle() -> None:
    video = SAMPLES / "small-red-circle-moves-left-then-blue-square-blinks.mp4"
    hbi = HBI.load(device="cpu", threads=1)
    made = hbi.explain(video, "a small red circle moves left and then a blue square blinks")
    shown = [level.name for level in made.levels]
    assert shown[0] == "entity"
    assert sorted([*shown, *made.unnamed_levels]) == sorted(hbi.scoring.rates)
    for level in made.levels:
        assert sum(map(len, level.word_groups)) <= len(made.words)
        assert np.isfinite(level.interaction).all()
    assert made.fidelity is not None
    assert made.fidelity.by_interaction.drop > made.fidelity.at_random.drop + 4 * made.fidelity.at_random.drop_error
