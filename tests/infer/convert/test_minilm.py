from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, numpy_helper

from hbi_infer.convert.minilm import LAYERS, WIDTH, multiplied_out, word_flags
from hbi_infer.errors import BundleError

Weights = dict[str, npt.NDArray[Any]]


def eight_bits() -> tuple[bytes, Weights]:
    """A graph in the form of the package's, with one layer of each name, and the weights that it stands for."""
    rng = np.random.default_rng(0)
    stored: Weights = {"inner.embeddings.LayerNorm.weight": rng.normal(size=4).astype(np.float32)}
    expected: Weights = {"embeddings.LayerNorm.weight": stored["inner.embeddings.LayerNorm.weight"]}
    nodes = []

    def store(name: str, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        stored[f"{name}_q"] = rng.integers(-127, 128, shape, np.int8)
        stored[f"{name}_scale"] = rng.uniform(0.01, 0.1, (shape[0], 1)).astype(np.float32)
        whole: npt.NDArray[np.float32] = stored[f"{name}_q"].astype(np.float32) * stored[f"{name}_scale"]
        return whole

    expected["embeddings.word_embeddings.weight"] = store("inner.embeddings.word_embeddings.weight", (5, 4))
    for number in range(LAYERS):
        name, matrix = f"encoder.layer.{number}.output.dense", f"val_{number}"
        expected[f"{name}.weight"] = store(matrix, (4, 4)).T
        expected[f"{name}.bias"] = stored[f"inner.{name}.bias"] = rng.normal(size=4).astype(np.float32)
        nodes += [
            helper.make_node("MatMul", ["x", matrix], [f"product_{number}"]),
            helper.make_node("Add", [f"product_{number}", f"inner.{name}.bias"], [f"y_{number}"]),
        ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    model = helper.make_model(helper.make_graph(nodes, "minilm", [value], [value], tensors))
    return model.SerializeToString(), expected


def test_weights_of_8_bits_are_multiplied_out() -> None:
    content, expected = eight_bits()
    found = multiplied_out(content)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, err_msg=name)


def test_a_graph_of_something_else() -> None:
    empty = helper.make_model(helper.make_graph([], "empty", [], [], []))
    with pytest.raises(BundleError, match="has not the weights that are expected"):
        multiplied_out(empty.SerializeToString())


def test_both_packages_hold_nearly_the_same_weights() -> None:
    from hbi_infer.convert.minilm import IN_8_BITS, IN_FLOAT32, _read

    if IN_8_BITS.path is None or IN_FLOAT32.path is None:
        pytest.skip("a package is not installed")
    import io
    import zipfile

    whole = _read(zipfile.ZipFile(io.BytesIO(IN_FLOAT32.read("everyday"))).read("model.safetensors"))
    rounded = multiplied_out(IN_8_BITS.read("everyday"))
    assert rounded["embeddings.word_embeddings.weight"].shape == (30522, WIDTH)
    for name, tensor in rounded.items():
        if name in whole and tensor.ndim:
            assert np.abs(tensor - whole[name]).max() <= 0.02 * np.abs(whole[name]).max(), name


def test_flags_of_tokens() -> None:
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "the": 5, "dog": 6, "##s": 7, "!": 8}
    flags = word_flags(vocabulary)
    assert (flags.start_id, flags.end_id) == (2, 3)
    assert np.flatnonzero(flags.begins).tolist() == [1, 5, 6, 8]
    assert np.flatnonzero(flags.continues).tolist() == [7]
    assert np.flatnonzero(flags.counts).tolist() == [6]
