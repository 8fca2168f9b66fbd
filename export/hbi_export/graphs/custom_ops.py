"""All nodes of our own: their translations for an export, and the functions that a graph needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import torch

from hbi_engines.kernels.definitions import BANZHAF_INTERACTION, TOKEN_MERGE, TOKEN_SIMILARITY
from hbi_export.graphs import interaction_op, similarity_op, token_merge_op
from hbi_export.graphs.onnx_functions import DOMAIN, translation_of

FUNCTIONS: dict[str, Callable[[], onnx.FunctionProto]] = {
    BANZHAF_INTERACTION.node: interaction_op.function_proto,
    TOKEN_MERGE.node: token_merge_op.function_proto,
    TOKEN_SIMILARITY.node: similarity_op.function_proto,
}
"""Name of a node -> maker of its function."""

TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.hbi.banzhaf_interaction.default: translation_of(BANZHAF_INTERACTION),
    torch.ops.hbi.token_merge.default: translation_of(TOKEN_MERGE),
    torch.ops.hbi.token_similarity.default: translation_of(TOKEN_SIMILARITY),
}
"""Operator of PyTorch -> its translation, for `torch.onnx.export(custom_translation_table=...)`."""


def add_functions(proto: onnx.ModelProto) -> None:
    """Adds the functions of those nodes that a graph has."""
    names = {node.op_type for node in proto.graph.node if node.domain == DOMAIN}
    proto.functions.extend(make() for name, make in FUNCTIONS.items() if name in names)
