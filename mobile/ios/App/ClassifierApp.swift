import SwiftUI

@main
struct ClassifierApp: App {
    @State private var model = ClassifierModel()

    var body: some Scene {
        WindowGroup {
            ClassifierView(model: model)
                .task { await model.start() }
        }
    }
}
