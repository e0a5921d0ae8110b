"""OpenVINO int8, quantized by NNCF.

NNCF's post-training quantization with its default preset; the latency hint with one stream, and
inference on tensors that are shared, not copied. OpenVINO's own kernels and oneDNN's use
AVX512-VNNI or AMX-INT8 where the CPU has them.
https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.peers.peer import Peer, Task, Variant


def _prepare(task: Task) -> list[Variant]:
    import openvino

    def make(folder: Path) -> None:
        _quantize(task, folder / "model.xml")

    path = task.cache.folder("openvino", ("openvino", "nncf"), make) / "model.xml"
    compiled = openvino.Core().compile_model(
        str(path),
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": task.threads,
            "NUM_STREAMS": 1,
            # The process is confined to its cores already; pinning picks cores by itself.
            "ENABLE_CPU_PINNING": False,
        },
    )
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(task.x.numpy(), shared_memory=True))
    logits = request.get_output_tensor().data

    def call() -> Any:
        request.infer(share_inputs=True, share_outputs=True)
        return logits

    return [Variant("latency", call)]


def _quantize(task: Task, target: Path) -> None:
    import nncf
    import openvino

    model = openvino.convert_model(task.model, example_input=task.x, input=[tuple(task.x.shape)])
    quantized = nncf.quantize(
        model,
        nncf.Dataset(task.calibration, lambda x: x.numpy()),
        subset_size=len(task.calibration),
    )
    openvino.save_model(quantized, target, compress_to_fp16=False)


PEER = Peer("openvino", "OpenVINO int8", _prepare, ("openvino", "nncf"))
