package org.pyquant.classifier

import org.pyquant.bundle.ModelBundle
import org.pyquant.bundle.ModelRuntime
import org.pytorch.IValue
import org.pytorch.LiteModuleLoader
import org.pytorch.Tensor

/** PyTorch Mobile's lite interpreter, whose engine is QNNPACK, for `model.ptl`. */
class RuntimeOfFlavor(bundle: ModelBundle) : ModelRuntime {
    private val module = LiteModuleLoader.load(bundle.model.path)
    private val shape = bundle.input.shape.map(Int::toLong).toLongArray()

    override fun run(input: FloatArray): FloatArray =
        module.forward(IValue.from(Tensor.fromBlob(input, shape))).toTensor().dataAsFloatArray

    companion object {
        const val TARGET = "torchscript"
    }
}
