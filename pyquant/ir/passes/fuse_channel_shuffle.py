"""A channel shuffle behind a concatenation is an interleaved concatenation."""

from __future__ import annotations

from dataclasses import replace

from pyquant.ir.ops import ChannelShuffle, Concat
from pyquant.ir.program import Program

_CHANNELS = 3


def fuse_channel_shuffle(program: Program) -> Program:
    """Fuses where the shuffle has one group per input, all inputs have the same number of channels
    and nothing else reads the concatenation.
    """
    producers = {node.output: node for node in program.nodes}
    kept = []
    for node in program.nodes:
        producer = producers.get(node.inputs[0])
        if (
            not isinstance(node.op, ChannelShuffle)
            or producer is None
            or producer.op != Concat(_CHANNELS)
            or node.op.groups != len(producer.inputs)
            or len({program.tensors[index].shape[_CHANNELS] for index in producer.inputs}) != 1
            or len(program.consumers(producer.output)) != 1
            or producer.output in program.outputs
        ):
            kept.append(node)
            continue
        producer.op = replace(producer.op, interleaved=True)
        producer.output = node.output
        producers[node.output] = producer
    program.nodes = kept
    return program
