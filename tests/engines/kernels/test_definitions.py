"""The kernels' arithmetic against NumPy on the processor, on a GPU where there is one, and compiled for GPUs that are
not here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbi_engines.errors import EngineError
from hbi_engines.kernels.definitions import (
    BANZHAF_INTERACTION,
    COMPUTE_CAPABILITIES,
    ELEMENTS,
    KERNELS,
    TOKEN_MERGE,
    TOKEN_SIMILARITY,
    Element,
    Kernel,
    compile_kernel,
)
from tests.builders.kernel_games import (
    assert_close,
    expected,
    in_element,
    interaction_inputs,
    merge_inputs,
    similarity_inputs,
)
from tests.builders.kernel_host import Arrays, run_on_host

CASES: list[tuple[Kernel, Arrays, dict[str, Any]]] = [
    (BANZHAF_INTERACTION, interaction_inputs(0), {}),
    (BANZHAF_INTERACTION, interaction_inputs(1, batch=2, words=1, frames=1), {}),
    (BANZHAF_INTERACTION, interaction_inputs(2, batch=2, words=33, frames=12), {"probability": 0.2}),
    (BANZHAF_INTERACTION, interaction_inputs(3, batch=1, words=3, frames=64), {"probability": 0.0}),
    (TOKEN_MERGE, merge_inputs(0), {"num_slots": 4, "ratio": 0.34}),
    (TOKEN_MERGE, merge_inputs(1, tokens=1), {"num_slots": 1, "ratio": 0.25}),
    (TOKEN_MERGE, merge_inputs(2, batch=4, tokens=36, width=64), {"num_slots": 9, "ratio": 0.25, "neighbours": 5}),
    (TOKEN_MERGE, merge_inputs(3, tokens=2), {"num_slots": 6, "ratio": 0.5}),
    (TOKEN_SIMILARITY, similarity_inputs(0), {}),
    (TOKEN_SIMILARITY, similarity_inputs(1), {"padding_is_zero": 1}),
    (TOKEN_SIMILARITY, similarity_inputs(2, texts=1, clips=17, words=36, frames=12), {}),
]


def name_of(value: object) -> str | None:
    return value.node if isinstance(value, Kernel) else value if isinstance(value, str) else None


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(("kernel", "inputs", "attributes"), CASES, ids=name_of)
def test_kernels_compute_what_numpy_does(
    kernel: Kernel, inputs: Arrays, attributes: dict[str, Any], element: Element
) -> None:
    given_here = in_element(kernel, inputs, element)
    found = run_on_host(kernel, element, given_here, **attributes)
    assert_close(kernel, found, expected(kernel, given_here, **attributes), element)


@pytest.mark.parametrize("threads", [1, 7, 32])
@pytest.mark.parametrize(("kernel", "inputs", "attributes"), CASES, ids=name_of)
def test_no_result_hangs_on_the_order_of_threads(
    kernel: Kernel, inputs: Arrays, attributes: dict[str, Any], threads: int
) -> None:
    """A missing barrier lets a thread read what another one has or has not yet written, as the order wants it."""
    reference = run_on_host(kernel, "float32", inputs, **attributes)
    for backwards in (False, True):
        found = run_on_host(kernel, "float32", inputs, backwards=backwards, threads=threads, **attributes)
        for name, array in reference.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    tokens=st.integers(1, 24),
    ratio=st.sampled_from([0.1, 0.25, 0.4, 0.5, 0.7, 1.0]),
    neighbours=st.integers(1, 6),
    more=st.integers(0, 3),
)
def test_any_merging(seed: int, tokens: int, ratio: float, neighbours: int, more: int) -> None:
    attributes: dict[str, Any] = {
        "num_slots": max(int(np.ceil(tokens * ratio)), 1) + more,
        "ratio": ratio,
        "neighbours": neighbours,
    }
    inputs = in_element(TOKEN_MERGE, merge_inputs(seed, tokens=tokens), "float32")
    found = run_on_host(TOKEN_MERGE, "float32", inputs, **attributes)
    assert_close(TOKEN_MERGE, found, expected(TOKEN_MERGE, inputs, **attributes), "float32")


def test_tokens_that_are_the_same_go_to_the_first_centre() -> None:
    inputs = merge_inputs(0, batch=1, tokens=6)
    inputs["tokens"][:] = inputs["tokens"][:, :1]
    inputs["mask"][:], inputs["score"][:] = True, 0.0
    found = run_on_host(TOKEN_MERGE, "float32", inputs, num_slots=3, ratio=0.5)
    assert found["slots"].tolist() == [[0, 1, 2, 0, 0, 0]]
    np.testing.assert_allclose(found["merged"][0], inputs["tokens"][0, :3], rtol=1e-5)


def test_a_clip_of_padding_alone_merges_to_nothing() -> None:
    inputs = merge_inputs(0, batch=1, tokens=6)
    inputs["mask"][:] = False
    found = run_on_host(TOKEN_MERGE, "float32", inputs, num_slots=3, ratio=0.5)
    assert not found["merged"].any()
    assert (found["slots"] == -1).all()
    assert np.isneginf(found["bias"]).all()


def test_what_is_no_number_comes_out_as_none() -> None:
    inputs = interaction_inputs(0)
    inputs["similarity"][1, 0, 0] = np.nan
    inputs["text_mask"][1, 0] = inputs["video_mask"][1, 0] = True
    found = run_on_host(BANZHAF_INTERACTION, "float32", inputs)["interaction"]
    assert np.isnan(found[1, 0, 0])
    assert np.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize(
    ("kernel", "inputs"),
    [
        (BANZHAF_INTERACTION, interaction_inputs(0, batch=1, words=77, frames=64)),
        (TOKEN_MERGE, merge_inputs(0, batch=1, tokens=128)),
        (TOKEN_SIMILARITY, similarity_inputs(0, texts=1, clips=1, words=77, frames=64)),
    ],
    ids=name_of,
)
def test_the_longest_texts_and_clips_fit_into_shared_memory(kernel: Kernel, inputs: Arrays) -> None:
    attributes = {"num_slots": 32, "ratio": 0.25, "neighbours": 3} if kernel is TOKEN_MERGE else {}
    found = run_on_host(kernel, "float32", inputs, threads=64, **attributes)
    assert_close(kernel, found, expected(kernel, in_element(kernel, inputs, "float32"), **attributes), "float32")


def test_what_does_not_fit_is_refused() -> None:
    shapes = [(1, 200, 64), (1, 200), (1, 64), (1, 200), (1, 64)]
    with pytest.raises(EngineError, match=r"would need \d+ bytes of shared memory for similarity \(1, 200, 64\), .*"):
        BANZHAF_INTERACTION.checked_work(shapes, BANZHAF_INTERACTION.attributes)


@pytest.mark.parametrize("compute_capability", COMPUTE_CAPABILITIES)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=name_of)
def test_kernels_compile_for_gpus_that_are_not_here(kernel: Kernel, compute_capability: str) -> None:
    for element in ELEMENTS:
        cubin = compile_kernel(kernel, element, compute_capability)
        assert cubin[:4] == b"\x7fELF"
        assert kernel.entry.encode() in cubin


def test_a_gpu_that_the_compiler_does_not_know_is_an_error() -> None:
    with pytest.raises(EngineError, match=r"on token_merge.cu for sm12, which the installed nvidia-cuda-nvrtc"):
        compile_kernel(TOKEN_MERGE, "float32", "sm12")
