"""Empirical bias correction: the mean error of a layer's rounded weights is taken off its bias.

The error of a layer's output is ``(W - Q(W)) x``. Its mean over the data needs no more than the
mean of ``x`` per channel: Nagel et al. 2019, arXiv:1906.04721, eq. 17, with the mean measured
during calibration instead of derived from batch norm statistics.

Tried on EfficientNet-Lite0 (32 crops of photos; SQNR of the logits on other crops, dB), and left:
means of the quantized network's inputs instead of the float network's (23.9 instead of 24.1), and
correcting each layer's output mean after all earlier layers are corrected (23.5; 22.6 with 8 crops
instead of 32), which costs another run of both networks. Without any correction it was 21.0.
"""

from __future__ import annotations

import torch
from torch import fx, nn

from pyquant.quantization.weighted_layers import WeightedLayer, mean_by_channel, weighted_layers


class InputMean(nn.Module):
    """Passes an activation on and keeps its mean per channel; constant memory, mergeable.

    Args:
        channels: The size of the channels' dimension.
        axis: That dimension; 1 for images, -1 for the input of a linear layer.
    """

    total: torch.Tensor
    count: torch.Tensor

    def __init__(self, channels: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("total", torch.zeros(channels, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds the float32 tensor ``x`` to the mean and returns it as it is."""
        channels = self.total.numel()
        count = x.numel() // channels
        if count:
            self.total += mean_by_channel(x.detach(), self.axis).double() * count
            self.count += count
        return x

    def reset(self) -> None:
        """Forgets all data."""
        self.total.zero_()
        self.count.zero_()

    def merge(self, other: InputMean) -> None:
        """Takes in what another instance has seen, as if this one had seen it."""
        self.total += other.total
        self.count += other.count

    def mean(self) -> torch.Tensor:
        """float32 ``[C]``; zeros before any data."""
        return (self.total / self.count.clamp(min=1)).float()


def insert_input_means(prepared: fx.GraphModule) -> None:
    """Puts an :class:`InputMean` in front of every weighted layer, in place.

    Args:
        prepared: A graph with observers.
    """
    inserted: dict[tuple[fx.Node, int], fx.Node] = {}
    for layer in weighted_layers(prepared):
        source, shape = layer.source, layer.input_shape
        if shape is None:
            continue
        key = (source, layer.channel_axis)
        if key not in inserted:
            name = f"input_mean_{len(inserted)}"
            prepared.add_submodule(name, InputMean(shape[layer.channel_axis], layer.channel_axis))
            with prepared.graph.inserting_after(source):
                inserted[key] = prepared.graph.call_module(name, (source,))
        layer.node.update_arg(0, inserted[key])
    prepared.recompile()


def input_means(prepared: fx.GraphModule) -> list[InputMean]:
    """The inserted modules."""
    return [module for module in prepared.children() if isinstance(module, InputMean)]


def correct_biases(prepared: fx.GraphModule) -> None:
    """Corrects the bias of every layer whose input mean was measured, and removes the modules that
    measured it, in place.

    Args:
        prepared: A calibrated graph. Where :func:`insert_input_means` was not called, nothing
            changes.
    """
    for layer in weighted_layers(prepared):
        statistics = prepared.get_submodule(str(layer.source.target))
        if isinstance(statistics, InputMean):
            _correct(layer, statistics.mean())
    for node in prepared.graph.find_nodes(op="call_module"):
        if isinstance(prepared.get_submodule(str(node.target)), InputMean):
            node.replace_all_uses_with(node.all_input_nodes[0])
            prepared.graph.erase_node(node)
    prepared.delete_all_unused_submodules()
    prepared.recompile()


def _correct(layer: WeightedLayer, mean: torch.Tensor) -> None:
    shape = layer.input_shape
    assert shape is not None
    # The layer itself on a constant image: borders see the zeros of the padding there, and a
    # transposed convolution only some of its weights at each place.
    mean = mean[None] if layer.is_linear else mean[:, None, None].expand(1, *shape[1:])
    with torch.no_grad():
        error = layer.apply(mean, layer.weight - layer.quantized_weight(), None)
        error = mean_by_channel(error, layer.channel_axis)
    bias = layer.bias
    layer.set_bias(error if bias is None else bias + error)
