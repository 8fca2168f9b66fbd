"""EfficientNet-Lite2 as an ONNX graph, from the tensors that PyTorch saved.

The network takes pictures of 260 x 260. Its convolutions pad as TensorFlow does: where an odd number of rows is
missing, the last side gets one more. Batch norms are folded into the convolutions before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from onnx import TensorProto

from hbi_infer.convert.onnx_builder import Array, GraphBuilder
from hbi_infer.errors import BundleError

IMAGE_SIZE = 260
NUM_CLASSES = 1000
MEAN, DEVIATION = 127.0, 128.0
EPSILON = 1e-3
STEM_WIDTH, HEAD_WIDTH = 32, 1280


@dataclass(frozen=True)
class Stage:
    """Blocks of one width.

    Attributes:
        blocks: Number of blocks.
        kernel: Height and width of the convolution of each channel.
        stride: Stride of the first block.
        expansion: Factor of channels inside a block.
        width: Number of channels behind a block.
    """

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(3, 3, 2, 6, 24),
    Stage(3, 5, 2, 6, 48),
    Stage(4, 3, 2, 6, 88),
    Stage(4, 5, 1, 6, 120),
    Stage(5, 5, 2, 6, 208),
    Stage(1, 3, 1, 6, 352),
)


@dataclass(frozen=True)
class _Convolution:
    """A convolution with its batch norm.

    Attributes:
        kernel: Name of the weights (E, D or 1, K, K).
        norm: Name of the batch norm.
        stride: Rows from one place to the next.
        groups: Number of groups of channels.
        is_clipped: Whether values are clipped to the range from 0 to 6.
    """

    kernel: str
    norm: str
    stride: int = 1
    groups: int = 1
    is_clipped: bool = True


class EfficientNetLite2:
    """The network's part of a graph under construction.

    Args:
        graph: The graph.
        tensors: Weights (D, D) and others by the names of the `.pth` file.

    Raises:
        BundleError: A weight is missing or has another shape.
    """

    def __init__(self, graph: GraphBuilder, tensors: Mapping[str, Array]) -> None:
        self._graph, self._tensors = graph, tensors

    def logits(self, pictures: str) -> str:
        """Adds the network on pictures (N, H, W, 3) uint8.

        Returns:
            Name of the logits (N, 1000).
        """
        graph = self._graph
        channels = graph.node("Transpose", pictures, name="channels", perm=[0, 3, 1, 2])
        numbers = graph.node("Cast", channels, name="numbers", to=TensorProto.FLOAT)
        centred = graph.node("Sub", numbers, graph.constant("mean", MEAN), name="centred")
        x = graph.node("Div", centred, graph.constant("deviation", DEVIATION), name="scaled")
        x, size = self._convolve(x, IMAGE_SIZE, _Convolution("_conv_stem", "_bn0", stride=2), (STEM_WIDTH, 3, 3, 3))
        widths = [STEM_WIDTH, *(stage.width for stage in STAGES)]
        block = 0
        for stage, (before, width) in zip(STAGES, pairwise(widths), strict=True):
            for repeat in range(stage.blocks):
                stride, given = (stage.stride, before) if repeat == 0 else (1, width)
                x, size = self._block(x, size, f"_blocks.{block}", stage, given, stride)
                block += 1
        x, _ = self._convolve(x, size, _Convolution("_conv_head", "_bn1"), (HEAD_WIDTH, widths[-1], 1, 1))
        pooled = graph.node("GlobalAveragePool", x, name="pooled")
        flat = graph.node("Flatten", pooled, name="flat", axis=1)
        weight, bias = self._tensor("_fc.weight", (NUM_CLASSES, HEAD_WIDTH)), self._tensor("_fc.bias", (NUM_CLASSES,))
        product = graph.node("MatMul", flat, graph.constant("classes", weight.T), name="class_products")
        return graph.node("Add", product, graph.constant("class_bias", bias), name="class_logits")

    def _block(self, x: str, size: int, name: str, stage: Stage, given: int, stride: int) -> tuple[str, int]:
        """Adds an inverted bottleneck: wider, a convolution of each channel, narrower, and past it all."""
        start, inner = x, given * stage.expansion
        if stage.expansion > 1:
            x, size = self._convolve(
                x, size, _Convolution(f"{name}._expand_conv", f"{name}._bn0"), (inner, given, 1, 1)
            )
        own = _Convolution(f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, groups=inner)
        x, size = self._convolve(x, size, own, (inner, 1, stage.kernel, stage.kernel))
        narrow = _Convolution(f"{name}._project_conv", f"{name}._bn2", is_clipped=False)
        x, size = self._convolve(x, size, narrow, (stage.width, inner, 1, 1))
        if stride == 1 and given == stage.width:
            x = self._graph.node("Add", x, start, name=f"{name}.sum")
        return x, size

    def _convolve(self, x: str, size: int, layer: _Convolution, shape: tuple[int, ...]) -> tuple[str, int]:
        """Adds a convolution on pictures of `size` rows; returns its name and the number of rows behind it."""
        graph, stride, kernel = self._graph, layer.stride, shape[-1]
        weight, bias = self._folded(layer, shape)
        made = -(-size // stride)
        missing = max((made - 1) * stride + kernel - size, 0)
        before, after = missing // 2, missing - missing // 2
        x = graph.node(
            "Conv",
            x,
            graph.constant(f"{layer.kernel}.weight", weight),
            graph.constant(f"{layer.kernel}.bias", bias),
            name=layer.kernel,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=layer.groups,
        )
        if layer.is_clipped:
            limits = graph.shared("zero", 0.0), graph.shared("six", 6.0)
            x = graph.node("Clip", x, *limits, name=f"{layer.kernel}.clipped")
        return x, made

    def _folded(self, layer: _Convolution, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Returns weights (E, D, K, K) and bias (E,) that do the work of the batch norm too."""
        kernel = self._tensor(f"{layer.kernel}.weight", shape).astype(np.float64)
        names = ("weight", "bias", "running_mean", "running_var")
        scale, shift, mean, variance = (
            self._tensor(f"{layer.norm}.{name}", shape[:1]).astype(np.float64) for name in names
        )
        factor = scale / np.sqrt(variance + EPSILON)
        return (
            (kernel * factor[:, None, None, None]).astype(np.float32),
            (shift - mean * factor).astype(np.float32),
        )

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Array:
        tensor = self._tensors.get(name)
        if tensor is None or tensor.shape != shape:
            found = "missing" if tensor is None else f"of shape {tensor.shape}"
            raise BundleError(f"the weights {name} of EfficientNet-Lite2 are {found}; expected {shape}")
        return tensor
