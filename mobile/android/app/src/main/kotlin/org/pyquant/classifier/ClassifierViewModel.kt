package org.pyquant.classifier

import android.app.Application
import android.graphics.Bitmap
import android.net.Uri
import android.util.Log
import androidx.lifecycle.AndroidViewModel
import androidx.lifecycle.viewModelScope
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.launch
import org.pyquant.bundle.Classification
import org.pyquant.bundle.Classifier
import org.pyquant.bundle.GoldenTest
import org.pyquant.bundle.ModelBundle
import java.io.File

data class ScreenState(
    val modelName: String? = null,
    val selfTest: GoldenTest? = null,
    val photo: Bitmap? = null,
    val classification: Classification? = null,
    val busy: Boolean = false,
    val error: String? = null,
)

/** Loads the bundle, runs the golden test, and classifies photos, one thing after the other. */
class ClassifierViewModel(application: Application) : AndroidViewModel(application) {
    private val worker = Dispatchers.Default.limitedParallelism(1)
    private val mutableState = MutableStateFlow(ScreenState())
    val state: StateFlow<ScreenState> = mutableState.asStateFlow()

    private val classifier = viewModelScope.async(worker) {
        val folder = File(application.noBackupFilesDir, BUNDLE)
        val bundle = ModelBundle.unpack(folder, RuntimeOfFlavor.TARGET) { name ->
            application.assets.open("$BUNDLE/$name")
        }
        Classifier(bundle, RuntimeOfFlavor(bundle))
    }

    init {
        work {
            val classifier = classifier.await()
            mutableState.update { it.copy(modelName = classifier.bundle.manifest.modelName) }
            val selfTest = classifier.selfTest()
            mutableState.update { it.copy(selfTest = selfTest) }
        }
    }

    fun classify(photo: Uri) = work {
        val classifier = classifier.await()
        val resolver = getApplication<Application>().contentResolver
        val bitmap = readPhoto(resolver, photo, classifier.transform.sufficientSide)
        mutableState.update { it.copy(photo = bitmap, classification = null) }
        val classification = classifier.classify(bitmap.toPixelImage())
        mutableState.update { it.copy(classification = classification) }
    }

    /** Runs [block] off the main thread; what it throws is shown to the user. */
    private fun work(block: suspend () -> Unit) {
        viewModelScope.launch(worker) {
            mutableState.update { it.copy(busy = true, error = null) }
            try {
                block()
            } catch (error: CancellationException) {
                throw error
            } catch (error: Exception) {
                Log.e("pyquant", "Failed", error)
                mutableState.update { it.copy(error = error.message ?: error.toString()) }
            } finally {
                mutableState.update { it.copy(busy = false) }
            }
        }
    }

    private companion object {
        const val BUNDLE = "bundle"
    }
}
