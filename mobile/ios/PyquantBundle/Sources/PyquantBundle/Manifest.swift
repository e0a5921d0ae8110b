import Foundation

/// What is wrong with a bundle, in words for the person who put it into the app.
public struct BundleError: LocalizedError {
    public let errorDescription: String?

    init(_ message: String) {
        errorDescription = message
    }
}

func demand(_ condition: Bool, _ message: @autoclosure () -> String) throws {
    if !condition { throw BundleError(message()) }
}

/// The fields of a bundle's `manifest.json` that an app needs. Types and fields have the names that
/// they have in `pyquant.mobile.manifest`, where they are described.
public struct Manifest: Decodable, Sendable {
    public let format: String
    public let schemaVersion: Int
    public let modelName: String
    public let inputs: [TensorRecord]
    public let outputs: [TensorRecord]
    public let files: [FileRecord]
    public let tolerance: Tolerance
    public let goldenInput: String
    public let goldenOutput: String
    public let preprocessing: Preprocessing?
    public let classNames: [String]?

    public static let fileName = "manifest.json"
    private static let knownFormat = "pyquant-bundle"
    private static let knownSchemaVersion = 1

    /// Throws ``BundleError`` if `data` is no manifest, or one of another version.
    public static func parse(_ data: Data) throws -> Manifest {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let manifest: Manifest
        do {
            manifest = try decoder.decode(Manifest.self, from: data)
        } catch {
            throw BundleError("\(fileName) is damaged: \(error)")
        }
        try demand(
            manifest.format == knownFormat, "\(fileName) is not a pyquant bundle's manifest.")
        try demand(
            manifest.schemaVersion == knownSchemaVersion,
            "\(fileName) has schema version \(manifest.schemaVersion); this app reads version "
                + "\(knownSchemaVersion).")
        return manifest
    }
}

public struct TensorRecord: Decodable, Sendable {
    public let shape: [Int]
    public let dtype: String
    public let layout: String
    public let step: Double

    public var count: Int { shape.reduce(1, *) }
}

public struct FileRecord: Decodable, Sendable {
    public let name: String
    public let target: String
    public let size: Int
    public let sha256: String
}

public struct Tolerance: Decodable, Sendable {
    public let meanSteps: Double
    public let cosine: Double
}

public struct Preprocessing: Decodable, Sendable {
    public let resize: [Int]?
    public let crop: [Int]?
    public let mean: [Double]?
    public let std: [Double]?
    public let scale: Double
    public let colorOrder: ColorOrder
}
