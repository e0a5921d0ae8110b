"""ONNX Runtime: float32, and static int8 as a QDQ graph.

Settings after its quantization guide: pre-processed graph, uint8 activations, int8 weights per
channel, calibration by minima and maxima; all graph optimizations; tensors bound once.
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.onnx_export import INPUT, OUTPUT, export
from benchmarks.peers.peer import Peer, Task, Variant

_MODULES = ("onnx", "onnxscript", "onnxruntime")


def _prepare_float(task: Task) -> list[Variant]:
    return [_session(task, export(task))]


def _prepare_int8(task: Task) -> list[Variant]:
    return [_session(task, int8_file(task))]


def int8_file(task: Task) -> Path:
    """The int8 network for the shape of ``task.x``."""

    def make(folder: Path) -> None:
        _quantize(task, export(task), folder / "model.onnx")

    folder = task.cache.folder("onnxruntime", ("onnx", "onnxscript", "onnxruntime"), make)
    return folder / "model.onnx"


def _quantize(task: Task, source: Path, target: Path) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._inputs = iter(task.calibration)

        def get_next(self) -> dict[str, Any] | None:
            x = next(self._inputs, None)
            return None if x is None else {INPUT: x.numpy()}

    processed = target.with_name("processed.onnx")
    quant_pre_process(str(source), str(processed))
    quantization.quantize_static(
        str(processed),
        str(target),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
    )
    processed.unlink()


def _session(task: Task, path: Path) -> Variant:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    x = onnxruntime.OrtValue.ortvalue_from_numpy(task.x.numpy())
    shape = [int(size) for size in session.get_outputs()[0].shape]
    logits = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cpu")
    binding.bind_ortvalue_input(INPUT, x)
    binding.bind_ortvalue_output(OUTPUT, logits)

    def call() -> Any:
        session.run_with_iobinding(binding)
        return logits.numpy()

    return Variant("bound", call)


FLOAT = Peer("onnxruntime_float", "ONNX Runtime fp32", _prepare_float, _MODULES)
INT8 = Peer("onnxruntime", "ONNX Runtime int8", _prepare_int8, _MODULES)
