package org.pyquant.bundle

import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/** An image in sRGB, one `0xAARRGGBB` a pixel, row by row. */
class PixelImage(val width: Int, val height: Int, val argb: IntArray)

private fun red(argb: Int): Float = (argb shr 16 and 0xff).toFloat()

private fun green(argb: Int): Float = (argb shr 8 and 0xff).toFloat()

private fun blue(argb: Int): Float = (argb and 0xff).toFloat()

/** ITU-R BT.601 luma, as Pillow's mode "L". */
private fun luma(argb: Int): Float = 0.299f * red(argb) + 0.587f * green(argb) + 0.114f * blue(argb)

/** What the input's channels are, from a pixel in 0..255. */
enum class ColorOrder(internal val channels: List<(Int) -> Float>) {
    RGB(listOf(::red, ::green, ::blue)),
    BGR(listOf(::blue, ::green, ::red)),
    GRAY(listOf(::luma)),
}

/**
 * Makes the model's input from an image, as torchvision's `Resize`, `CenterCrop` and `Normalize`.
 *
 * The image is resized with its proportions kept until it just covers `resize`, and the centre of
 * size `crop` (without one: `resize`) is cut out.
 *
 * @throws BundleException if the manifest does not say how, or its sizes do not fit the input.
 */
class ImageTransform(manifest: Manifest) {
    private val preprocessing = manifest.preprocessing ?: throw BundleException(
        "The bundle does not say how to make the input from an image: " +
            "export it with preprocessing=….",
    )
    private val channels = preprocessing.colorOrder.channels
    private val resize: List<Int>
    private val height: Int
    private val width: Int
    private val mean = preprocessing.mean ?: List(channels.size) { 0.0 }
    private val std = preprocessing.std ?: List(channels.size) { 1.0 }

    init {
        val shape = manifest.inputs.single().shape
        val size = shape.takeLast(2)
        resize = preprocessing.resize ?: preprocessing.crop ?: size
        val crop = preprocessing.crop ?: resize
        demand(crop == size && shape[1] == channels.size) {
            "The preprocessing gives ${channels.size} channels of $crop; the model takes $shape."
        }
        demand(resize[0] >= crop[0] && resize[1] >= crop[1]) {
            "The crop $crop is larger than the resized image $resize."
        }
        demand(mean.size == channels.size && std.size == channels.size) {
            "The preprocessing needs a mean and a std for each of ${channels.size} channels."
        }
        height = size[0]
        width = size[1]
    }

    /** The shorter side that an image should have at least, so that nothing is lost. */
    val sufficientSide: Int = resize.max()

    /** The input, float32 `[1, channels, height, width]`. */
    fun apply(image: PixelImage): FloatArray {
        val (resizedHeight, resizedWidth) = covering(image)
        val columns = centred(image.width, resizedWidth, width)
        val rows = centred(image.height, resizedHeight, height)
        val output = FloatArray(channels.size * height * width)
        channels.forEachIndexed { channel, value ->
            val narrow = Array(image.height) { y ->
                val line = FloatArray(image.width) { x -> value(image.argb[y * image.width + x]) }
                FloatArray(width) { x -> columns[x].sum(line::get) }
            }
            for (y in 0 until height) {
                for (x in 0 until width) {
                    val pixel = rows[y].sum { narrow[it][x] }
                    output[(channel * height + y) * width + x] =
                        ((pixel * preprocessing.scale - mean[channel]) / std[channel]).toFloat()
                }
            }
        }
        return output
    }

    /** The resized image's height and width: `resize`, but one of them larger for its shape. */
    private fun covering(image: PixelImage): Pair<Int, Int> {
        val (height, width) = resize
        return if (height * image.width >= width * image.height) {
            height to image.width * height / image.height
        } else {
            image.height * width / image.width to width
        }
    }

    /** The source pixels from [first] on that one output pixel is made of. */
    private class Window(val first: Int, val weights: FloatArray) {
        inline fun sum(value: (Int) -> Float): Float {
            var total = 0f
            for (index in weights.indices) total += weights[index] * value(first + index)
            return total
        }
    }

    /**
     * A window for each of the [count] pixels in the middle of [resized] pixels, which [size]
     * source pixels are resized to. The filter is a triangle two output pixels wide (but two
     * source pixels at least): bilinear with antialiasing, as in Pillow.
     */
    private fun centred(size: Int, resized: Int, count: Int): List<Window> {
        val step = size.toDouble() / resized
        val reach = max(step, 1.0)
        val offset = round((resized - count) / 2.0)
        return List(count) { index ->
            val center = (offset + index + 0.5) * step
            val first = max((center - reach + 0.5).toInt(), 0)
            val end = min((center + reach + 0.5).toInt(), size)
            val weights = FloatArray(end - first) {
                max(0.0, 1 - abs(first + it + 0.5 - center) / reach).toFloat()
            }
            val total = weights.sum()
            Window(first, FloatArray(weights.size) { weights[it] / total })
        }
    }
}
