"""Types of the C++ module; see ``csrc/bindings``."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pyquant.ir.ops import Op

def engines() -> list[str]: ...
def isa() -> str: ...
def measure_peak(seconds: float = 0.05) -> float | None: ...

class Program:
    @staticmethod
    def load(path: str) -> Program: ...
    @staticmethod
    def from_bytes(data: bytes) -> Program: ...
    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> list[dict[str, Any]]: ...
    @property
    def outputs(self) -> list[dict[str, Any]]: ...

class Session:
    def __init__(self, program: Program, engine: str = "auto", threads: int = 1) -> None: ...
    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]: ...
    def profile(
        self, inputs: Sequence[Tensor]
    ) -> list[tuple[list[int], list[tuple[int, ...]], float]]: ...
    @property
    def node_engines(self) -> list[str]: ...
    @property
    def arena_bytes(self) -> int: ...

class Kernel:
    def __init__(
        self,
        op: Op,
        inputs: Sequence[tuple[float, int] | None],
        output: tuple[float, int] | None,
        *,
        weight: Tensor | None = None,
        weight_scales: Sequence[float] = (),
        bias: Tensor | None = None,
        engine: str = "auto",
        threads: int = 1,
        name: str = "kernel",
    ) -> None: ...
    def run(self, inputs: Sequence[Tensor]) -> Tensor: ...
    @property
    def engine(self) -> str: ...

def fold_batch_norm(
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    beta: Tensor,
    epsilon: float,
) -> tuple[Tensor, Tensor]: ...
def least_squares_scales(weight: Tensor) -> Tensor: ...
def quantize_weight(
    weight: Tensor, bias: Tensor, input_scale: float
) -> tuple[Tensor, Tensor, Tensor]: ...
