"""The layout of released checkpoints: the names and shapes that the released code writes, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hbi_infer.errors import TrainingError
from hbi_infer.options import FrameSampling
from hbi_training.model.hbi import HBI
from hbi_training.weights.released import (
    LayoutCheck,
    check_layout,
    convert_state_dict,
    count_answers,
    has_answer_head,
    released_config,
    released_key,
    some,
)
from tests.golden import golden, released_shapes, tensors

FRAMES_9 = FrameSampling(max_frames=9)


def without_numbers(table: str) -> dict[str, Tensor]:
    """The tensors of a real checkpoint, with their shapes alone."""
    return {name: torch.empty(shape, device="meta") for name, shape in released_shapes(table).items()}


def layout_of(released: dict[str, Tensor], **choices: Any) -> LayoutCheck:
    answers = tuple(map(str, range(count_answers(released)))) if has_answer_head(released) else ()
    config = released_config(released, answers=answers, **choices)
    with torch.device("meta"):
        needed = HBI(config).state_dict()
    return check_layout(released, needed)


@pytest.mark.parametrize(
    ("table", "sizes", "counts"),
    [
        ("keys_retrieval.tsv", (768, 12, 32, 224), ((32, 8, 4), (12, 3, 2))),
        ("keys_vqa.tsv", (768, 12, 16, 224), ((32, 8, 1), (12, 3, 1))),
    ],
)
def test_every_tensor_of_the_real_checkpoints_has_its_place(table: str, sizes: tuple[int, ...], counts: Any) -> None:
    released = without_numbers(table)
    layout = layout_of(released)
    assert (layout.missing, layout.misshapen, layout.unknown) == ((), (), ())
    assert len(layout.unused) == 48
    assert all(name.startswith("banzhaf") for name in layout.unused)
    config = released_config(released)
    vision = config.clip["vision_config"]
    assert tuple(vision[key] for key in ("hidden_size", "num_hidden_layers", "patch_size", "image_size")) == sizes
    assert config.sampling.image_size == sizes[3]
    assert (config.text_token_counts, config.video_token_counts) == counts
    assert (config.merging, config.padded_partner, config.level_rates) == ("released", "zero", (1.0, 0.0, 0.0))
    if has_answer_head(released):
        assert count_answers(released) == 1500
        assert config.answer_rates == (0.4, 0.4, 0.2)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("text_hierarchy.merges.action.attention.query.bias", "t_block0.attn.q.bias"),
        ("video_hierarchy.merges.event.convolution.weight", "v_ctm1.conv.conv.weight"),
        ("video_hierarchy.weights.entity.network.2.bias", "video_weight_fc.2.bias"),
        ("word_encoder.text.encoder.layers.3.self_attn.k_proj.bias", "clip.transformer.resblocks.3.attn.in_proj_bias"),
        ("answer_head.levels.event.video_scorer.0.weight", "v_weight1.0.weight"),
        ("answer_head.levels.entity.text_projection.bias", "t_proj.bias"),
    ],
)
def test_names(ours: str, theirs: str) -> None:
    assert released_key(ours) == theirs


def test_fused_and_transposed_tensors() -> None:
    released = {
        "clip.visual.proj": torch.arange(6.0).reshape(2, 3),
        "transformerClip.resblocks.0.attn.in_proj_bias": torch.arange(6.0),
    }
    attention = "temporal_transformer.encoder.layers.0.self_attn"
    keys = ["frame_encoder.projection.weight", *(f"{attention}.{part}_proj.bias" for part in "qkv")]
    ours = convert_state_dict(released, keys)
    assert ours[keys[0]].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert [ours[key].tolist() for key in keys[1:]] == [[0, 1], [2, 3], [4, 5]]


def test_what_does_not_fit_is_told_by_its_released_name() -> None:
    released = without_numbers("keys_retrieval.tsv")
    del released["clip.visual.ln_post.weight"], released["t_block1.attn.kv.bias"]
    released["v_ctm0.score.weight"] = torch.empty(1, 768, device="meta")
    released["clip.transformer.resblocks.3.attn.in_proj_weight"] = torch.empty(512, 1536, device="meta")
    released["clip.visual.proj"] = torch.empty(640, 512, device="meta")
    released["something.else"] = torch.empty(1, device="meta")
    layout = layout_of(released)
    assert set(layout.missing) == {"clip.visual.ln_post.weight", "t_block1.attn.kv.bias"}
    assert set(layout.misshapen) == {
        ("v_ctm0.score.weight", (1, 768), (1, 512)),
        ("clip.transformer.resblocks.3.attn.in_proj_weight", (512, 1536), (1536, 512)),
        ("clip.visual.proj", (640, 512), (768, 512)),
    }
    assert layout.unknown == ("something.else",)
    with pytest.raises(TrainingError) as caught:
        layout.require("hbi.pt")
    message = str(caught.value)
    assert message.startswith("hbi.pt is not a released checkpoint that can be used: it lacks ")
    for part in (
        "t_block1.attn.kv.bias",
        "v_ctm0.score.weight is (1, 768) where (1, 512) fits",
        "unknown something.else",
    ):
        assert part in message
    assert "\n" not in message
    replace(layout, missing=(), misshapen=()).require("hbi.pt")  # the unknown alone does no harm


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.clear(), "it lacks clip.visual.conv1.weight, clip.visual.positional_embedding, .* and 2 more$"),
        (
            lambda r: r.pop("frame_position_embeddings.weight"),
            "it lacks frame_position_embeddings.weight; it has clip.",
        ),
        (
            lambda r: r.update({"clip.visual.conv1.weight": torch.empty(64)}),
            r"conv1.weight is \(64,\); it must have 4 axes",
        ),
        (lambda r: r.update({"clip.text_projection": torch.empty(64, 0)}), "none of them empty"),
    ],
)
def test_what_has_no_sizes_is_refused(change: Any, message: str) -> None:
    released = tensors(golden("retrieval_tiny_weights.npz"), "")
    change(released)
    with pytest.raises(TrainingError, match=message):
        released_config(released)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"max_words": 35}, "max_words is 35, and clip.s text_config has max_position_embeddings 34"),
        ({"sampling": FrameSampling(max_frames=40)}, "temporal_positions is 34, and sampling takes up to 40"),
        (
            {"sampling": FrameSampling(max_frames=8)},
            "max_frames is 8, which makes levels of 8, 2, 1 tokens; .* at least 3 tokens to merge: choose a larger",
        ),
        ({"max_words": 5}, "max_words is 5, which makes levels of 5, 2, 1 tokens"),
    ],
)
def test_lengths_that_the_model_cannot_take(choices: dict[str, Any], message: str) -> None:
    released = tensors(golden("retrieval_tiny_weights.npz"), "")
    released_config(released, max_words=34, sampling=FRAMES_9)
    with pytest.raises(TrainingError, match=message):
        released_config(released, **choices)


def test_a_list_of_names_stays_short() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdefg"), 3) == "a, b, c and 4 more"


def test_missing_frames_are_grey_to_the_released_merging() -> None:
    """There they are zeros after normalisation, whatever the bytes in their slots are."""
    released = tensors(golden("retrieval_tiny_weights.npz"), "")
    model = HBI(released_config(released, max_words=24)).eval()
    frames = torch.randint(0, 256, (2, 12, 32, 32, 3), dtype=torch.uint8)
    mask = torch.arange(12) < torch.tensor([[12], [5]])
    black = frames * mask[..., None, None, None]
    pixels = model.frame_encoder.normalise(frames.flatten(0, 1)) * mask.flatten()[:, None, None, None]
    with torch.no_grad():
        expected = model.encode_pixels(pixels, mask)
        for given in (frames, black):
            actual = model.encode_video(given, mask)
            for level, tokens in actual.items():
                torch.testing.assert_close(tokens.tokens, expected[level].tokens, rtol=0, atol=1e-5)
