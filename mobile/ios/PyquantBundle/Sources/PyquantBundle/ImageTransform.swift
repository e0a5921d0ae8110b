import Foundation

/// An image in sRGB, four bytes (red, green, blue, ignored) a pixel, row by row.
public struct PixelImage: Sendable {
    public let width: Int
    public let height: Int
    public let rgbx: [UInt8]

    public init(width: Int, height: Int, rgbx: [UInt8]) {
        precondition(rgbx.count == 4 * width * height)
        self.width = width
        self.height = height
        self.rgbx = rgbx
    }
}

/// What the input's channels are.
public enum ColorOrder: String, Decodable, Sendable {
    case rgb = "RGB"
    case bgr = "BGR"
    case gray = "GRAY"

    /// The weights of red, green and blue in each channel; gray is the luma of ITU-R BT.601, as in
    /// Pillow's mode "L".
    var channels: [[Float]] {
        switch self {
        case .rgb: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
        case .bgr: [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
        case .gray: [[0.299, 0.587, 0.114]]
        }
    }
}

/// Makes the model's input from an image, as torchvision's `Resize`, `CenterCrop` and `Normalize`.
///
/// The image is resized with its proportions kept until it just covers `resize`, and the centre of
/// size `crop` (without one: `resize`) is cut out.
public struct ImageTransform: Sendable {
    private let channels: [[Float]]
    private let resize: [Int]
    private let height: Int
    private let width: Int
    private let scale: Double
    private let mean: [Double]
    private let std: [Double]

    /// Throws ``BundleError`` if the manifest does not say how, or its sizes do not fit the input.
    public init(_ manifest: Manifest) throws {
        guard let preprocessing = manifest.preprocessing else {
            throw BundleError(
                "The bundle does not say how to make the input from an image: "
                    + "export it with preprocessing=….")
        }
        let shape = manifest.inputs[0].shape
        let size = Array(shape.suffix(2))
        channels = preprocessing.colorOrder.channels
        resize = preprocessing.resize ?? preprocessing.crop ?? size
        let crop = preprocessing.crop ?? resize
        try demand(
            crop == size && shape[1] == channels.count,
            "The preprocessing gives \(channels.count) channels of \(crop); the model takes \(shape)."
        )
        try demand(
            resize[0] >= crop[0] && resize[1] >= crop[1],
            "The crop \(crop) is larger than the resized image \(resize).")
        height = size[0]
        width = size[1]
        scale = preprocessing.scale
        mean = preprocessing.mean ?? channels.map { _ in 0 }
        std = preprocessing.std ?? channels.map { _ in 1 }
        try demand(
            mean.count == channels.count && std.count == channels.count,
            "The preprocessing needs a mean and a std for each of \(channels.count) channels.")
    }

    /// The shorter side that an image should have at least, so that nothing is lost.
    public var sufficientSide: Int { max(resize[0], resize[1]) }

    /// The input, float32 `[1, channels, height, width]`.
    public func apply(_ image: PixelImage) -> [Float] {
        let resized = covering(image)
        let columns = Self.centred(size: image.width, resized: resized.width, count: width)
        let rows = Self.centred(size: image.height, resized: resized.height, count: height)
        var output: [Float] = []
        output.reserveCapacity(channels.count * height * width)
        for (channel, mix) in channels.enumerated() {
            let narrow = (0..<image.height).map { y in
                let line = (0..<image.width).map { x in
                    let pixel = 4 * (y * image.width + x)
                    return mix[0] * Float(image.rgbx[pixel]) + mix[1] * Float(image.rgbx[pixel + 1])
                        + mix[2] * Float(image.rgbx[pixel + 2])
                }
                return columns.map { window in window.sum { line[$0] } }
            }
            for row in rows {
                for x in 0..<width {
                    let pixel = Double(row.sum { narrow[$0][x] })
                    output.append(Float((pixel * scale - mean[channel]) / std[channel]))
                }
            }
        }
        return output
    }

    /// The resized image's size: `resize`, but one side of it larger to keep the shape.
    private func covering(_ image: PixelImage) -> (height: Int, width: Int) {
        let (height, width) = (resize[0], resize[1])
        return height * image.width >= width * image.height
            ? (height, image.width * height / image.height)
            : (image.height * width / image.width, width)
    }

    /// The source pixels from `first` on that one output pixel is made of.
    private struct Window {
        let first: Int
        let weights: [Float]

        func sum(_ value: (Int) -> Float) -> Float {
            var total: Float = 0
            for (index, weight) in weights.enumerated() { total += weight * value(first + index) }
            return total
        }
    }

    /// A window for each of the `count` pixels in the middle of `resized` pixels, which `size`
    /// source pixels are resized to. The filter is a triangle two output pixels wide (but two
    /// source pixels at least): bilinear with antialiasing, as in Pillow.
    private static func centred(size: Int, resized: Int, count: Int) -> [Window] {
        let step = Double(size) / Double(resized)
        let reach = max(step, 1)
        let offset = (Double(resized - count) / 2).rounded(.toNearestOrEven)
        return (0..<count).map { index in
            let center = (offset + Double(index) + 0.5) * step
            let first = max(Int(center - reach + 0.5), 0)
            let end = min(Int(center + reach + 0.5), size)
            let weights = (first..<end).map { max(0, 1 - abs(Double($0) + 0.5 - center) / reach) }
            let total = weights.reduce(0, +)
            return Window(first: first, weights: weights.map { Float($0 / total) })
        }
    }
}
