package org.pyquant.classifier

import android.content.ActivityNotFoundException
import android.content.Context
import android.net.Uri
import android.os.Bundle
import android.widget.Toast
import androidx.activity.ComponentActivity
import androidx.activity.compose.setContent
import androidx.activity.enableEdgeToEdge
import androidx.activity.result.PickVisualMediaRequest
import androidx.activity.result.contract.ActivityResultContracts.PickVisualMedia
import androidx.activity.result.contract.ActivityResultContracts.TakePicture
import androidx.activity.viewModels
import androidx.compose.material3.MaterialTheme
import androidx.compose.runtime.getValue
import androidx.core.content.FileProvider
import androidx.lifecycle.compose.collectAsStateWithLifecycle
import java.io.File

class MainActivity : ComponentActivity() {
    private val viewModel: ClassifierViewModel by viewModels()

    private val picker = registerForActivityResult(PickVisualMedia()) { photo ->
        if (photo != null) viewModel.classify(photo)
    }

    private val camera = registerForActivityResult(TakePicture()) { saved ->
        if (saved) viewModel.classify(cameraPhoto(this))
    }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        enableEdgeToEdge()
        setContent {
            val state by viewModel.state.collectAsStateWithLifecycle()
            MaterialTheme {
                ClassifierScreen(
                    state,
                    onPick = { picker.launch(PickVisualMediaRequest(PickVisualMedia.ImageOnly)) },
                    onTake = ::takePhoto,
                )
            }
        }
    }

    private fun takePhoto() {
        try {
            camera.launch(cameraPhoto(this))
        } catch (error: ActivityNotFoundException) {
            Toast.makeText(this, R.string.no_camera, Toast.LENGTH_LONG).show()
        }
    }
}

private fun cameraPhoto(context: Context): Uri = FileProvider.getUriForFile(
    context,
    "${context.packageName}.photos",
    File(context.cacheDir, "photo.jpg"),
)
