"""Options that print a folder of the C++ side and do nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pyquant import cpp_package

_FOLDERS: dict[str, tuple[Callable[[], Path], str]] = {
    "--cmake-dir": (cpp_package.cmake_dir, "Print the folder of pyquantConfig.cmake and exit."),
    "--include-dir": (cpp_package.include_dir, "Print the folder of the C++ headers and exit."),
    "--library-dir": (cpp_package.library_dir, "Print the folder of the libraries and exit."),
}


def _printer(folder: Callable[[], Path]) -> Callable[[click.Context, click.Parameter, bool], None]:
    """Prints the folder where the option is given."""

    def show(context: click.Context, _: click.Parameter, given: bool) -> None:
        if given:
            click.echo(folder())
            context.exit()

    return show


def folder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a command."""
    for name, (folder, text) in reversed(_FOLDERS.items()):
        command = click.option(
            name,
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_printer(folder),
            help=text,
        )(command)
    return command
