"""The torch releases that can be emulated, and what each needs: a table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Debian:
    """A Debian release, taken for its Python.

    Attributes:
        suite: The code name.
        python: Such as ``"3.11"``.
    """

    suite: str
    python: str

    @property
    def packages(self) -> tuple[str, ...]:
        """What is installed, besides what that depends on."""
        return (
            f"python{self.python}-minimal",
            f"libpython{self.python}-stdlib",
            "libstdc++6",
            "libgomp1",
        )


@dataclass(frozen=True)
class Release:
    """A torch release with wheels for ARM64.

    Attributes:
        debian: Whose Python it runs in.
        wheels: All of them, pinned: what they depend on is not resolved, because pip would do
            that for the machine that it runs on.
        targets: What it runs: the bundle's files by their target.
    """

    debian: Debian
    wheels: tuple[str, ...]
    targets: tuple[str, ...] = ("torchscript",)


_BOOKWORM = Debian("bookworm", "3.11")
#: torch 1.13 has no ARM64 wheel for Python 3.11, the oldest in bookworm.
_BULLSEYE = Debian("bullseye", "3.9")
_TYPING = "typing_extensions==4.12.2"

#: By torch's version. 2.10 has the last ARM64 wheel without CUDA; ExecuTorch 1.1 fits it.
RELEASES: dict[str, Release] = {
    "2.10.0": Release(
        _BOOKWORM,
        ("torch==2.10.0", "executorch==1.1.0", _TYPING),
        targets=("torchscript", "executorch"),
    ),
    "2.1.2": Release(_BOOKWORM, ("torch==2.1.2", "sympy==1.12", "mpmath==1.3.0", _TYPING)),
    "1.13.1": Release(_BULLSEYE, ("torch==1.13.1", _TYPING)),
}
#: What runs unless told otherwise: all files, in one process.
DEFAULT_RELEASE = "2.10.0"
