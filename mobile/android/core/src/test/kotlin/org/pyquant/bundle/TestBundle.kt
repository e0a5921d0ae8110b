package org.pyquant.bundle

import java.io.File
import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest

/** A bundle in memory: a model of 1×2 RGB pixels and three classes. */
class TestBundle {
    val files = mutableMapOf(
        "model.pte" to "a model".encodeToByteArray(),
        "golden_input.bin" to floats(1f, 2f, 3f, 4f, 5f, 6f),
        "golden_output.bin" to floats(0f, 4f, -2f),
    )
    var preprocessing = """{"resize": null, "crop": null, "mean": [127, 127, 127],
        "std": [128, 128, 128], "scale": 1.0, "color_order": "RGB"}"""
    var inputShape = listOf(1, 3, 1, 2)
    var version = 1

    val manifest: String
        get() = """{
            "format": "pyquant-bundle", "schema_version": $version, "model_name": "tiny",
            "created_by": "a test",
            "inputs": [{"name": "input_0", "shape": $inputShape, "dtype": "float32",
                        "layout": "NCHW", "step": 1.0}],
            "outputs": [{"name": "output_0", "shape": [1, 3], "dtype": "float32",
                         "layout": "row-major", "step": 0.5}],
            "files": [${files.map { (name, content) -> record(name, content) }.joinToString()}],
            "tolerance": {"mean_steps": 2.0, "cosine": 0.9},
            "golden_input": "golden_input.bin", "golden_output": "golden_output.bin",
            "preprocessing": $preprocessing, "class_names": ["cat", "dog", "fox"]
        }"""

    /** Unpacks the bundle; [replaced] files have another content than the manifest says. */
    fun unpack(folder: File, replaced: Map<String, ByteArray> = emptyMap()): ModelBundle {
        val stored = files + (Manifest.FILE_NAME to manifest.encodeToByteArray()) + replaced
        return ModelBundle.unpack(folder, "executorch") { stored.getValue(it).inputStream() }
    }

    private fun record(name: String, content: ByteArray): String {
        val target = if (name.startsWith("model")) "executorch" else "golden"
        val sum = MessageDigest.getInstance("SHA-256").digest(content)
        return """{"name": "$name", "target": "$target", "size": ${content.size},
            "sha256": "${sum.joinToString("") { "%02x".format(it) }}"}"""
    }
}

fun floats(vararg values: Float): ByteArray =
    ByteBuffer.allocate(4 * values.size).order(ByteOrder.LITTLE_ENDIAN)
        .also { it.asFloatBuffer().put(values) }.array()
