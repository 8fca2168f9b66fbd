"""Token merging against the released code's numbers; ties, short clips, distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hbi_training.model.token_merge import MergeAttention, TokenMerge, dpc_knn, merge_tokens, token_distances
from tests.golden import assert_close, golden, load_part, tensors


@pytest.mark.parametrize("case", ["a", "b", "c", "d", "e", "f"])
def test_clusters(case: str) -> None:
    g = golden("cluster.npz", f"{case}.")
    x = torch.from_numpy(g["x"])
    mask = torch.from_numpy(g["mask"]).bool() if "mask" in g else torch.ones(x.shape[:2], dtype=torch.bool)
    ratio = int(g["n"]) / x.shape[1]
    clusters = dpc_knn(x, mask, ratio, num_slots=int(g["n"]), neighbours=int(g["k"]), merging="released")
    np.testing.assert_array_equal(clusters.slot.numpy()[mask.numpy()], g["idx"][mask.numpy()])
    # The weighted mean of each cluster's tokens, with the golden weights.
    share = clusters.membership * torch.from_numpy(g["weight"]).transpose(1, 2)
    assert_close(share / (share.sum(-1, keepdim=True) + 1e-6) @ x, g["merged"])


@pytest.mark.parametrize("case", ["text24", "video12", "text32", "nomask6", "nomask3", "nomask8_eighth"])
def test_token_merge(case: str) -> None:
    g = golden("ctm.npz", f"{case}.")
    x = torch.from_numpy(g["x"])
    mask = torch.from_numpy(g["mask"]).bool() if "mask" in g else torch.ones(x.shape[:2], dtype=torch.bool)
    merge = TokenMerge(width=x.shape[-1], max_tokens=x.shape[1], ratio=float(g["ratio"]), heads=8, merging="released")
    parts = nn.ModuleDict({name: getattr(merge, name) for name in ("convolution", "norm", "score")})
    load_part(parts, "text_hierarchy.merges.action.", {f"t_ctm0.{k}": v for k, v in tensors(g).items()})
    normed, score = merge.score_tokens(x, mask)
    assert_close(normed, g["normed"])
    assert_close(score[:, :, None], g["token_score"], where=mask[:, :, None])
    sizes = {"num_slots": merge.num_slots, "ratio": merge.ratio, "neighbours": merge.neighbours}
    merged = merge_tokens(normed, score, mask, **sizes, merging="released")
    assert torch.isneginf(merged.bias[~mask]).all()
    assert_close(merged.tokens, g["down"])


def test_merge_attention() -> None:
    g = golden("tcblock.npz")
    q, kv = torch.from_numpy(g["q"]), torch.from_numpy(g["kv"])
    block = MergeAttention(width=q.shape[-1], heads=int(g["heads"]))
    weights = {f"t_block0.{k}": v for k, v in tensors(g).items()}
    load_part(block, "text_hierarchy.merges.action.attention.", weights)
    assert_close(block(q, kv, torch.from_numpy(g["score"]).squeeze(-1)), g["out"])
    assert_close(block(q, kv, torch.from_numpy(g["score_masked"]).squeeze(-1)), g["out_masked"])
    assert_close(block(q, kv), g["out_noscore"])
    assert_close(block(q, q), g["out_self"])


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
