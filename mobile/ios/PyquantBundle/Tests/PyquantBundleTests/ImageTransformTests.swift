import Foundation
import XCTest

@testable import PyquantBundle

final class ImageTransformTests: XCTestCase {
    private func transform(
        _ size: [Int], resize: [Int]? = nil, order: String = "GRAY",
        normalisation: String = #""mean": null, "std": null, "scale": 1.0"#
    ) throws -> ImageTransform {
        var bundle = TestBundle()
        bundle.inputShape = [1, order == "GRAY" ? 1 : 3] + size
        bundle.preprocessing = """
            {"resize": \(resize.map { "\($0)" } ?? "null"), "crop": \(size),
             "color_order": "\(order)", \(normalisation)}
            """
        return try ImageTransform(Manifest.parse(Data(bundle.manifest.utf8)))
    }

    private func grays(_ width: Int, _ values: UInt8...) -> PixelImage {
        PixelImage(
            width: width, height: values.count / width, rgbx: values.flatMap { [$0, $0, $0, 0] })
    }

    private func assertClose(_ expected: [Float], _ actual: [Float], line: UInt = #line) {
        XCTAssertEqual(expected.count, actual.count, line: line)
        for (a, b) in zip(expected, actual) { XCTAssertEqual(a, b, accuracy: 1e-3, line: line) }
    }

    func testCopiesAnImageOfTheRightSize() throws {
        assertClose([1, 2, 3, 4], try transform([2, 2]).apply(grays(2, 1, 2, 3, 4)))
    }

    /// The numbers are Pillow's: `Image.resize((3, 1), BILINEAR)` of a mode "F" image.
    func testAveragesWhenItMakesAnImageSmaller() throws {
        let image = grays(6, 0, 0, 90, 30, 0, 60, 0, 0, 90, 30, 0, 60)
        assertClose([12.857142, 45, 30], try transform([1, 3]).apply(image))
    }

    func testInterpolatesWhenItMakesAnImageLarger() throws {
        let expected = Array(repeating: [0, 25, 75, 100] as [Float], count: 4).flatMap { $0 }
        assertClose(expected, try transform([4, 4]).apply(grays(2, 0, 100, 0, 100)))
    }

    func testCutsOutTheCentre() throws {
        let wide = grays(6, 9, 9, 1, 2, 9, 9, 9, 9, 3, 4, 9, 9)
        assertClose([1, 2, 3, 4], try transform([2, 2]).apply(wide))
        let square = grays(4, 9, 9, 9, 9, 9, 1, 2, 9, 9, 3, 4, 9, 9, 9, 9, 9)
        assertClose([1, 2, 3, 4], try transform([2, 2], resize: [4, 4]).apply(square))
    }

    func testOrdersAndNormalisesTheChannels() throws {
        let image = PixelImage(width: 1, height: 1, rgbx: [10, 20, 30, 255])
        let normalisation = #""mean": [1, 2, 3], "std": [1, 2, 4], "scale": 0.5"#
        let rgb = try transform([1, 1], order: "RGB", normalisation: normalisation)
        assertClose([4, 4, 3], rgb.apply(image))
        let bgr = try transform([1, 1], order: "BGR", normalisation: normalisation)
        assertClose([14, 4, 0.5], bgr.apply(image))
        assertClose([18.15], try transform([1, 1]).apply(image))
    }

    func testRefusesABundleWithoutPreprocessing() throws {
        var bundle = TestBundle()
        bundle.preprocessing = "null"
        let manifest = try Manifest.parse(Data(bundle.manifest.utf8))
        assertBundleError("export it with preprocessing") { _ = try ImageTransform(manifest) }
    }

    func testRefusesSizesThatDoNotFit() throws {
        var bundle = TestBundle()
        bundle.inputShape = [1, 3, 8, 8]
        bundle.preprocessing = bundle.preprocessing.replacingOccurrences(
            of: #""crop": null"#, with: #""crop": [7, 8]"#)
        let manifest = try Manifest.parse(Data(bundle.manifest.utf8))
        assertBundleError("[7, 8]") { _ = try ImageTransform(manifest) }
    }
}
