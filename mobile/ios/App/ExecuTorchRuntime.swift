import ExecuTorch
import PyquantBundle

/// ExecuTorch with XNNPACK, for `model.pte`.
struct ExecuTorchRuntime: ModelRuntime {
    static let target = "executorch"

    private let module: Module
    private let shape: [Int]

    init(bundle: ModelBundle) throws {
        module = Module(filePath: bundle.model.path)
        shape = bundle.input.shape
        try module.load("forward")
    }

    func run(_ input: [Float]) throws -> [Float] {
        let output: Tensor<Float> = try module.forward(Tensor<Float>(input, shape: shape))
        return output.scalars()
    }
}
