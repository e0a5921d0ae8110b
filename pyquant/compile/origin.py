"""Where dynamo's graphs come from in the user's code, and what ended them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
#: What dynamo calls the rest of a function behind a graph break.
_RESUMED = re.compile(r"^torch_dynamo_resume_in_(.*)_at_\d+$")
_NOT_OF_THE_USER = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


@dataclass(frozen=True)
class GraphBreak:
    """Why dynamo ended a graph before the code ends, and where."""

    reason: str
    location: str

    def __str__(self) -> str:
        return f"{self.location}: {self.reason}"


def break_of(module: fx.GraphModule) -> GraphBreak | None:
    """The break that ended a graph of dynamo's; ``None`` if the code ends there."""
    reason: Any = getattr(module, "compile_subgraph_reason", None)
    if reason is None or not reason.graph_break:
        return None
    frame = reason.user_stack[-1] if reason.user_stack else None
    where = "unknown code"
    if frame is not None:
        where = f"{frame.filename}:{frame.lineno} in {_own_name(frame.name)}"
    return GraphBreak(str(reason.reason).strip().splitlines()[0], where)


def location_of(graph: fx.Graph) -> str:
    """``FILE:LINE in FUNCTION``, the innermost of the first call; the line of the last one, too."""
    frames = [
        own[-1]
        for node in graph.nodes
        if node.op.startswith("call") and (own := _user_frames(node.stack_trace or ""))
    ]
    if not frames:
        return "unknown code"
    file, line, function = frames[0]
    last = max((int(at) for f, at, n in frames if (f, n) == (file, function)), default=int(line))
    lines = line if last <= int(line) else f"{line}-{last}"
    return f"{file}:{lines} in {_own_name(function)}"


def _user_frames(stack_trace: str) -> list[tuple[str, str, str]]:
    frames = _FRAME.findall(stack_trace)
    return [frame for frame in frames if not frame[0].startswith(_NOT_OF_THE_USER)] or frames


def _own_name(function: str) -> str:
    return _RESUMED.sub(r"\1", function)
