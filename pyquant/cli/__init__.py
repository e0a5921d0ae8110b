"""The ``pyquant`` command."""

from __future__ import annotations

import gc
from typing import Any

import click

from pyquant.cli.arm64 import arm64
from pyquant.cli.bench import bench
from pyquant.cli.compare import compare
from pyquant.cli.console import show_error, silence_libraries
from pyquant.cli.cpp_options import folder_options
from pyquant.cli.demo import demo
from pyquant.cli.export import export
from pyquant.cli.inspection import inspect
from pyquant.cli.quantize import quantize
from pyquant.cli.report import report
from pyquant.cli.verify import verify
from pyquant.errors import PyquantError
from pyquant.version import __version__


class _Commands(click.Group):
    """Prints pyquant's own errors without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        silence_libraries()
        # Tracing makes millions of small objects that live on; looking for cycles among them costs
        # a quarter of an export.
        gc.set_threshold(200_000, 50, 100)
        try:
            return super().invoke(ctx)
        except PyquantError as error:
            show_error(str(error))
            ctx.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a newcomer needs them."""
        return list(self.commands)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pyquant")
@folder_options
def main() -> None:
    """Quantize PyTorch models to int8 and run them anywhere with the same numbers.

    Start with `pyquant demo`.
    """


_COMMANDS = (demo, quantize, inspect, bench, compare, report, export, verify, arm64)

for _command in _COMMANDS:
    main.add_command(_command)

__all__ = ["main"]
