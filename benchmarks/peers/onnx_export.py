"""The float network as an ONNX file, for the peers that start from one."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.peers.peer import Task

INPUT, OUTPUT = "input", "logits"


def export(task: Task) -> Path:
    """The file of ``task.model`` for the shape of ``task.x``."""

    def make(folder: Path) -> None:
        torch.onnx.export(
            task.model,
            (task.x,),
            folder / "model.onnx",
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamo=True,
            external_data=False,
            verbose=False,
        )

    return task.cache.folder("onnx", ("onnx", "onnxscript"), make) / "model.onnx"
