package org.pyquant.bundle

import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.Serializable
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonNamingStrategy

/** What is wrong with a bundle, in words for the person who put it into the app. */
class BundleException(message: String, cause: Throwable? = null) : Exception(message, cause)

/**
 * The fields of a bundle's `manifest.json` that an app needs. Classes and fields have the names
 * that they have in `pyquant.mobile.manifest`, where they are described.
 */
@Serializable
data class Manifest(
    val format: String,
    val schemaVersion: Int,
    val modelName: String,
    val inputs: List<TensorRecord>,
    val outputs: List<TensorRecord>,
    val files: List<FileRecord>,
    val tolerance: Tolerance,
    val goldenInput: String,
    val goldenOutput: String,
    val preprocessing: Preprocessing? = null,
    val classNames: List<String>? = null,
) {
    companion object {
        const val FILE_NAME = "manifest.json"
        private const val FORMAT = "pyquant-bundle"
        private const val SCHEMA_VERSION = 1

        @OptIn(ExperimentalSerializationApi::class)
        private val json = Json {
            ignoreUnknownKeys = true
            namingStrategy = JsonNamingStrategy.SnakeCase
        }

        /** Throws [BundleException] if [text] is no manifest, or one of another version. */
        fun parse(text: String): Manifest {
            val manifest = try {
                json.decodeFromString<Manifest>(text)
            } catch (error: SerializationException) {
                throw BundleException("$FILE_NAME is damaged: ${error.message}", error)
            }
            demand(manifest.format == FORMAT) { "$FILE_NAME is not a pyquant bundle's manifest." }
            demand(manifest.schemaVersion == SCHEMA_VERSION) {
                "$FILE_NAME has schema version ${manifest.schemaVersion}; " +
                    "this app reads version $SCHEMA_VERSION."
            }
            return manifest
        }
    }
}

@Serializable
data class TensorRecord(
    val shape: List<Int>,
    val dtype: String,
    val layout: String,
    val step: Double,
) {
    val count: Int get() = shape.fold(1, Int::times)
}

@Serializable
data class FileRecord(val name: String, val target: String, val size: Long, val sha256: String)

@Serializable
data class Tolerance(val meanSteps: Double, val cosine: Double)

@Serializable
data class Preprocessing(
    val resize: List<Int>? = null,
    val crop: List<Int>? = null,
    val mean: List<Double>? = null,
    val std: List<Double>? = null,
    val scale: Double,
    val colorOrder: ColorOrder,
)

internal inline fun demand(condition: Boolean, message: () -> String) {
    if (!condition) throw BundleException(message())
}
