"""Reconstructed tokens: the identity at first, blind to padding, of a pair or of a video alone; reranking."""

from __future__ import annotations

import torch

from hbi_training.model.reconstruction import Reconstruction
from hbi_training.model.token_interaction import Tokens, TokensByLevel

LEVELS = ("entity", "event")

ROUNDING = 1e-5


def reconstruction(seed: int = 0, *, trained: bool = True) -> Reconstruction:
    torch.manual_seed(seed)
    module = Reconstruction(width=16, levels=LEVELS, layers=2, heads=2).eval()
    if trained:
        torch.nn.init.normal_(module.gate.weight, std=0.3)
    return module


def side(batch: int, *sizes: int, lengths: tuple[int, ...] = ()) -> TokensByLevel:
    levels = {}
    for level, size in zip(LEVELS, sizes, strict=True):
        mask = torch.ones(batch, size, dtype=torch.bool)
        for item, length in enumerate(lengths):
            mask[item, min(length, size) :] = False
        levels[level] = Tokens(torch.randn(batch, size, 16), mask / mask.sum(-1, keepdim=True), mask)
    return levels


def test_it_starts_as_the_identity() -> None:
    text, video = side(2, 5, 2), side(2, 4, 1)
    for given, made in zip((text, video), reconstruction(trained=False)(text, video), strict=True):
        for level in LEVELS:
            assert torch.equal(given[level].tokens, made[level].tokens)


def test_it_learns_from_its_first_step() -> None:
    module = reconstruction(trained=False)
    text, _ = module(side(2, 5, 2), side(2, 4, 1))
    text["entity"].tokens.square().sum().backward()
    assert module.gate.weight.grad is not None
    assert module.gate.weight.grad.abs().max() > 0


def test_each_side_sees_the_other_and_no_padding() -> None:
    module = reconstruction()
    text, video = side(2, 5, 2, lengths=(5, 3)), side(2, 4, 1)
    plain_text, plain_video = module(text, video)
    noisy = {k: v._replace(tokens=torch.where(v.mask[..., None], v.tokens, 100.0)) for k, v in text.items()}
    for plain, other in zip((plain_text, plain_video), module(noisy, video), strict=True):
        for level in LEVELS:
            real = plain[level].mask
            torch.testing.assert_close(plain[level].tokens[real], other[level].tokens[real], rtol=0, atol=ROUNDING)
    changed = {k: v._replace(tokens=v.tokens.flip(-1) if k == "event" else v.tokens) for k, v in video.items()}
    other_text, _ = module(text, changed)
    assert (plain_text["entity"].tokens - other_text["entity"].tokens).abs().max() > 1e-3


def test_a_video_alone_is_a_video_whose_text_is_all_padding() -> None:
    module = reconstruction()
    text, video = side(2, 5, 2, lengths=(0, 0)), side(2, 4, 1)
    beside_nothing, alone = module(text, video)[1], module({}, video)[1]
    for level in LEVELS:
        torch.testing.assert_close(beside_nothing[level].tokens, alone[level].tokens, rtol=0, atol=ROUNDING)
