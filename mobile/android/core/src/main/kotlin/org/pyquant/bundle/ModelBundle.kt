package org.pyquant.bundle

import java.io.File
import java.io.IOException
import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest

/** A checked bundle whose files lie in a folder, where a runtime can open them. */
class ModelBundle private constructor(
    val manifest: Manifest,
    val model: File,
    val goldenInput: FloatArray,
    val goldenOutput: FloatArray,
) {
    val input: TensorRecord get() = manifest.inputs.single()
    val output: TensorRecord get() = manifest.outputs.single()

    companion object {
        /**
         * Copies what [target] needs from the app's package to [folder] and checks it. A file that
         * is there already, with the right sum, is not copied again.
         *
         * @param source Opens a file of the bundle by name, or throws [IOException].
         * @throws BundleException if a file is missing or damaged, or the model is no classifier
         *   of one image.
         */
        fun unpack(folder: File, target: String, source: (String) -> InputStream): ModelBundle {
            val manifest = Manifest.parse(readManifest(source))
            requireClassifier(manifest)
            folder.mkdirs()
            fun unpacked(name: String): File {
                val record = manifest.files.find { it.name == name }
                    ?: throw BundleException("${Manifest.FILE_NAME} does not describe $name.")
                return unpackFile(record, folder, source)
            }
            val model = manifest.files.find { it.target == target } ?: throw BundleException(
                "The bundle has no file for $target, only for " +
                    "${manifest.files.map { it.target }.distinct()}: export it with this target.",
            )
            return ModelBundle(
                manifest,
                unpacked(model.name),
                readFloats(unpacked(manifest.goldenInput), manifest.inputs.single().count),
                readFloats(unpacked(manifest.goldenOutput), manifest.outputs.single().count),
            )
        }

        private fun readManifest(source: (String) -> InputStream): String = try {
            source(Manifest.FILE_NAME).use { it.readBytes().decodeToString() }
        } catch (error: IOException) {
            throw BundleException(
                "There is no bundle in this app. Put one in (see README.md) and build again.",
                error,
            )
        }

        private fun requireClassifier(manifest: Manifest) {
            val input = manifest.inputs.singleOrNull()
            val output = manifest.outputs.singleOrNull()
            demand(input != null && input.shape.size == 4 && input.shape[0] == 1) {
                "This app needs a model of one image: export it with an example of batch 1. " +
                    "This one takes ${manifest.inputs}."
            }
            demand(output != null && output.shape.size == 2 && output.shape[0] == 1) {
                "This app needs a classifier; this model returns ${manifest.outputs}."
            }
        }

        private fun unpackFile(
            record: FileRecord,
            folder: File,
            source: (String) -> InputStream,
        ): File {
            demand(File(record.name).name == record.name) {
                "${Manifest.FILE_NAME} names a file outside the bundle: ${record.name}"
            }
            val file = File(folder, record.name)
            if (!isWhole(file, record)) {
                try {
                    source(record.name).use { from -> file.outputStream().use(from::copyTo) }
                } catch (error: IOException) {
                    throw BundleException("The bundle's ${record.name} cannot be read.", error)
                }
                demand(isWhole(file, record)) {
                    "The bundle's ${record.name} is damaged: its size or SHA-256 sum is not the " +
                        "one in ${Manifest.FILE_NAME}."
                }
            }
            return file
        }

        private fun isWhole(file: File, record: FileRecord): Boolean =
            file.length() == record.size && sha256(file) == record.sha256

        private fun sha256(file: File): String {
            val digest = MessageDigest.getInstance("SHA-256")
            file.forEachBlock { block, size -> digest.update(block, 0, size) }
            return digest.digest().joinToString("") { "%02x".format(it) }
        }

        private fun readFloats(file: File, count: Int): FloatArray {
            val values = ByteBuffer.wrap(file.readBytes()).order(ByteOrder.LITTLE_ENDIAN)
                .asFloatBuffer()
            demand(values.remaining() == count) {
                "${file.name} holds ${values.remaining()} values instead of $count."
            }
            return FloatArray(count).also(values::get)
        }
    }
}
