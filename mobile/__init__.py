"""Quantized models for phones: one folder with a file for each runtime.

>>> bundle = pyquant.mobile.export(model, "bundle/", example_inputs=photo)   # doctest: +SKIP
>>> pyquant.mobile.verify("bundle/")                                        # doctest: +SKIP
>>> pyquant.mobile.export_platforms(model, "out/")   # out/android, out/ios, and a zip of each

The folder holds

=====================  ============================================================================
``model.pte``          ExecuTorch with XNNPACK (Android, iOS), for the shapes of the example inputs
``model.coreml.pte``   ExecuTorch with Core ML (iOS 17), if asked for; runs on Apple's systems only
``model.ptl``          PyTorch Mobile's lite interpreter with QNNPACK, from 1.13.1 on, any batch
``model.pt``           full TorchScript for LibTorch in C++, if asked for
``model.pyq``          pyquant's own runtime (C++ or Python)
``golden_input.bin``   raw little-endian float32, and what every file gives for it:
``golden_output.bin``
``manifest.json``      shapes, preprocessing, class names, SHA-256 sums, measured differences
=====================  ============================================================================

All files take float32 NCHW and return float32. In an app::

    // Android, ExecuTorch (org.pytorch:executorch-android)
    Module module = Module.load(path + "/model.pte");
    float[] scores = module.forward(EValue.from(Tensor.fromBlob(pixels, shape)))[0]
        .toTensor().getDataAsFloatArray();

    // Android, PyTorch Mobile (org.pytorch:pytorch_android_lite); QNNPACK is its engine
    Module module = LiteModuleLoader.load(path + "/model.ptl");
    float[] scores = module.forward(IValue.from(Tensor.fromBlob(pixels, shape)))
        .toTensor().getDataAsFloatArray();

    // C++, pyquant
    pyquant::Session session(pyquant::Program::load(path + "/model.pyq"));

At its first start an app should run ``golden_input.bin`` and compare with ``golden_output.bin``:
on average within the manifest's ``tolerance``, in units of the output's ``step``.
"""

from pyquant.mobile.bundle import Bundle
from pyquant.mobile.bundle import export_bundle as export
from pyquant.mobile.manifest import (
    Difference,
    FileRecord,
    Manifest,
    Preprocessing,
    TensorRecord,
    Tolerance,
)
from pyquant.mobile.platforms import PLATFORMS, Platform, export_platforms
from pyquant.mobile.targets import targets
from pyquant.mobile.verify import Verification, verify

__all__ = [
    "PLATFORMS",
    "Bundle",
    "Difference",
    "FileRecord",
    "Manifest",
    "Platform",
    "Preprocessing",
    "TensorRecord",
    "Tolerance",
    "Verification",
    "export",
    "export_platforms",
    "targets",
    "verify",
]
