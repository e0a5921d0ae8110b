package org.pyquant.bundle

import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class ImageTransformTest {
    private fun transform(
        size: List<Int>,
        resize: List<Int>? = null,
        order: String = "GRAY",
        normalisation: String = """"mean": null, "std": null, "scale": 1.0""",
    ): ImageTransform {
        val bundle = TestBundle().apply {
            inputShape = listOf(1, if (order == "GRAY") 1 else 3) + size
            preprocessing =
                """{"resize": $resize, "crop": $size, "color_order": "$order", $normalisation}"""
        }
        return ImageTransform(Manifest.parse(bundle.manifest))
    }

    private fun grays(width: Int, vararg values: Int) =
        PixelImage(width, values.size / width, IntArray(values.size) { values[it] * 0x010101 })

    private fun assertClose(expected: List<Double>, actual: FloatArray) {
        assertEquals(expected.size, actual.size)
        expected.zip(actual.toList()).forEach { (a, b) -> assertEquals(a, b.toDouble(), 1e-3) }
    }

    @Test
    fun copiesAnImageOfTheRightSize() {
        val image = grays(2, 1, 2, 3, 4)
        assertClose(listOf(1.0, 2.0, 3.0, 4.0), transform(listOf(2, 2)).apply(image))
    }

    /** The numbers are Pillow's: `Image.resize((3, 1), BILINEAR)` of a mode "F" image. */
    @Test
    fun averagesWhenItMakesAnImageSmaller() {
        val image = grays(6, 0, 0, 90, 30, 0, 60, 0, 0, 90, 30, 0, 60)
        val expected = listOf(12.857142, 45.0, 30.0)
        assertClose(expected, transform(listOf(1, 3)).apply(image))
    }

    @Test
    fun interpolatesWhenItMakesAnImageLarger() {
        val expected = List(4) { listOf(0.0, 25.0, 75.0, 100.0) }.flatten()
        assertClose(expected, transform(listOf(4, 4)).apply(grays(2, 0, 100, 0, 100)))
    }

    @Test
    fun cutsOutTheCentre() {
        val image = grays(6, 9, 9, 1, 2, 9, 9, 9, 9, 3, 4, 9, 9)
        assertClose(listOf(1.0, 2.0, 3.0, 4.0), transform(listOf(2, 2)).apply(image))
        val square = grays(4, 9, 9, 9, 9, 9, 1, 2, 9, 9, 3, 4, 9, 9, 9, 9, 9)
        assertClose(listOf(1.0, 2.0, 3.0, 4.0), transform(listOf(2, 2), listOf(4, 4)).apply(square))
    }

    @Test
    fun ordersAndNormalisesTheChannels() {
        val image = PixelImage(1, 1, intArrayOf(0xff0a141e.toInt()))
        val normalisation = """"mean": [1, 2, 3], "std": [1, 2, 4], "scale": 0.5"""
        assertClose(
            listOf(4.0, 4.0, 3.0),
            transform(listOf(1, 1), null, "RGB", normalisation).apply(image),
        )
        assertClose(
            listOf(14.0, 4.0, 0.5),
            transform(listOf(1, 1), null, "BGR", normalisation).apply(image),
        )
        assertClose(listOf(18.15), transform(listOf(1, 1)).apply(image))
    }

    @Test
    fun refusesABundleWithoutPreprocessing() {
        val manifest = Manifest.parse(TestBundle().apply { preprocessing = "null" }.manifest)
        val error = assertFailsWith<BundleException> { ImageTransform(manifest) }
        assertContains(error.message.orEmpty(), "export it with preprocessing")
    }

    @Test
    fun refusesSizesThatDoNotFit() {
        val bundle = TestBundle().apply {
            inputShape = listOf(1, 3, 8, 8)
            preprocessing = preprocessing.replace("\"crop\": null", "\"crop\": [7, 8]")
        }
        val manifest = Manifest.parse(bundle.manifest)
        val error = assertFailsWith<BundleException> { ImageTransform(manifest) }
        assertContains(error.message.orEmpty(), "[7, 8]")
    }
}
