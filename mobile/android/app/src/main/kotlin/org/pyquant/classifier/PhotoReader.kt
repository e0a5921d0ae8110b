package org.pyquant.classifier

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.ColorSpace
import android.graphics.ImageDecoder
import android.net.Uri
import org.pyquant.bundle.PixelImage
import kotlin.math.max
import kotlin.math.min

/**
 * Reads a photo upright and in sRGB, made smaller while it is decoded, but no smaller than twice
 * [sufficientSide], so that the antialiasing is left to the model's preprocessing.
 *
 * @throws java.io.IOException if it is no image.
 */
fun readPhoto(resolver: ContentResolver, photo: Uri, sufficientSide: Int): Bitmap =
    ImageDecoder.decodeBitmap(ImageDecoder.createSource(resolver, photo)) { decoder, info, _ ->
        decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE
        decoder.setTargetColorSpace(ColorSpace.get(ColorSpace.Named.SRGB))
        val side = min(info.size.width, info.size.height)
        decoder.setTargetSampleSize(max(1, side / (2 * sufficientSide)))
    }

fun Bitmap.toPixelImage(): PixelImage {
    val argb = IntArray(width * height)
    getPixels(argb, 0, width, 0, 0, width, height)
    return PixelImage(width, height, argb)
}
