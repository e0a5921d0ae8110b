import PhotosUI
import PyquantBundle
import SwiftUI

struct ClassifierView: View {
    let model: ClassifierModel
    @State private var picked: PhotosPickerItem?
    @State private var showsCamera = false

    var body: some View {
        ScrollView {
            VStack(alignment: .leading, spacing: 12) {
                Text(model.modelName ?? "Loading…").font(.title2)
                if let test = model.selfTest { SelfTestView(test: test) }
                if let error = model.error { Text(error).foregroundStyle(.red) }
                buttons
                if model.busy { ProgressView() }
                if let photo = model.photo {
                    Image(decorative: photo.image, scale: 1)
                        .resizable()
                        .scaledToFit()
                        .frame(maxHeight: 320)
                }
                if let result = model.classification { ResultsView(result: result) }
            }
            .frame(maxWidth: .infinity, alignment: .leading)
            .padding()
        }
        .onChange(of: picked) { _, item in
            guard let item else { return }
            picked = nil
            Task { await model.classify { try await item.loadTransferable(type: Data.self) } }
        }
        .fullScreenCover(isPresented: $showsCamera) {
            CameraView { data in
                showsCamera = false
                Task { await model.classify { data } }
            }
            .ignoresSafeArea()
        }
    }

    private var buttons: some View {
        HStack(spacing: 12) {
            PhotosPicker("Pick a photo", selection: $picked, matching: .images)
            if CameraView.isAvailable {
                Button("Take a photo") { showsCamera = true }
            }
        }
        .buttonStyle(.borderedProminent)
        .disabled(!model.ready)
    }
}

private struct SelfTestView: View {
    let test: GoldenTest

    var body: some View {
        VStack(alignment: .leading) {
            Text(
                test.passed ? "Golden test passed" : "Golden test FAILED: do not trust the results"
            )
            .foregroundStyle(test.passed ? .green : .red)
            Text(
                """
                mean difference \(test.meanSteps, specifier: "%.3f") steps, \
                largest \(test.maxSteps, specifier: "%.1f"), \
                cosine \(test.cosine, specifier: "%.5f"), \
                \(test.sameClass ? "same" : "another") best class
                """
            )
            .font(.footnote)
        }
    }
}

private struct ResultsView: View {
    let result: Classification

    var body: some View {
        ForEach(Array(result.predictions.enumerated()), id: \.offset) { _, prediction in
            ProgressView(value: prediction.probability) {
                Text("\(prediction.name)  \(100 * prediction.probability, specifier: "%.1f") %")
            }
        }
        Text("\(result.latency / .milliseconds(1), specifier: "%.1f") ms, without preprocessing")
            .font(.footnote)
    }
}
