"""``pyquant verify``: does every file of a bundle compute what the model computed?"""

from __future__ import annotations

from pathlib import Path

import click

from pyquant.cli.console import megabytes, new_table, show, stage


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
def verify(bundle: Path) -> None:
    """Check that a bundle is whole and its files agree.

    Compares the SHA-256 sums, then runs each model file in its own runtime on the golden input.
    """
    from pyquant import mobile
    from pyquant.mobile.quiet import quiet

    # The runtimes log from C++, too.
    with stage("Running the bundle's files"), quiet():
        verification = mobile.verify(bundle)
    table = new_table(
        f"{bundle}: {verification.manifest.model_name}",
        "file",
        "runtime",
        "size",
        "largest difference",
        "mean",
        "cosine",
        right=("size", "largest difference", "mean", "cosine"),
    )
    for record in verification.manifest.files:
        difference = verification.differences.get(record.target)
        cells = ["", "", ""]
        if difference is not None:
            cells = [
                f"{difference.max_steps:.1f} steps",
                f"{difference.mean_steps:.3f}",
                f"{difference.cosine:.5f}",
            ]
        elif record.target in verification.not_run:
            cells[0] = "not run"
        table.add_row(record.name, record.runtime, megabytes(record.size), *cells)
    show(table)
    show(
        f"[green]All {len(verification.manifest.files)} files are whole, and "
        f"{len(verification.differences)} of them were run and agree.[/]"
    )
    for target, reason in verification.not_run.items():
        show(f"[yellow]The {target} file was not run: {reason}.[/]")
