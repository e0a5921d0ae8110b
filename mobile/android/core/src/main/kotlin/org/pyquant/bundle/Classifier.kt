package org.pyquant.bundle

import kotlin.math.exp
import kotlin.time.Duration
import kotlin.time.measureTimedValue

/** A loaded model. Not for use by two threads at the same time. */
fun interface ModelRuntime {
    /** Runs the model on one input, row-major; returns its one output. */
    fun run(input: FloatArray): FloatArray
}

data class Prediction(val name: String, val probability: Double)

/** The most likely classes, best first, and how long the model took: the median of some runs. */
data class Classification(val predictions: List<Prediction>, val latency: Duration)

/** Classifies images with the model of a bundle. */
class Classifier(val bundle: ModelBundle, private val runtime: ModelRuntime) {
    val transform = ImageTransform(bundle.manifest)

    /** Runs the golden input; throws [BundleException] if the output cannot be compared. */
    fun selfTest(): GoldenTest = GoldenTest.compare(
        bundle.goldenOutput,
        runtime.run(bundle.goldenInput),
        bundle.output.step,
        bundle.manifest.tolerance,
    )

    fun classify(image: PixelImage): Classification {
        val input = transform.apply(image)
        val runs = List(RUNS) { measureTimedValue { runtime.run(input) } }
        return Classification(best(runs.last().value), runs.map { it.duration }.sorted()[RUNS / 2])
    }

    private fun best(scores: FloatArray): List<Prediction> {
        val names = bundle.manifest.classNames
        return probabilities(scores).withIndex().sortedByDescending { it.value }.take(SHOWN)
            .map { (index, value) -> Prediction(names?.getOrNull(index) ?: "class $index", value) }
    }

    private companion object {
        const val RUNS = 9
        const val SHOWN = 5
    }
}

/** The softmax of [scores], unless they all lie in 0..1: then the model ends with one itself. */
internal fun probabilities(scores: FloatArray): List<Double> {
    if (scores.all { it in 0f..1f }) return scores.map(Float::toDouble)
    val largest = scores.max()
    val powers = scores.map { exp((it - largest).toDouble()) }
    val total = powers.sum()
    return powers.map { it / total }
}
