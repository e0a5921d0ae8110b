package org.pyquant.classifier

import androidx.compose.foundation.Image
import androidx.compose.foundation.layout.Arrangement
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.Row
import androidx.compose.foundation.layout.fillMaxWidth
import androidx.compose.foundation.layout.heightIn
import androidx.compose.foundation.layout.padding
import androidx.compose.foundation.rememberScrollState
import androidx.compose.foundation.verticalScroll
import androidx.compose.material3.Button
import androidx.compose.material3.LinearProgressIndicator
import androidx.compose.material3.MaterialTheme
import androidx.compose.material3.Scaffold
import androidx.compose.material3.Text
import androidx.compose.runtime.Composable
import androidx.compose.ui.Modifier
import androidx.compose.ui.graphics.asImageBitmap
import androidx.compose.ui.res.stringResource
import androidx.compose.ui.unit.dp
import org.pyquant.bundle.Classification
import org.pyquant.bundle.GoldenTest
import kotlin.time.DurationUnit

@Composable
fun ClassifierScreen(state: ScreenState, onPick: () -> Unit, onTake: () -> Unit) {
    Scaffold { insets ->
        Column(
            Modifier.padding(insets).padding(16.dp).verticalScroll(rememberScrollState()),
            verticalArrangement = Arrangement.spacedBy(12.dp),
        ) {
            Text(
                state.modelName ?: stringResource(R.string.unknown_model),
                style = MaterialTheme.typography.headlineSmall,
            )
            state.selfTest?.let { SelfTest(it) }
            state.error?.let { Text(it, color = MaterialTheme.colorScheme.error) }
            Row(horizontalArrangement = Arrangement.spacedBy(12.dp)) {
                val ready = state.modelName != null && !state.busy
                Button(onPick, enabled = ready) { Text(stringResource(R.string.pick_photo)) }
                Button(onTake, enabled = ready) { Text(stringResource(R.string.take_photo)) }
            }
            if (state.busy) LinearProgressIndicator(Modifier.fillMaxWidth())
            state.photo?.let {
                Image(
                    it.asImageBitmap(),
                    contentDescription = stringResource(R.string.photo),
                    modifier = Modifier.fillMaxWidth().heightIn(max = 320.dp),
                )
            }
            state.classification?.let { Results(it) }
        }
    }
}

@Composable
private fun SelfTest(test: GoldenTest) {
    val colors = MaterialTheme.colorScheme
    Text(
        stringResource(if (test.passed) R.string.self_test_passed else R.string.self_test_failed),
        color = if (test.passed) colors.primary else colors.error,
    )
    val best = stringResource(if (test.sameClass) R.string.same_class else R.string.another_class)
    Text(
        stringResource(
            R.string.self_test_numbers,
            test.meanSteps,
            test.maxSteps,
            test.cosine,
            best,
        ),
        style = MaterialTheme.typography.bodySmall,
    )
}

@Composable
private fun Results(result: Classification) {
    for (prediction in result.predictions) {
        Text(stringResource(R.string.prediction, prediction.name, 100 * prediction.probability))
        LinearProgressIndicator(
            progress = { prediction.probability.toFloat() },
            modifier = Modifier.fillMaxWidth(),
        )
    }
    Text(
        stringResource(R.string.latency, result.latency.toDouble(DurationUnit.MILLISECONDS)),
        style = MaterialTheme.typography.bodySmall,
    )
}
