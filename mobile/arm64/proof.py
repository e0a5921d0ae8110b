"""The proof: what a bundle's files give on ARM64, beside this machine and the Program."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pyquant.errors import ExportError, InvalidInputError
from pyquant.mobile import compare, golden
from pyquant.mobile.arm64.runtimes import Job, Runtime
from pyquant.mobile.manifest import Difference, FileRecord, Manifest
from pyquant.mobile.quiet import quiet
from pyquant.mobile.runtimes import LOADERS
from pyquant.mobile.verify import read_bundle

#: What :attr:`Result.runtime` is for this machine.
HERE = "this machine"
_Outputs = list[Tensor]


@dataclass(frozen=True)
class Comparison:
    """Outputs of the golden input and of all samples, against others'.

    Attributes:
        difference: The largest over all inputs, the mean over them, and the smallest cosine.
        identical: To the bit.
        same_class: For how many inputs the first output is largest at the same place.
    """

    difference: Difference
    identical: bool
    same_class: int


@dataclass(frozen=True)
class Result:
    """One file on one runtime.

    Attributes:
        bundle: The folder.
        file, target: As in the manifest.
        runtime: What ran it, :data:`HERE` for this machine's.
        inputs: How many: the golden one, and the samples.
        from_program: Against the Program on this machine; of a bundle without one, the golden
            input against the golden output.
        from_here: Against the same file on this machine.
        error: Why it has failed, if it has.
    """

    bundle: str
    file: str
    target: str
    runtime: str
    inputs: int
    from_program: Comparison | None = None
    from_here: Comparison | None = None
    error: str | None = None


def prove(
    bundles: Sequence[str | os.PathLike[str]],
    runtimes: Sequence[Runtime],
    samples: Tensor | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Result]:
    """Runs the files of the bundles here and on every runtime that takes them, and compares.

    A result has an ``error`` if the file does not run, if its outputs for the golden input are not
    within the manifest's tolerance (:mod:`pyquant.mobile.compare`), or, for pyquant's own core, if
    any output is not this machine's to the bit. How samples differ is reported, not judged.

    Args:
        bundles: Folders.
        runtimes: Of :func:`torch_runtimes` and :func:`core_runtimes`.
        samples: Further inputs, float32 [N, ...], for bundles with one input.
        say: Is told what is being done.

    Raises :class:`ExportError` or :class:`IoError` if a bundle is not whole or one of its files
    does not run here, and :class:`InvalidInputError` if the samples do not fit.
    """
    with tempfile.TemporaryDirectory() as folder:
        measured = []
        for index, bundle in enumerate(bundles):
            say(f"running {bundle} on this machine")
            measured.append(_Measured(Path(bundle), samples, Path(folder) / f"{index}_inputs.bin"))
            yield from measured[-1].here()
        for runtime in runtimes:
            todo = [
                (one, record)
                for one in measured
                for record in one.manifest.files
                if record.target in runtime.targets
            ]
            jobs = [
                one.job(record, Path(folder) / f"{index}_outputs.bin")
                for index, (one, record) in enumerate(todo)
            ]
            answers = runtime.run(jobs)
            for (one, record), job in zip(todo, jobs, strict=True):
                label = runtime.label(record.target)
                say(f"running {one.path / record.name} on {label}")
                error = next(answers)
                yield one.judge(record, label, runtime.exact, Path(job.outputs), error)


class _Measured:
    """A bundle and what its files give on this machine."""

    def __init__(self, path: Path, samples: Tensor | None, input_file: Path) -> None:
        self.path = path
        self.manifest, golden_input, golden_output = read_bundle(path)
        self.inputs = [golden_input, *_fitting(samples, self.manifest, path)]
        self.input_file = input_file
        self.input_file.write_bytes(b"".join(map(golden.to_bytes, self.inputs)))
        self.outputs = {
            record.target: self._run(record)
            for record in self.manifest.files
            if record.target in LOADERS
        }
        self.expected = self.outputs.get("program", [golden_output])
        self.golden = golden_output
        self.steps = [record.step for record in self.manifest.outputs]

    def here(self) -> Iterator[Result]:
        """How this machine's files differ from the Program."""
        for record in self.manifest.files:
            if record.target in LOADERS and record.target != "program":
                yield self._result(record, HERE, self.outputs[record.target])

    def job(self, record: FileRecord, outputs: Path) -> Job:
        """The same in the emulator."""
        shapes = [tensor.shape for tensor in self.manifest.inputs]
        file = str((self.path / record.name).resolve())
        return Job(record.target, file, str(self.input_file), str(outputs), shapes)

    def judge(
        self, record: FileRecord, label: str, exact: bool, file: Path, error: str | None
    ) -> Result:
        """Compares what a runtime has written."""
        if error is not None:
            return self._failed(record, label, error)
        try:
            flat = golden.read(file, list(self.manifest.outputs) * len(self.inputs))
        except (ExportError, OSError) as problem:
            return self._failed(record, label, str(problem))
        count = len(self.manifest.outputs)
        actual = [flat[start : start + count] for start in range(0, len(flat), count)]
        result = self._result(record, label, actual)
        here = self._compare(self.outputs[record.target], actual)
        if exact and not here.identical:
            result = replace(result, error="not the same bits as on this machine")
        return replace(result, from_here=here)

    def _result(self, record: FileRecord, label: str, actual: Sequence[_Outputs]) -> Result:
        try:
            compare.check_outputs(
                record.target, self.golden, actual[0], self.steps, self.manifest.tolerance
            )
            error = None
        except ExportError as problem:
            error = str(problem)
        compared = self._compare(self.expected, actual)
        return replace(self._failed(record, label, error), from_program=compared)

    def _failed(self, record: FileRecord, label: str, error: str | None) -> Result:
        return Result(
            str(self.path), record.name, record.target, label, len(self.inputs), error=error
        )

    def _compare(self, expected: Sequence[_Outputs], actual: Sequence[_Outputs]) -> Comparison:
        """Of the inputs that both have."""
        pairs = list(zip(expected, actual, strict=False))
        found = [compare.worst(a, b, self.steps) for a, b in pairs]
        return Comparison(
            Difference(
                max_steps=max(difference.max_steps for difference in found),
                mean_steps=sum(difference.mean_steps for difference in found) / len(found),
                cosine=min(difference.cosine for difference in found),
            ),
            all(torch.equal(x, y) for a, b in pairs for x, y in zip(a, b, strict=True)),
            sum(bool(torch.equal(a[0].argmax(-1), b[0].argmax(-1))) for a, b in pairs),
        )

    def _run(self, record: FileRecord) -> list[_Outputs]:
        with quiet():  # torch warns from C++
            loaded = LOADERS[record.target](self.path / record.name)
            return [loaded.run(inputs) for inputs in self.inputs]


def _fitting(samples: Tensor | None, manifest: Manifest, path: Path) -> list[list[Tensor]]:
    if samples is None:
        return []
    shapes = [record.shape for record in manifest.inputs]
    if len(shapes) != 1 or shapes[0] != (1, *samples.shape[1:]):
        raise InvalidInputError(
            f"{path} takes inputs of shapes {shapes}; samples of shape {tuple(samples.shape)} are "
            "for one of them, with batch size 1"
        )
    return [[sample] for sample in torch.split(samples.float(), 1)]
