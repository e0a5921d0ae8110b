"""``python -m pyquant`` is the ``pyquant`` command."""

from pyquant.cli import main

main(prog_name="python -m pyquant")
