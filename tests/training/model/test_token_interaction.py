"""Token-wise interaction against the released code's numbers and against a loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_training.model.token_interaction import (
    Tokens,
    TokenWeights,
    cross_similarity,
    interact,
    matched_similarity,
    token_similarities,
)
from tests.golden import assert_close, golden, tensors


@pytest.mark.parametrize(("level", "number"), [("entity", ""), ("action", "0"), ("event", "1")])
def test_weighted_token_wise_interaction(level: str, number: str) -> None:
    g = golden("wti.npz")
    sides = {}
    for side in ("text", "video"):
        tokens = torch.from_numpy(g[side])
        mask = torch.from_numpy(g[f"{side}_mask"]).bool()
        if level != "entity":  # merged levels know no padding in the released code
            mask = torch.ones_like(mask)
        weights = TokenWeights(width=tokens.shape[-1])
        prefix = f"{side}_weight_fc{number}."
        weights.network.load_state_dict(tensors(g, prefix), strict=True)
        sides[side] = Tokens(tokens, weights(tokens, mask), mask)
    pairs = token_similarities(sides["text"].tokens, sides["video"].tokens)
    shown = pairs * (sides["text"].mask[:, None, :, None] & sides["video"].mask[None, :, None, :])
    assert_close(shown, g[f"wti.{level}.token_logits"])
    sim = cross_similarity(sides["text"], sides["video"], padded_partner="zero")
    assert_close(sim, g[f"wti.{level}.sim"])
    assert_close(sim.T, g[f"wti.{level}.sim_T"])


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
