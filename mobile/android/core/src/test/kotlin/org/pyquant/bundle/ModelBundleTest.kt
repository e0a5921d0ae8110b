package org.pyquant.bundle

import java.io.FileNotFoundException
import kotlin.io.path.createTempDirectory
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

class ModelBundleTest {
    private val folder = createTempDirectory().toFile()
    private val bundle = TestBundle()

    private fun failure(action: () -> Unit): String =
        assertFailsWith<BundleException> { action() }.message.orEmpty()

    @Test
    fun unpacksAndReadsTheFiles() {
        val unpacked = bundle.unpack(folder)
        assertEquals("a model", unpacked.model.readText())
        assertContentEquals(floatArrayOf(0f, 4f, -2f), unpacked.goldenOutput)
        assertEquals(listOf(1, 3, 1, 2), unpacked.input.shape)
        assertEquals(2.0, unpacked.manifest.tolerance.meanSteps)
    }

    @Test
    fun replacesAnOlderFile() {
        folder.resolve("model.pte").writeText("b model")
        assertEquals("a model", bundle.unpack(folder).model.readText())
    }

    @Test
    fun refusesADamagedFile() {
        val damaged = mapOf("model.pte" to "another".encodeToByteArray())
        assertContains(failure { bundle.unpack(folder, damaged) }, "model.pte is damaged")
    }

    @Test
    fun saysThatThereIsNoBundle() {
        val message = failure {
            ModelBundle.unpack(folder, "executorch") { throw FileNotFoundException(it) }
        }
        assertContains(message, "no bundle in this app")
    }

    @Test
    fun namesAMissingTarget() {
        val message = failure {
            ModelBundle.unpack(folder, "torchscript") { bundle.manifest.byteInputStream() }
        }
        assertContains(message, "no file for torchscript, only for [executorch, golden]")
    }

    @Test
    fun refusesAFileOutsideTheBundle() {
        bundle.files["../golden_output.bin"] = floats(0f, 4f, -2f)
        val manifest = bundle.manifest.replace("\"golden_output.bin\"", "\"../golden_output.bin\"")
        val outside = mapOf(Manifest.FILE_NAME to manifest.encodeToByteArray())
        assertContains(failure { bundle.unpack(folder, outside) }, "outside the bundle")
    }

    @Test
    fun refusesAnotherVersionAndWhatIsNoManifest() {
        bundle.version = 2
        assertContains(failure { bundle.unpack(folder) }, "schema version 2")
        assertContains(failure { Manifest.parse("{") }, "damaged")
    }

    @Test
    fun refusesABatch() {
        bundle.inputShape = listOf(2, 3, 1, 1)
        assertContains(failure { bundle.unpack(folder) }, "an example of batch 1")
    }
}
