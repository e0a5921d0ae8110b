import CryptoKit
import Foundation
import XCTest

@testable import PyquantBundle

/// A bundle on disk: a model of 1×2 RGB pixels and three classes.
struct TestBundle {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    var files = [
        "model.pte": Data("a model".utf8),
        "golden_input.bin": floats(1, 2, 3, 4, 5, 6),
        "golden_output.bin": floats(0, 4, -2),
    ]
    var preprocessing = """
        {"resize": null, "crop": null, "mean": [127, 127, 127], "std": [128, 128, 128],
         "scale": 1.0, "color_order": "RGB"}
        """
    var inputShape = [1, 3, 1, 2]
    var version = 1

    var manifest: String {
        let records = files.sorted { $0.key < $1.key }.map { name, content in
            let target = name.hasPrefix("model") ? "executorch" : "golden"
            let sum = SHA256.hash(data: content).map { String(format: "%02x", $0) }.joined()
            return """
                {"name": "\(name)", "target": "\(target)", "size": \(content.count),
                 "sha256": "\(sum)"}
                """
        }
        return """
            {"format": "pyquant-bundle", "schema_version": \(version), "model_name": "tiny",
             "created_by": "a test",
             "inputs": [{"name": "input_0", "shape": \(inputShape), "dtype": "float32",
                         "layout": "NCHW", "step": 1.0}],
             "outputs": [{"name": "output_0", "shape": [1, 3], "dtype": "float32",
                          "layout": "row-major", "step": 0.5}],
             "files": [\(records.joined(separator: ","))],
             "tolerance": {"mean_steps": 2.0, "cosine": 0.9},
             "golden_input": "golden_input.bin", "golden_output": "golden_output.bin",
             "preprocessing": \(preprocessing), "class_names": ["cat", "dog", "fox"]}
            """
    }

    /// Writes the bundle; `replaced` files have another content than the manifest says.
    func load(target: String = "executorch", replaced: [String: Data] = [:]) throws -> ModelBundle {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        var stored = files
        stored[Manifest.fileName] = Data(manifest.utf8)
        for (name, content) in stored.merging(replaced, uniquingKeysWith: { $1 }) {
            try content.write(to: folder.appendingPathComponent(name))
        }
        return try ModelBundle(folder: folder, target: target)
    }
}

func floats(_ values: Float...) -> Data {
    values.withUnsafeBytes { Data($0) }
}

func assertBundleError(
    _ part: String, file: StaticString = #filePath, line: UInt = #line, _ action: () throws -> Void
) {
    XCTAssertThrowsError(try action(), file: file, line: line) { error in
        let message = (error as? BundleError)?.errorDescription ?? "\(error)"
        XCTAssertTrue(message.contains(part), message, file: file, line: line)
    }
}
