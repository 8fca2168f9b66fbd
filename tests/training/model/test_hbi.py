"""The whole model: padding changes nothing, and the released retrieval model's numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hbi_training.model.hbi import HBI
from hbi_training.model.token_interaction import (
    Tokens,
)
from hbi_training.weights.checkpoint import build_model
from hbi_training.weights.released import check_layout, load_released, released_config
from tests.builders.tiny_training import HBI_SECTION, with_vocabulary_size
from tests.golden import assert_close, golden, tensors

ROUNDING = 2e-5  # float32: sums over padded arrays are taken in another order


@pytest.fixture(scope="module")
def model() -> HBI:
    torch.manual_seed(0)
    built = build_model(with_vocabulary_size(HBI_SECTION, 60))
    assert isinstance(built, HBI)
    return built.eval()


def random_ids(length: int, seed: int) -> Tensor:
    return torch.randint(0, 60, (1, length), generator=torch.Generator().manual_seed(seed))


def released_model(max_words: int) -> HBI:
    weights = tensors(golden("retrieval_tiny_weights.npz"), "")
    model = HBI(released_config(weights, max_words=max_words)).eval()
    layout = check_layout(weights, model.state_dict())
    assert (layout.missing, layout.misshapen, layout.unknown) == ((), (), ())
    assert all(name.startswith("banzhaf") for name in layout.unused), layout.unused
    load_released(model, weights)
    return model


@pytest.mark.parametrize("is_local", [False, True])
@settings(deadline=None, max_examples=20)
@given(length=st.integers(2, 30), extra=st.integers(1, 10), seed=st.integers(0, 1000))
def test_padding_of_a_text_changes_nothing(model: HBI, is_local: bool, length: int, extra: int, seed: int) -> None:
    model = local_model() if is_local else model
    ids = random_ids(length, seed)
    padded = torch.cat([ids, torch.randint(0, 60, (1, extra))], dim=1)
    with torch.no_grad():
        plain = model.encode_text(ids, torch.ones(1, length, dtype=torch.bool))
        other = model.encode_text(padded, torch.arange(length + extra)[None] < length)
    for level in plain:
        assert torch.equal(plain[level].mask.sum(1), other[level].mask.sum(1))
        assert_same_tokens(plain[level], other[level])


@settings(deadline=None, max_examples=20)
@given(frames=st.integers(1, 6), noise=st.integers(0, 255), seed=st.integers(0, 1000))
def test_what_stands_in_a_padded_frame_changes_nothing(model: HBI, frames: int, noise: int, seed: int) -> None:
    clip = torch.randint(0, 256, (1, 6, 32, 32, 3), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    mask = torch.arange(6)[None] < frames
    other = torch.where(mask[:, :, None, None, None], clip, torch.full_like(clip, noise))
    with torch.no_grad():
        one, two = model.encode_video(clip, mask), model.encode_video(other, mask)
    for level in one:
        assert_same_tokens(one[level], two[level])


def test_neighbours_in_a_batch_change_nothing(model: HBI) -> None:
    clips = torch.randint(0, 256, (3, 6, 32, 32, 3), dtype=torch.uint8)
    mask = torch.arange(6)[None] < torch.tensor([6, 3, 1])[:, None]
    with torch.no_grad():
        together = model.encode_video(clips, mask)
        alone = model.encode_video(clips[1:2], mask[1:2])
    for level in alone:
        assert_same_tokens(Tokens(*(part[1:2] for part in together[level][:3])), alone[level])


LOCAL = {"frame_window": 1, "word_window": 2, "context_layers": 1, "marks_play": False}


def local_model() -> HBI:
    torch.manual_seed(0)
    built = build_model({**with_vocabulary_size(HBI_SECTION, 60), **LOCAL})
    assert isinstance(built, HBI)
    return built.eval()


def test_marks_are_no_players_and_words_know_their_neighbours_alone() -> None:
    model = local_model()
    ids = random_ids(12, 0)
    other = ids.clone()
    other[0, 2] = (other[0, 2] + 1) % 60
    mask = torch.ones(1, 12, dtype=torch.bool)
    with torch.no_grad():
        one, two = model.encode_text(ids, mask), model.encode_text(other, mask)
    players = torch.arange(12)[None].remainder(11) > 0
    assert torch.equal(one["entity"].mask, players)
    assert torch.equal(one["entity"].weights > 0, players)
    slots = one["action"].slots
    assert slots is not None
    assert torch.equal(slots >= 0, players)
    changed = (one["entity"].tokens != two["entity"].tokens).any(-1)[0].nonzero().flatten().tolist()
    layers = HBI_SECTION["clip"]["text_config"]["num_hidden_layers"]
    assert changed == list(range(2, min(3 + 2 * layers, 12)))
    assert (one["event"].tokens != two["event"].tokens).any()


def test_a_text_of_nothing_but_its_marks_keeps_them() -> None:
    with torch.no_grad():
        levels = local_model().encode_text(random_ids(3, 0), torch.tensor([[True, True, False]]))
    assert levels["entity"].mask.tolist() == [[True, True, False]]
    assert levels["entity"].weights.sum() == pytest.approx(1)


def test_frames_know_their_neighbours_alone_until_they_are_merged() -> None:
    model = local_model()
    clip = torch.randint(0, 256, (1, 6, 32, 32, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    other = clip.clone()
    other[0, 0] = 255 - other[0, 0]
    mask = torch.ones(1, 6, dtype=torch.bool)
    with torch.no_grad():
        one, two = model.encode_video(clip, mask), model.encode_video(other, mask)
    changed = (one["entity"].tokens != two["entity"].tokens).any(-1)[0].nonzero().flatten().tolist()
    assert changed == list(range(1 + HBI_SECTION["temporal_layers"]))
    assert (one["action"].tokens != two["action"].tokens).any(-1).all()


def assert_same_tokens(one: Tokens, two: Tokens) -> None:
    """Compares the real tokens, their weights and their number."""
    number = int(one.mask.sum())
    assert number == int(two.mask.sum()) >= 1
    torch.testing.assert_close(one.tokens[:, :number], two.tokens[:, :number], rtol=0, atol=ROUNDING * 10)
    torch.testing.assert_close(one.weights[:, :number], two.weights[:, :number], rtol=0, atol=ROUNDING)
    assert float(one.weights.sum()) == pytest.approx(1, abs=1e-5)
    assert not one.weights[~one.mask].any()


@pytest.mark.parametrize("case", ["a", "b", "short0", "shortramp"])
def test_whole_retrieval_model(case: str) -> None:
    g = golden("retrieval_tiny.npz", f"{case}.")
    inputs = golden("retrieval_tiny.npz", "short0.") if case == "shortramp" else g
    ids, text_mask = torch.from_numpy(inputs["ids"]), torch.from_numpy(inputs["text_mask"]).bool()
    video, video_mask = torch.from_numpy(inputs["video"]).float(), torch.from_numpy(inputs["video_mask"]).bool()
    model = released_model(max_words=ids.shape[1])
    with torch.no_grad():
        text = model.encode_text(ids, text_mask)
        clips = model.encode_pixels(video.flatten(0, 1), video_mask)
        similarity = model.similarity(text, clips)
        if "text_feat" in g:
            assert_close(text["entity"].tokens, g["text_feat"])
            assert_close(clips["entity"].tokens, g["video_feat"], where=video_mask)
        assert_close(similarity["entity"], g["sim_entity"])
        if case == "short0":  # its merged levels hang on exact ties, whose order the released code leaves to noise
            return
        for level in ("action", "event"):
            assert_close(similarity[level], g[f"sim_{level}"])
        if "sim_default" in g:
            assert_close(model.score(similarity), g["sim_default"])
            mixed = 0.5 * similarity["entity"] + 0.3 * similarity["action"] + 0.2 * similarity["event"]
            assert_close(mixed, g["sim_532"])
