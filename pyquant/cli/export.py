"""``pyquant export``: a quantized model for phones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyquant.cli.console import megabytes, show, stage
from pyquant.cli.output import check_executorch, check_folder
from pyquant.errors import IoError

if TYPE_CHECKING:
    from pyquant.targets import QuantizedModule


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="A folder.")
@click.option("--android", "platforms", flag_value="android", multiple=True, help="OUTPUT/android.")
@click.option("--ios", "platforms", flag_value="ios", multiple=True, help="OUTPUT/ios.")
@click.option(
    "--coreml/--no-coreml",
    default=None,
    help="A Core ML variant for iOS; it is built, not run [default: if coremltools is there].",
)
@click.option("--example", metavar="DATA", help="Its first sample becomes the golden input.")
@click.option("--preprocess", type=click.Choice(["imagenet"]), help="For the app, and for images.")
@click.option(
    "--class-names", type=click.Path(path_type=Path), help="A text file, one name in a line."
)
@click.option(
    "--largest-batch", type=click.IntRange(1), help="The .pte file takes 1 to this [default: 1]."
)
def export(
    model: Path,
    output: Path,
    platforms: tuple[str, ...],
    coreml: bool | None,
    example: str | None,
    preprocess: str | None,
    class_names: Path | None,
    largest_batch: int | None,
) -> None:
    """Write bundles of MODEL for phone apps, each a folder and a zip of it.

    Without --android or --ios, both. Every file is run once and compared with the model, but for
    Core ML's, which only Apple's systems run.

    \b
    MODEL   a model.pyq, or a FILE.pt2 with a quantized graph (what pyquant.convert or another
            PT2E quantizer made, saved by torch.export.save)
    DATA    as for pyquant quantize
    """
    from pyquant import mobile
    from pyquant.cli.samples import ImagePreprocessing, load_samples
    from pyquant.mobile.quiet import quiet

    check_folder(output)
    check_executorch()
    preparation = ImagePreprocessing.imagenet() if preprocess else ImagePreprocessing()
    with stage(f"Loading {model}"):
        loaded = _load(model)
    program = loaded.program
    shape = None if program is None else program.tensors[program.inputs[0]].shape
    examples = None if example is None else load_samples(example, 1, shape, preparation)
    names = None if class_names is None else _lines(class_names)
    # ExecuTorch logs from C++, too.
    with stage("Exporting, and running every file once"), quiet():
        bundles = mobile.export_platforms(
            loaded,
            output,
            platforms=platforms or tuple(mobile.PLATFORMS),
            targets=_targets(coreml),
            example_inputs=examples,
            preprocessing=None if preprocess is None else preparation.for_apps(),
            class_names=names,
            largest_batch=largest_batch,
            progress=False,
        )
    for name, bundle in bundles.items():
        sizes = ", ".join(
            f"{record.name} {megabytes(record.size)}"
            for record in bundle.manifest.files
            if record.target != "golden"
        )
        show(f"wrote {bundle.path} and {name}.zip  [dim]{sizes}[/]")


def _targets(coreml: bool | None) -> tuple[str, ...] | None:
    from pyquant.mobile.bundle import DEFAULT_TARGETS

    if coreml is None:
        return None
    return (*DEFAULT_TARGETS, "coreml") if coreml else DEFAULT_TARGETS


def _load(path: Path) -> QuantizedModule:
    import pyquant
    from pyquant.cli.models import exported_program

    if path.suffix != ".pt2":
        return pyquant.load(path)
    from pyquant.quantization import pt2e  # noqa: F401  registers quantized_decomposed

    lowered = pyquant.lower(exported_program(path).module())
    if lowered.program is not None:
        lowered.program.name = path.stem
    return lowered


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise IoError(f"cannot read {path}: {error}") from error
