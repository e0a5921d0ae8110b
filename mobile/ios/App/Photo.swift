import CoreGraphics
import Foundation
import ImageIO
import PyquantBundle

/// A photo that was picked or taken.
struct Photo {
    struct Unreadable: LocalizedError {
        let errorDescription: String? = "This is no image that can be read."
    }

    let image: CGImage

    /// Reads an image file upright, made smaller while it is decoded, but so that its shorter side
    /// keeps twice `sufficientSide`: the antialiasing is left to the model's preprocessing.
    init(data: Data, sufficientSide: Int) throws {
        guard let source = CGImageSourceCreateWithData(data as CFData, nil),
            let properties = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any],
            let width = properties[kCGImagePropertyPixelWidth] as? Int,
            let height = properties[kCGImagePropertyPixelHeight] as? Int
        else { throw Unreadable() }
        let longerSide = 2 * sufficientSide * max(width, height) / min(width, height)
        let options: [CFString: Any] = [
            kCGImageSourceCreateThumbnailFromImageAlways: true,
            kCGImageSourceCreateThumbnailWithTransform: true,
            kCGImageSourceThumbnailMaxPixelSize: longerSide,
        ]
        guard let image = CGImageSourceCreateThumbnailAtIndex(source, 0, options as CFDictionary)
        else { throw Unreadable() }
        self.image = image
    }

    /// The pixels in sRGB.
    func pixels() throws -> PixelImage {
        var rgbx = [UInt8](repeating: 0, count: 4 * image.width * image.height)
        let drawn = rgbx.withUnsafeMutableBytes { buffer in
            let context = CGContext(
                data: buffer.baseAddress, width: image.width, height: image.height,
                bitsPerComponent: 8, bytesPerRow: 4 * image.width,
                space: CGColorSpace(name: CGColorSpace.sRGB)!,
                bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
            let bounds = CGRect(x: 0, y: 0, width: image.width, height: image.height)
            context?.draw(image, in: bounds)
            return context != nil
        }
        guard drawn else { throw Unreadable() }
        return PixelImage(width: image.width, height: image.height, rgbx: rgbx)
    }
}
