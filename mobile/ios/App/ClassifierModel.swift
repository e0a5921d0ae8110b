import Foundation
import Observation
import PyquantBundle

/// What the screen shows. The work runs in a ``Classifier``, off the main thread.
@MainActor
@Observable
final class ClassifierModel {
    private(set) var modelName: String?
    private(set) var selfTest: GoldenTest?
    private(set) var photo: Photo?
    private(set) var classification: Classification?
    private(set) var busy = false
    private(set) var error: String?

    private var classifier: Classifier?

    var ready: Bool { classifier != nil && !busy }

    /// Loads the bundle and runs the golden test, once.
    func start() async {
        guard classifier == nil else { return }
        await work {
            let classifier = try await Self.load()
            self.classifier = classifier
            self.modelName = classifier.bundle.manifest.modelName
            self.selfTest = try await classifier.selfTest()
        }
    }

    /// Classifies the image file that `data` gives.
    func classify(_ data: () async throws -> Data?) async {
        guard let classifier else { return }
        await work {
            guard let data = try await data() else { return }
            let side = classifier.transform.sufficientSide
            let (photo, pixels) = try await Self.read(data, sufficientSide: side)
            self.photo = photo
            self.classification = nil
            self.classification = try await classifier.classify(pixels)
        }
    }

    /// Runs `action` and shows what it throws.
    private func work(_ action: () async throws -> Void) async {
        busy = true
        error = nil
        do {
            try await action()
        } catch {
            self.error = error.localizedDescription
        }
        busy = false
    }

    private nonisolated static func load() async throws -> Classifier {
        let folder = Bundle.main.bundleURL.appendingPathComponent("bundle")
        let bundle = try ModelBundle(folder: folder, target: ExecuTorchRuntime.target)
        return try Classifier(bundle: bundle, load: ExecuTorchRuntime.init)
    }

    private nonisolated static func read(
        _ data: Data, sufficientSide: Int
    ) async throws -> (Photo, PixelImage) {
        let photo = try Photo(data: data, sufficientSide: sufficientSide)
        return (photo, try photo.pixels())
    }
}
