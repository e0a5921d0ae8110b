"""Rewrites of a Program, one a file, none of which changes a bit of its outputs."""

from pyquant.ir.passes.fold_pad import fold_pad
from pyquant.ir.passes.fuse_channel_shuffle import fuse_channel_shuffle
from pyquant.ir.passes.fuse_clamp import fuse_clamp
from pyquant.ir.passes.remove_dead import remove_dead
from pyquant.ir.passes.remove_identity import remove_identity
from pyquant.ir.program import Program

#: In the order in which they run.
PASSES = (remove_identity, fuse_clamp, fold_pad, fuse_channel_shuffle, remove_dead)


def simplify(program: Program) -> Program:
    """Runs all passes."""
    for rewrite in PASSES:
        program = rewrite(program)
    return program


__all__ = [
    "PASSES",
    "fold_pad",
    "fuse_channel_shuffle",
    "fuse_clamp",
    "remove_dead",
    "remove_identity",
    "simplify",
]
