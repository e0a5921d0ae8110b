"""All peers, in the order of the tables."""

from __future__ import annotations

from benchmarks.peers import (
    executorch_xnnpack,
    inductor,
    onnxruntime,
    openvino,
    pyquant_peer,
    torch_float,
    torch_fx,
)
from benchmarks.peers.peer import Peer

#: By name. ``pyquant`` is what the others are compared with.
PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        torch_float.PEER,
        torch_fx.PEER,
        inductor.PEER,
        onnxruntime.FLOAT,
        onnxruntime.INT8,
        openvino.PEER,
        executorch_xnnpack.PEER,
        pyquant_peer.PEER,
    )
}

#: The packages whose versions a result depends on.
DISTRIBUTIONS = ("pyquant", "torch", "torchao", "onnxruntime", "openvino", "nncf", "executorch")
