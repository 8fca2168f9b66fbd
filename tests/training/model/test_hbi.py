"""The model's own properties: padding, ties, bad sizes, the baseline."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hbi_infer.errors import TrainingError
from hbi_training.model.clip_encoders import ConvolutionStem
from hbi_training.model.config import HBIConfig, level_token_counts
from hbi_training.model.hbi import HBI
from hbi_training.model.token_interaction import Tokens, cross_similarity, interact, matched_similarity
from hbi_training.model.token_merge import dpc_knn, token_distances
from hbi_training.weights.checkpoint import build_model, load_checkpoint
from tests.builders.tiny_training import HBI_SECTION, MEAN_POOLED_SECTION, with_vocabulary_size

ROUNDING = 2e-5  # float32: sums over padded arrays are taken in another order


@pytest.fixture(scope="module")
def model() -> HBI:
    torch.manual_seed(0)
    built = build_model(with_vocabulary_size(HBI_SECTION, 60))
    assert isinstance(built, HBI)
    return built.eval()


def random_ids(length: int, seed: int) -> Tensor:
    return torch.randint(0, 60, (1, length), generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=30)
@given(length=st.integers(2, 30), extra=st.integers(1, 10), seed=st.integers(0, 1000))
def test_padding_of_a_text_changes_nothing(model: HBI, length: int, extra: int, seed: int) -> None:
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


def assert_same_tokens(one: Tokens, two: Tokens) -> None:
    """Compares the real tokens, their weights and their number."""
    number = int(one.mask.sum())
    assert number == int(two.mask.sum()) >= 1
    torch.testing.assert_close(one.tokens[:, :number], two.tokens[:, :number], rtol=0, atol=ROUNDING * 10)
    torch.testing.assert_close(one.weights[:, :number], two.weights[:, :number], rtol=0, atol=ROUNDING)
    assert float(one.weights.sum()) == pytest.approx(1, abs=1e-5)
    assert not one.weights[~one.mask].any()


def test_equal_tokens_are_grouped_by_index() -> None:
    same = torch.ones(1, 5, 4)
    clusters = dpc_knn(same, torch.ones(1, 5, dtype=torch.bool), 0.4, num_slots=2)
    assert clusters.slot.tolist() == [[0, 1, 0, 0, 0]]


def test_a_short_clip_has_fewer_clusters_and_every_token_is_in_one() -> None:
    tokens = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(12)[None] < torch.tensor([12, 5])[:, None]
    clusters = dpc_knn(tokens, mask, 0.25, num_slots=3)
    assert clusters.mask.sum(1).tolist() == [3, 2]
    assert torch.equal(clusters.membership.sum(1), mask.float())
    # Each cluster is not empty, and clusters stand in the order of time of their centres.
    assert (clusters.membership.sum(2) > 0).tolist() == [[True, True, True], [True, True, False]]


def test_distances_are_symmetric_and_zero_to_themselves() -> None:
    distances = token_distances(torch.randn(2, 40, 16))
    assert torch.equal(distances, distances.transpose(1, 2))
    assert not distances.diagonal(dim1=1, dim2=2).any()


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_similarity_against_a_loop(data: st.DataObject) -> None:
    num_text, num_video = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10_000)))
    cosines = torch.rand(num_text, num_video, generator=generator) * 2 - 1
    real_text, real_video = data.draw(st.integers(1, num_text)), data.draw(st.integers(1, num_video))
    text_mask, video_mask = torch.arange(num_text) < real_text, torch.arange(num_video) < real_video
    text_weights = torch.rand(num_text, generator=generator) * text_mask
    video_weights = torch.rand(num_video, generator=generator) * video_mask
    for partner in ("ignore", "zero"):
        total = 0.0
        for t in range(real_text):
            best = [float(cosines[t, v]) for v in range(real_video)]
            best += [0.0] * (num_video - real_video) if partner == "zero" else []
            total += 0.5 * float(text_weights[t]) * max(best)
        for v in range(real_video):
            best = [float(cosines[t, v]) for t in range(real_text)]
            best += [0.0] * (num_text - real_text) if partner == "zero" else []
            total += 0.5 * float(video_weights[v]) * max(best)
        got = interact(cosines, text_weights, video_weights, text_mask, video_mask, padded_partner=partner)
        assert float(got) == pytest.approx(total, abs=1e-5)


def test_matched_similarity_is_the_diagonal_of_the_cross_similarity() -> None:
    generator = torch.Generator().manual_seed(0)

    def tokens(batch: int, number: int) -> Tokens:
        mask = torch.arange(number)[None] < torch.randint(1, number + 1, (batch, 1), generator=generator)
        weights = torch.rand(batch, number, generator=generator) * mask
        return Tokens(torch.randn(batch, number, 8, generator=generator), weights, mask)

    text, video = tokens(6, 5), tokens(3, 4)
    every = cross_similarity(text, video)
    own = matched_similarity(text, video)
    expected = torch.stack([every[0:2, 0], every[2:4, 1], every[4:6, 2]])
    torch.testing.assert_close(own, expected)


def test_the_baseline_is_the_mean_of_unit_frames() -> None:
    torch.manual_seed(0)
    baseline = build_model(with_vocabulary_size(MEAN_POOLED_SECTION, 60)).eval()
    frames = torch.randint(0, 256, (2, 6, 32, 32, 3), dtype=torch.uint8)
    mask = torch.arange(6)[None] < torch.tensor([[6], [2]])
    ids = torch.tensor([[58, 4, 5, 59, 0, 0], [58, 7, 8, 9, 10, 59]])
    text_mask = torch.arange(6)[None] < torch.tensor([[4], [6]])
    with torch.no_grad():
        text, video = baseline.encode_text(ids, text_mask), baseline.encode_video(frames, mask)
        score = baseline.score(baseline.similarity(text, video))
        features = baseline.frame_encoder(baseline.frame_encoder.normalise(frames.flatten(0, 1))).unflatten(0, (2, 6))
        hidden = baseline.word_encoder(ids, text_mask)
    ends = torch.stack([hidden[0, 3], hidden[1, 5]])
    means = torch.stack([torch.nn.functional.normalize(features[i, :n], dim=-1).mean(0) for i, n in enumerate((6, 2))])
    expected = torch.nn.functional.normalize(ends, dim=-1) @ torch.nn.functional.normalize(means, dim=-1).T
    torch.testing.assert_close(score, expected, rtol=0, atol=1e-5)


def test_token_counts_of_the_published_setting() -> None:
    assert level_token_counts(32, (0.25, 0.5)) == (32, 8, 4)
    assert level_token_counts(12, (0.25, 0.5)) == (12, 3, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temporal_head": 2}, "did you mean 'temporal_heads'?"),
        ({"merge_heads": 5}, "projection_dim 32 is not a multiple of merge_heads 5"),
        ({"level_rates": [1.0]}, "level_rates takes 3 numbers"),
        ({"kind": "hbl"}, "the model's kind is 'hbl'; known kinds: hbi, mean_pooled_clip"),
        ({"clip": "/nowhere/clip"}, "cannot load the CLIP model '/nowhere/clip'"),
    ],
)
def test_a_wrong_configuration_is_explained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError) as caught:
        build_model({**with_vocabulary_size(HBI_SECTION, 60), **changes})
    assert message in str(caught.value)


def test_a_configuration_survives_json(model: HBI) -> None:
    assert HBIConfig.from_json(model.config.to_json()) == model.config


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Any) -> None:
    with pytest.raises(TrainingError, match=r"has no config\.json"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(("patch_size", "grid"), [(8, 12), (16, 6), (32, 3)])
def test_the_convolution_stem_keeps_the_grid_of_patches(patch_size: int, grid: int) -> None:
    stem = ConvolutionStem(width=32, patch_size=patch_size)
    assert stem(torch.zeros(2, 3, 96, 96)).shape == (2, 32, grid, grid)
    with pytest.raises(TrainingError, match="needs a patch size of 8, 16 or 32, not 12"):
        ConvolutionStem(width=32, patch_size=12)
