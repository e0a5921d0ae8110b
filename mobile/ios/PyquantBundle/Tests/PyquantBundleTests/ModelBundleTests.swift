import Foundation
import XCTest

@testable import PyquantBundle

final class ModelBundleTests: XCTestCase {
    private var bundle = TestBundle()

    func testReadsTheFiles() throws {
        let loaded = try bundle.load()
        XCTAssertEqual(try Data(contentsOf: loaded.model), Data("a model".utf8))
        XCTAssertEqual(loaded.goldenOutput, [0, 4, -2])
        XCTAssertEqual(loaded.input.shape, [1, 3, 1, 2])
        XCTAssertEqual(loaded.manifest.tolerance.meanSteps, 2)
    }

    func testRefusesADamagedFile() {
        assertBundleError("model.pte is damaged") {
            _ = try bundle.load(replaced: ["model.pte": Data("another".utf8)])
        }
    }

    func testSaysThatThereIsNoBundle() {
        assertBundleError("no bundle in this app") {
            _ = try ModelBundle(folder: bundle.folder, target: "executorch")
        }
    }

    func testNamesAMissingTarget() {
        assertBundleError(#"no file for torchscript, only for ["executorch", "golden"]"#) {
            _ = try bundle.load(target: "torchscript")
        }
    }

    func testRefusesAFileOutsideTheBundle() {
        let outside = "../golden_output.bin"
        bundle.files[outside] = floats(0, 4, -2)
        let manifest = bundle.manifest.replacingOccurrences(
            of: "\"golden_output.bin\"", with: "\"\(outside)\"")
        bundle.files[outside] = nil
        assertBundleError("outside the bundle") {
            _ = try bundle.load(replaced: [Manifest.fileName: Data(manifest.utf8)])
        }
    }

    func testRefusesAnotherVersionAndWhatIsNoManifest() {
        bundle.version = 2
        assertBundleError("schema version 2") { _ = try bundle.load() }
        assertBundleError("damaged") { _ = try Manifest.parse(Data("{".utf8)) }
    }

    func testRefusesABatch() {
        bundle.inputShape = [2, 3, 1, 1]
        assertBundleError("an example of batch 1") { _ = try bundle.load() }
    }
}
