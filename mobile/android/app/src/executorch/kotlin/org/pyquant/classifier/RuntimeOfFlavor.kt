package org.pyquant.classifier

import org.pyquant.bundle.ModelBundle
import org.pyquant.bundle.ModelRuntime
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/** ExecuTorch with XNNPACK, for `model.pte`. */
class RuntimeOfFlavor(bundle: ModelBundle) : ModelRuntime {
    private val module = Module.load(bundle.model.path)
    private val shape = bundle.input.shape.map(Int::toLong).toLongArray()

    override fun run(input: FloatArray): FloatArray {
        val outputs = module.forward(EValue.from(Tensor.fromBlob(input, shape)))
        return outputs.single().toTensor().dataAsFloatArray
    }

    companion object {
        const val TARGET = "executorch"
    }
}
