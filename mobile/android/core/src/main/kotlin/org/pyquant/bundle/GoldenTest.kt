package org.pyquant.bundle

import kotlin.math.abs
import kotlin.math.sqrt

/**
 * How far a model's output is from the golden one; the same criterion as `pyquant verify`.
 *
 * @property meanSteps Mean absolute difference in quantization steps.
 * @property maxSteps The largest one; reported, not judged.
 * @property sameClass Whether the best class is the same, or so near to it that two differences
 *   within the tolerance overturn them.
 */
data class GoldenTest(
    val meanSteps: Double,
    val maxSteps: Double,
    val cosine: Double,
    val sameClass: Boolean,
    val passed: Boolean,
) {
    companion object {
        /** Compares two outputs of the same size; [step] is one quantization step. */
        fun compare(
            golden: FloatArray,
            actual: FloatArray,
            step: Double,
            tolerance: Tolerance,
        ): GoldenTest {
            demand(golden.size == actual.size) {
                "The model returns ${actual.size} values instead of ${golden.size}."
            }
            demand(actual.all(Float::isFinite)) { "The model returns values that are not finite." }
            val steps = golden.indices.map { abs(golden[it].toDouble() - actual[it]) / step }
            val norms = sqrt(dot(golden, golden) * dot(actual, actual))
            val cosine = when {
                norms > 0 -> dot(golden, actual) / norms
                golden contentEquals actual -> 1.0
                else -> 0.0
            }
            val lost = golden.max() - golden[actual.indices.maxBy(actual::get)]
            val sameClass = lost <= 2 * tolerance.meanSteps * step
            val agrees = steps.average() <= tolerance.meanSteps && cosine >= tolerance.cosine
            return GoldenTest(steps.average(), steps.max(), cosine, sameClass, agrees && sameClass)
        }

        private fun dot(a: FloatArray, b: FloatArray): Double =
            a.indices.sumOf { a[it].toDouble() * b[it] }
    }
}
