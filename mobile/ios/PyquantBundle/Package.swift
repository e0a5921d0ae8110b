// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "PyquantBundle",
    platforms: [.iOS(.v17), .macOS(.v13)],
    products: [.library(name: "PyquantBundle", targets: ["PyquantBundle"])],
    targets: [
        .target(name: "PyquantBundle"),
        .testTarget(name: "PyquantBundleTests", dependencies: ["PyquantBundle"]),
    ]
)
