package org.pyquant.bundle

import kotlin.io.path.createTempDirectory
import kotlin.math.exp
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

class ClassifierTest {
    private class Fixed(private vararg val output: Float) : ModelRuntime {
        lateinit var input: FloatArray

        override fun run(input: FloatArray): FloatArray {
            this.input = input
            return output
        }
    }

    private val bundle = TestBundle().unpack(createTempDirectory().toFile())

    private fun selfTest(vararg output: Float) = Classifier(bundle, Fixed(*output)).selfTest()

    @Test
    fun namesTheBestClasses() {
        val runtime = Fixed(0f, 2f, 1f)
        val black = PixelImage(2, 1, intArrayOf(0, 0))
        val predictions = Classifier(bundle, runtime).classify(black).predictions
        assertEquals(listOf("dog", "fox", "cat"), predictions.map { it.name })
        assertEquals(exp(2.0) / (1 + exp(1.0) + exp(2.0)), predictions[0].probability, 1e-9)
        assertEquals(List(6) { -127f / 128f }, runtime.input.toList())
    }

    @Test
    fun keepsProbabilities() {
        assertEquals(listOf(0.25, 0.75), probabilities(floatArrayOf(0.25f, 0.75f)))
        assertEquals(listOf(0.5, 0.5), probabilities(floatArrayOf(1000f, 1000f)))
    }

    @Test
    fun passesTheGoldenOutputAndWhatIsNear() {
        assertEquals(GoldenTest(0.0, 0.0, 1.0, true, true), selfTest(0f, 4f, -2f))
        val near = selfTest(0.5f, 4f, -1f)
        assertEquals(1.0, near.meanSteps)
        assertEquals(2.0, near.maxSteps)
        assertTrue(near.passed)
    }

    @Test
    fun failsAShiftAnotherDirectionAndAnotherClass() {
        assertFalse(selfTest(1.5f, 5.5f, -0.5f).passed)
        val turned = selfTest(2f, 3f, 0f)
        assertTrue(turned.cosine < 0.9 && !turned.passed)
        val tolerant = Tolerance(meanSteps = 2.0, cosine = -1.0)
        val golden = floatArrayOf(0f, 2.5f, 0f)
        val other = GoldenTest.compare(golden, floatArrayOf(0.1f, 0f, 0f), 0.5, tolerant)
        assertFalse(other.sameClass || other.passed)
        val near = GoldenTest.compare(golden, floatArrayOf(2.6f, 2.5f, 0f), 1.0, tolerant)
        assertTrue(near.sameClass)
    }

    @Test
    fun refusesWhatCannotBeCompared() {
        assertFailsWith<BundleException> { selfTest(0f, 4f) }
        assertFailsWith<BundleException> { selfTest(0f, Float.NaN, 0f) }
    }
}
