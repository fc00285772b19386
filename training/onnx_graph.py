"""The network as an ONNX graph, layer for layer. PyTorch's own exporter would need packages that nothing else needs.

images [N, 3, S, S] -> probabilities [N, classes], both float32; N is free. Softmax is the last node: inside the graph
it costs less than after it.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from service.engines.onnx_engine import INPUT, OUTPUT
from service.engines.resnet import BasicBlock, ResNet18
from service.model import Bundle

OPSET = 17  # the oldest with every operator needed and quantisation per channel
IR_VERSION = 8  # of the file, which goes with that opset


class Graph:
    """Nodes and weights so far. Each layer's method returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node whose output has its name."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def weight(self, name: str, tensor: Tensor | None) -> str:
        assert tensor is not None, f"{name}: batch norm has to be folded in, which gives every convolution a bias"
        self.weights.append(numpy_helper.from_array(tensor.detach().contiguous().numpy(), name))
        return name

    def convolution(self, name: str, x: str, layer: nn.Module) -> str:
        assert isinstance(layer, nn.Conv2d)
        (kernel, _), (stride, _), (padding, _) = layer.kernel_size, layer.stride, layer.padding
        weights = self.weight(f"{name}.weight", layer.weight), self.weight(f"{name}.bias", layer.bias)
        return self.add(
            "Conv", name, x, *weights, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[int(padding)] * 4
        )

    def block(self, name: str, x: str, block: BasicBlock) -> str:
        y = self.add("Relu", f"{name}.relu1", self.convolution(f"{name}.conv1", x, block.conv1))
        y = self.convolution(f"{name}.conv2", y, block.conv2)
        if isinstance(block.downsample, nn.Sequential):
            x = self.convolution(f"{name}.downsample", x, block.downsample[0])
        return self.add("Relu", f"{name}.relu2", self.add("Add", f"{name}.add", y, x))


def onnx_model(net: ResNet18, bundle: Bundle) -> onnx.ModelProto:
    """The graph of a network whose batch norms are folded in, checked by ONNX's own rules."""
    graph, size_px = Graph(), bundle.image.size_px
    x = graph.add("Relu", "relu", graph.convolution("conv1", INPUT, net.conv1))
    for name in ("layer1", "layer2", "layer3", "layer4"):
        for index, block in enumerate(net.get_submodule(name).children()):
            assert isinstance(block, BasicBlock)
            x = graph.block(f"{name}.{index}", x, block)
    x = graph.add("Flatten", "flatten", graph.add("GlobalAveragePool", "pool", x))
    last = graph.weight("fc.weight", net.fc.weight), graph.weight("fc.bias", net.fc.bias)
    graph.add("Softmax", OUTPUT, graph.add("Gemm", "fc", x, *last, transB=1), axis=1)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            bundle.name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, size_px, size_px])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", len(bundle.classes)])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="training.export",
    )
    onnx.checker.check_model(model, full_check=True)
    return model
