import Foundation
import XCTest

@testable import PyquantBundle

final class ClassifierTests: XCTestCase {
    private final class Fixed: ModelRuntime {
        let output: [Float]
        private(set) var input: [Float] = []

        init(_ output: [Float]) {
            self.output = output
        }

        func run(_ input: [Float]) -> [Float] {
            self.input = input
            return output
        }
    }

    private func classifier(_ runtime: Fixed) throws -> Classifier {
        try Classifier(bundle: TestBundle().load()) { _ in runtime }
    }

    private func selfTest(_ output: Float...) async throws -> GoldenTest {
        try await classifier(Fixed(output)).selfTest()
    }

    func testNamesTheBestClasses() async throws {
        let runtime = Fixed([0, 2, 1])
        let black = PixelImage(width: 2, height: 1, rgbx: Array(repeating: 0, count: 8))
        let predictions = try await classifier(runtime).classify(black).predictions
        XCTAssertEqual(predictions.map(\.name), ["dog", "fox", "cat"])
        XCTAssertEqual(predictions[0].probability, exp(2) / (1 + exp(1) + exp(2)), accuracy: 1e-9)
        XCTAssertEqual(runtime.input, Array(repeating: -127.0 / 128, count: 6))
    }

    func testKeepsProbabilities() {
        XCTAssertEqual(probabilities([0.25, 0.75]), [0.25, 0.75])
        XCTAssertEqual(probabilities([1000, 1000]), [0.5, 0.5])
    }

    func testPassesTheGoldenOutputAndWhatIsNear() async throws {
        let same = try await selfTest(0, 4, -2)
        XCTAssertTrue(same.passed && same.sameClass)
        XCTAssertEqual([same.meanSteps, same.maxSteps, same.cosine], [0, 0, 1])
        let near = try await selfTest(0.5, 4, -1)
        XCTAssertEqual([near.meanSteps, near.maxSteps], [1, 2])
        XCTAssertTrue(near.passed)
    }

    func testFailsAShiftAnotherDirectionAndAnotherClass() async throws {
        let shifted = try await selfTest(1.5, 5.5, -0.5)
        XCTAssertFalse(shifted.passed)
        let turned = try await selfTest(2, 3, 0)
        XCTAssertTrue(turned.cosine < 0.9 && !turned.passed)
        let tolerant = Tolerance(meanSteps: 2, cosine: -1)
        let golden: [Float] = [0, 2.5, 0]
        let other = try GoldenTest(
            golden: golden, actual: [0.1, 0, 0], step: 0.5, tolerance: tolerant)
        XCTAssertFalse(other.sameClass || other.passed)
        let near = try GoldenTest(
            golden: golden, actual: [2.6, 2.5, 0], step: 1, tolerance: tolerant)
        XCTAssertTrue(near.sameClass)
    }

    func testRefusesWhatCannotBeCompared() async {
        for output: [Float] in [[0, 4], [0, .nan, 0]] {
            do {
                _ = try await classifier(Fixed(output)).selfTest()
                XCTFail("\(output) was compared")
            } catch {
                XCTAssertTrue(error is BundleError)
            }
        }
    }
}
