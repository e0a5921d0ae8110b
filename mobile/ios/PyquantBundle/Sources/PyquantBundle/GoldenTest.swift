import Foundation

/// How far a model's output is from the golden one; the same criterion as `pyquant verify`.
public struct GoldenTest: Equatable, Sendable {
    /// Mean absolute difference in quantization steps.
    public let meanSteps: Double
    /// The largest difference; reported, not judged.
    public let maxSteps: Double
    public let cosine: Double
    /// Whether the best class is the same, or so near to it that two differences within the
    /// tolerance overturn them.
    public let sameClass: Bool
    public let passed: Bool

    /// Compares two outputs of the same size; `step` is one quantization step.
    public init(golden: [Float], actual: [Float], step: Double, tolerance: Tolerance) throws {
        try demand(
            golden.count == actual.count,
            "The model returns \(actual.count) values instead of \(golden.count).")
        try demand(
            actual.allSatisfy(\.isFinite), "The model returns values that are not finite.")
        let steps = zip(golden, actual).map { abs(Double($0) - Double($1)) / step }
        let norms = (Self.dot(golden, golden) * Self.dot(actual, actual)).squareRoot()
        meanSteps = steps.reduce(0, +) / Double(steps.count)
        maxSteps = steps.max() ?? 0
        cosine = norms > 0 ? Self.dot(golden, actual) / norms : (golden == actual ? 1 : 0)
        let chosen = actual.indices.max { actual[$0] < actual[$1] }!
        sameClass = Double(golden.max()! - golden[chosen]) <= 2 * tolerance.meanSteps * step
        passed = meanSteps <= tolerance.meanSteps && cosine >= tolerance.cosine && sameClass
    }

    private static func dot(_ a: [Float], _ b: [Float]) -> Double {
        zip(a, b).reduce(0) { $0 + Double($1.0) * Double($1.1) }
    }
}
