"""The sampled Banzhaf interaction, by definition and as the released code has it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from hbi_infer.tokens import banzhaf as in_numpy
from hbi_training.banzhaf import exact as in_pytorch
from hbi_training.banzhaf.sampled import (
    RELEASED_SCALE,
    Coalitions,
    Game,
    coalition_value,
    pair_difference,
    released_difference,
    sampled_banzhaf_interaction,
)
from tests.builders.banzhaf_games import in_torch, random_game, subsets, value
from tests.paths import GOLDEN as GOLDEN_FOLDER

GOLDEN = GOLDEN_FOLDER / "mc_banzhaf.npz"

EXACT = 1e-10  # float64 against enumeration


def test_the_sampled_estimate_is_unbiased_and_its_error_falls() -> None:
    arrays = random_game(11, (2, 5, 4))
    exact = torch.from_numpy(in_numpy.banzhaf_interaction(*arrays))
    game = Game(*in_torch(arrays))
    generator = torch.Generator().manual_seed(0)
    runs = torch.stack([sampled_banzhaf_interaction(game, num_samples=50, generator=generator) for _ in range(40)])
    standard_error = runs.std(0) / len(runs) ** 0.5
    assert ((runs.mean(0) - exact).abs() <= 4 * standard_error + 1e-12).all()
    few = (runs - exact).square().mean().sqrt()
    many = (runs.reshape(4, 10, *exact.shape).mean(1) - exact).square().mean().sqrt()
    assert 2.4 < few / many < 4.2  # ten times the samples: a third of the error


def test_the_sampler_sees_what_the_enumeration_sees() -> None:
    arrays = random_game(2, (1, 3, 2), padded=False)
    game = Game(*in_torch(arrays))
    for words, frames in product(subsets([0, 1, 2]), subsets([0, 1])):
        text_in, video_in = (
            torch.tensor([[n in chosen for n in range(size)]]) for chosen, size in ((words, 3), (frames, 2))
        )
        similarity, text, video = (part[0] for part in arrays[:3])
        expected = value(similarity, text, video, words, frames)
        assert coalition_value(game, text_in, video_in).item() == pytest.approx(expected)


def released_game() -> tuple[Game, dict[str, np.ndarray]]:
    with np.load(GOLDEN) as golden:
        arrays = {name: golden[name] for name in golden.files}
    parts = [torch.from_numpy(arrays[name]).double() for name in ("R", "text_weight", "video_weight")]
    return Game(*parts, *(torch.from_numpy(arrays[name]).bool() for name in ("text_mask", "video_mask"))), arrays


def test_the_released_variant_on_given_coalitions() -> None:
    game, golden = released_game()
    shape = game.similarity.shape
    for n, (i, j) in enumerate(zip(golden["fixed_i"], golden["fixed_j"], strict=True)):
        text_in, video_in = (
            (torch.from_numpy(golden[name][n]).bool() & mask)[:, None, None].expand(*shape, -1).clone()
            for name, mask in (
                ("fixed_text_coalition", game.text_mask),
                ("fixed_video_coalition", game.video_mask),
            )
        )
        text_in[..., i], video_in[..., j] = False, False
        actual = released_difference(game, Coalitions(text_in, video_in))[:, i, j].numpy()
        # The golden values are from before the padding is set to 0.
        expected = golden["fixed_value"][n] * (golden["text_mask"][:, i] * golden["video_mask"][:, j])
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * RELEASED_SCALE)


def test_the_released_variant_over_all_coalitions() -> None:
    game, golden = released_game()
    batch, num_text, num_video = game.similarity.shape
    own_text, own_video = torch.eye(num_text).bool()[:, None], torch.eye(num_video).bool()
    released, defined = (torch.zeros(game.similarity.shape, dtype=torch.float64) for _ in range(2))
    every = list(product(product([False, True], repeat=num_text), product([False, True], repeat=num_video)))
    for words, frames in every:
        coalitions = Coalitions(
            torch.tensor(words).expand(batch, num_text, num_video, -1) & game.text_mask[:, None, None] & ~own_text,
            torch.tensor(frames).expand(batch, num_text, num_video, -1) & game.video_mask[:, None, None] & ~own_video,
        )
        released += released_difference(game, coalitions) / len(every)
        defined += pair_difference(game, coalitions) / len(every)
    largest = np.abs(golden["exact_mean"]).max()
    np.testing.assert_allclose(released.numpy(), golden["exact_mean"], rtol=0, atol=1e-5 * largest)
    exact = in_pytorch.banzhaf_interaction(*game)
    np.testing.assert_allclose(defined.numpy(), exact.numpy(), rtol=0, atol=EXACT)
