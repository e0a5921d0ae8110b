"""What a result has to say about the machine that it comes from."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

#: What decides how fast int8 can be, by the names of Linux's cpuinfo (x86, then ARM).
_ISA_FLAGS = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512vbmi",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)


def processor() -> str:
    """The CPU's name."""
    fields = _cpu_info()
    return fields.get("model name") or platform.processor() or platform.machine()


def isa_flags() -> list[str]:
    """The instruction sets that matter here and that this CPU has."""
    fields = _cpu_info()
    present = set((fields.get("flags") or fields.get("Features") or "").split())
    return [flag for flag in _ISA_FLAGS if flag in present]


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """The versions of those of ``distributions`` that are installed."""
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe(distributions: Iterable[str]) -> dict[str, str]:
    """The machine and the software, as rows of label and text."""
    return {
        "CPU": f"{processor()}, {os.cpu_count()} cores",
        "ISA": " ".join(isa_flags()) or platform.machine(),
        "System": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "Versions": ", ".join(f"{name} {text}" for name, text in versions(distributions).items()),
    }


def use_cores(count: int) -> None:
    """Confines this process, threads that it starts later included, to ``count`` of its cores.

    Some runtimes take a number of threads as a hint only; no peer can then use more than others.

    Raises:
        ValueError: There are fewer cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        raise ValueError(f"{count} threads need {count} cores; this process may use {len(cores)}")
    os.sched_setaffinity(0, cores[-count:])


def _cpu_info() -> dict[str, str]:
    """The first processor's fields of /proc/cpuinfo; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    fields: dict[str, str] = {}
    for line in path.read_text().splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields
