import Foundation

/// A loaded model. Not for use by two threads at the same time.
public protocol ModelRuntime {
    /// Runs the model on one input, row-major; returns its one output.
    func run(_ input: [Float]) throws -> [Float]
}

public struct Prediction: Equatable, Sendable {
    public let name: String
    public let probability: Double
}

/// The most likely classes, best first, and how long the model took: the median of some runs.
public struct Classification: Sendable {
    public let predictions: [Prediction]
    public let latency: Duration
}

/// Classifies images with the model of a bundle, one after the other and off the main thread.
public actor Classifier {
    public nonisolated let bundle: ModelBundle
    public nonisolated let transform: ImageTransform
    private let runtime: any ModelRuntime
    private static let runs = 9
    private static let shown = 5

    /// - Parameter load: Loads the model.
    public init(bundle: ModelBundle, load: (ModelBundle) throws -> any ModelRuntime) throws {
        self.bundle = bundle
        transform = try ImageTransform(bundle.manifest)
        runtime = try load(bundle)
    }

    /// Runs the golden input; throws ``BundleError`` if the output cannot be compared.
    public func selfTest() throws -> GoldenTest {
        try GoldenTest(
            golden: bundle.goldenOutput, actual: runtime.run(bundle.goldenInput),
            step: bundle.output.step, tolerance: bundle.manifest.tolerance)
    }

    public func classify(_ image: PixelImage) throws -> Classification {
        let input = transform.apply(image)
        let clock = ContinuousClock()
        var scores: [Float] = []
        let durations = try (0..<Self.runs).map { _ in
            try clock.measure { scores = try runtime.run(input) }
        }
        return Classification(
            predictions: best(scores), latency: durations.sorted()[Self.runs / 2])
    }

    private func best(_ scores: [Float]) -> [Prediction] {
        let names = bundle.manifest.classNames ?? []
        let ranked = probabilities(scores).enumerated().sorted { $0.element > $1.element }
        return ranked.prefix(Self.shown).map { index, value in
            let name = names.indices.contains(index) ? names[index] : "class \(index)"
            return Prediction(name: name, probability: value)
        }
    }
}

/// The softmax of `scores`, unless they all lie in 0...1: then the model ends with one itself.
func probabilities(_ scores: [Float]) -> [Double] {
    if scores.allSatisfy((0...1).contains) { return scores.map(Double.init) }
    let largest = scores.max() ?? 0
    let powers = scores.map { exp(Double($0 - largest)) }
    let total = powers.reduce(0, +)
    return powers.map { $0 / total }
}
