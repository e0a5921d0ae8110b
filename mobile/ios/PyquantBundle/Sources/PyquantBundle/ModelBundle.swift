import CryptoKit
import Foundation

/// A checked bundle in a folder.
public struct ModelBundle: Sendable {
    public let manifest: Manifest
    public let model: URL
    public let goldenInput: [Float]
    public let goldenOutput: [Float]

    public var input: TensorRecord { manifest.inputs[0] }
    public var output: TensorRecord { manifest.outputs[0] }

    /// Reads what `target` needs. Throws ``BundleError`` if a file is missing or damaged, or the
    /// model is no classifier of one image.
    public init(folder: URL, target: String) throws {
        let url = folder.appendingPathComponent(Manifest.fileName)
        guard let text = try? Data(contentsOf: url) else {
            throw BundleError(
                "There is no bundle in this app. Put one in (see README.md) and build again.")
        }
        let manifest = try Manifest.parse(text)
        try Self.requireClassifier(manifest)
        guard let record = manifest.files.first(where: { $0.target == target }) else {
            let targets = Set(manifest.files.map(\.target)).sorted()
            throw BundleError(
                "The bundle has no file for \(target), only for \(targets): export it with this target."
            )
        }
        func content(_ name: String) throws -> Data {
            guard let record = manifest.files.first(where: { $0.name == name }) else {
                throw BundleError("\(Manifest.fileName) does not describe \(name).")
            }
            return try Self.read(record, in: folder)
        }
        self.manifest = manifest
        model = folder.appendingPathComponent(record.name)
        _ = try content(record.name)
        goldenInput = try Self.floats(content(manifest.goldenInput), manifest.inputs[0].count)
        goldenOutput = try Self.floats(content(manifest.goldenOutput), manifest.outputs[0].count)
    }

    private static func requireClassifier(_ manifest: Manifest) throws {
        let inputs = manifest.inputs.map(\.shape)
        let outputs = manifest.outputs.map(\.shape)
        try demand(
            inputs.count == 1 && inputs[0].count == 4 && inputs[0][0] == 1,
            "This app needs a model of one image: export it with an example of batch 1. "
                + "This one takes \(inputs).")
        try demand(
            outputs.count == 1 && outputs[0].count == 2 && outputs[0][0] == 1,
            "This app needs a classifier; this model returns \(outputs).")
    }

    /// The content of one file, after a check of its size and SHA-256 sum.
    private static func read(_ record: FileRecord, in folder: URL) throws -> Data {
        try demand(
            (record.name as NSString).lastPathComponent == record.name && record.name != "..",
            "\(Manifest.fileName) names a file outside the bundle: \(record.name)")
        let url = folder.appendingPathComponent(record.name)
        guard let data = try? Data(contentsOf: url, options: .mappedIfSafe) else {
            throw BundleError("The bundle's \(record.name) cannot be read.")
        }
        let sum = SHA256.hash(data: data).map { String(format: "%02x", $0) }.joined()
        try demand(
            data.count == record.size && sum == record.sha256,
            "The bundle's \(record.name) is damaged: its size or SHA-256 sum is not the one in "
                + "\(Manifest.fileName).")
        return data
    }

    /// Little-endian float32; all of Apple's devices are little-endian.
    private static func floats(_ data: Data, _ count: Int) throws -> [Float] {
        let size = MemoryLayout<Float>.size
        try demand(
            data.count == count * size,
            "A golden file holds \(data.count / size) values instead of \(count).")
        return [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
            data.copyBytes(to: UnsafeMutableRawBufferPointer(buffer))
            initialized = count
        }
    }
}
