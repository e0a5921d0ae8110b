"""Runs a bundle's files as ARM64 would, on a machine that is none, and compares.

>>> results = prove(["bundle/"], torch_runtimes(["2.10.0", "1.13.1"]))   # doctest: +SKIP

QEMU translates every instruction, so that the numbers are an ARM CPU's (NEON and its dot product
included) and the latency says nothing. What runs in it comes from Debian and PyPI and is kept in
``~/.cache/pyquant/arm64``; nothing of it needs root or touches the system:

=================  ==============================================================================
``releases``       which torch runs on which Debian
``cached_folder``  folders that are complete, or not there
``userland``       fetches Debian packages and wheels for ARM64
``guest``          the script that runs inside, with torch and ExecuTorch only
``runtimes``       jobs for the emulator, and what it answers
``proof``          the comparison, by the same criterion as :func:`pyquant.mobile.verify`
=================  ==============================================================================
"""

from pyquant.mobile.arm64.proof import Comparison, Result, prove
from pyquant.mobile.arm64.releases import RELEASES, Release
from pyquant.mobile.arm64.runtimes import Runtime, core_runtimes, torch_runtimes

__all__ = [
    "RELEASES",
    "Comparison",
    "Release",
    "Result",
    "Runtime",
    "core_runtimes",
    "prove",
    "torch_runtimes",
]
