"""Our networks as OpenVINO graphs: each layer becomes the operation that computes the same numbers.

torch.fx writes down which layers a network calls, in order; every layer of `networks` has one translation
here. That takes a fraction of a second and needs neither torch's tracer nor OpenVINO's own converter (which
reports each use to its vendor; see `openvino_quiet`). A graph takes patches in the order in which their pixels
lie, (1, h, w, 3), any h and w, and holds a copy of the weights: the torch network may be let go.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn
from torch.nn import functional

from sish_cluster.core.errors import Internal
from sish_cluster.encoder.networks.efficientnet import SameConv
from sish_cluster.encoder.networks.inputs import Normalisation
from sish_cluster.encoder.networks.openvino_quiet import openvino_parts

TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
"""Axes of channels-last order as channels-first ones, and back."""

COLOURS = 3
"""Channels of a patch; `inputs.whole_of` adds one."""


def graph_of(network: nn.Module, *, whole: Normalisation | None = None) -> Any:
    """Return the ``openvino.Model`` of a network in evaluation mode.

    Parameters
    ----------
    network
        Maps float32 (1, 3, h, w) to one tensor, with layers of `networks` only.
    whole
        Of the pixels, when the graph is to take `inputs.whole_of` them instead of normalised ones.

    Returns
    -------
    A model that maps float32 (1, h, w, 3 or 4), sides left open, to the same tensor; a grid is channels-last
    too.

    Raises
    ------
    Internal
        If it has a layer that has no translation: it is named.
    """
    ov, ops = openvino_parts()
    channels = COLOURS + (whole is not None)
    pixels = ops.parameter(ov.PartialShape([1, -1, -1, channels]), np.float32, name="pixels")
    first = ops.transpose(pixels, np.array(TO_FIRST, np.int64))
    found: dict[fx.Node, Any] = {}
    inputs: set[Any] = set()
    for node in _Layers().trace(network).nodes:
        if node.op == "placeholder":
            found[node] = first
            inputs.add(node)
        elif node.op == "output":
            answer = _known(node.args, found)[0]
            if _rank_of(answer) == len(TO_LAST):
                answer = ops.transpose(answer, np.array(TO_LAST, np.int64))
            return ov.Model([ops.result(answer)], [pixels], type(network).__name__)
        else:
            sees_pixels = whole is not None and node.args[0] in inputs
            found[node] = _translated(node, network, found, ops, whole if sees_pixels else None)
    raise Internal(f"{type(network).__name__} answers nothing")


class _Layers(fx.Tracer):
    """Takes a convolution with TensorFlow's padding for one layer, as it does torch's own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, SameConv) or super().is_leaf_module(m, module_qualified_name)


def _translated(
    node: fx.Node,
    network: nn.Module,
    found: Mapping[fx.Node, Any],
    ops: Any,
    whole: Normalisation | None,
) -> Any:
    args = _known(node.args, found)
    if node.op == "call_module":
        layer = network.get_submodule(str(node.target))
        if whole is not None and isinstance(layer, nn.Conv2d):
            return _convolution(ops, args[0], layer, weight=whole.folded(layer.weight))
        translate = LAYERS.get(type(layer))
        if translate is not None:
            return translate(ops, args[0], layer)
    called = FUNCTIONS.get(node.target)
    if called is None:
        raise Internal(
            f"{type(network).__name__} calls {getattr(node.target, '__name__', node.target)}, which has no"
            " translation for OpenVINO: run it with --engine torch, and report this"
        )
    return called(ops, *args, **node.kwargs)


def _known(args: Any, found: Mapping[fx.Node, Any]) -> list[Any]:
    """Return arguments with every traced value replaced by its operation."""
    return [
        found[a] if isinstance(a, fx.Node) else _known(a, found) if _holds_nodes(a) else a
        for a in args
    ]


def _holds_nodes(value: Any) -> bool:
    return isinstance(value, Sequence) and any(isinstance(item, fx.Node) for item in value)


def _rank_of(operation: Any) -> int:
    """Return the axes of an operation's (or one of its outputs') answer."""
    output = operation.output(0) if hasattr(operation, "output") else operation
    return len(output.get_partial_shape())


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.array(tensor.detach().float().cpu().numpy())


def _convolution(ops: Any, x: Any, layer: nn.Conv2d, *, weight: torch.Tensor | None = None) -> Any:
    values = _array(layer.weight if weight is None else weight)
    call, groups = ops.convolution, layer.groups
    if groups > 1:
        out_channels, *rest = values.shape
        values = values.reshape(groups, out_channels // groups, *rest)
        call = ops.group_convolution
    pads = [0, 0] if isinstance(layer, SameConv) else [int(p) for p in layer.padding]
    padding = "same_upper" if isinstance(layer, SameConv) else "explicit"
    answer = call(x, values, list(layer.stride), pads, pads, list(layer.dilation), auto_pad=padding)
    if layer.bias is None:
        return answer
    return ops.add(answer, _array(layer.bias).reshape(1, -1, 1, 1))


def _normalisation(ops: Any, x: Any, layer: nn.BatchNorm2d) -> Any:
    """Return the norm with its running statistics: one factor and one shift a channel."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    deviation = (layer.running_var.double() + layer.eps).sqrt()
    factor = layer.weight.double() / deviation
    shift = layer.bias.double() - layer.running_mean.double() * factor
    scaled = ops.multiply(x, _array(factor).reshape(1, -1, 1, 1))
    return ops.add(scaled, _array(shift).reshape(1, -1, 1, 1))


def _max_pool(ops: Any, x: Any, kernel: int, *, stride: int, padding: int = 0) -> Any:
    strides, pads = [stride] * 2, [padding] * 2
    pooled = ops.max_pool(x, strides, [1, 1], pads, pads, [kernel] * 2, rounding_type="floor")
    return pooled.output(0)  # the other output is where the maxima lie


def _average_pool(ops: Any, x: Any, layer: nn.AvgPool2d) -> Any:
    kernel, stride = [int(layer.kernel_size)] * 2, [int(layer.stride)] * 2  # type: ignore[arg-type]
    return ops.avg_pool(x, stride, [0, 0], [0, 0], kernel, False, rounding_type="floor")


def _mean(ops: Any, x: Any, *, dim: Sequence[int]) -> Any:
    return ops.reduce_mean(x, np.array(dim, np.int64), keep_dims=False)


LAYERS: dict[type[nn.Module], Callable[..., Any]] = {
    nn.Conv2d: _convolution,
    SameConv: _convolution,
    nn.BatchNorm2d: _normalisation,
    nn.ReLU: lambda ops, x, _: ops.relu(x),
    nn.MaxPool2d: lambda ops, x, layer: _max_pool(
        ops, x, layer.kernel_size, stride=layer.stride, padding=layer.padding
    ),
    nn.AvgPool2d: _average_pool,
}
"""Layers that have weights or settings -> (ops, x, layer) -> operation."""

FUNCTIONS: dict[Any, Callable[..., Any]] = {
    functional.relu: lambda ops, x, **_: ops.relu(x),
    functional.relu6: lambda ops, x, **_: ops.clamp(x, 0.0, 6.0),
    functional.max_pool2d: lambda ops, x, kernel, *, stride, padding, **_: _max_pool(
        ops, x, kernel, stride=stride, padding=padding
    ),
    torch.cat: lambda ops, parts, axis: ops.concat(parts, axis),
    operator.add: lambda ops, left, right: ops.add(left, right),
    "mean": _mean,
    "float": lambda ops, x: x,
}
"""Functions, operators and tensors' methods -> (ops, arguments) -> operation."""
