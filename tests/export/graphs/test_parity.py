"""A graph that differs from its module is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hbi_export.graphs.modules import TracedGraph
from hbi_export.graphs.parity import check_graph
from hbi_export.graphs.sample_inputs import random_text_inputs
from hbi_infer.errors import ExportError
from hbi_training.weights.checkpoint import Checkpoint


def test_a_graph_that_computes_something_else_is_refused(text_graph: TracedGraph, checkpoint: Checkpoint) -> None:
    proto = onnx.load_from_string(text_graph.content)
    weight = next(w for w in proto.graph.initializer if np.prod(w.dims) >= 1024)
    wrong = numpy_helper.to_array(weight).copy()
    wrong.reshape(-1)[::7] += 0.5
    weight.CopyFrom(numpy_helper.from_array(wrong, weight.name))
    altered = replace(text_graph, content=proto.SerializeToString())
    inputs = {"random": random_text_inputs(checkpoint.tokenizer.vocabulary_size, 40)}
    with pytest.raises(ExportError, match="computes something else than the model"):
        check_graph("text_encoder", altered, inputs, "entity")
