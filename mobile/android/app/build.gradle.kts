import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
    alias(libs.plugins.kotlin.compose)
}

android {
    namespace = "org.pyquant.classifier"
    compileSdk = 36

    defaultConfig {
        applicationId = "org.pyquant.classifier"
        minSdk = 28
        targetSdk = 36
        versionCode = 1
        versionName = "1.0"
        // What executorch-android has native libraries for.
        ndk.abiFilters += listOf("arm64-v8a", "x86_64")
    }

    flavorDimensions += "runtime"
    productFlavors {
        create("executorch") {
            dimension = "runtime"
            isDefault = true
        }
        create("lite") {
            dimension = "runtime"
            applicationIdSuffix = ".lite"
        }
    }

    buildFeatures.compose = true
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
}

kotlin {
    compilerOptions.jvmTarget = JvmTarget.JVM_11
}

dependencies {
    implementation(project(":core"))
    "executorchImplementation"(libs.executorch)
    "liteImplementation"(libs.pytorch.lite) {
        // It asks for the old support library, which clashes with AndroidX, but does not use it.
        exclude(group = "com.android.support")
    }
    implementation(libs.androidx.activity.compose)
    implementation(platform(libs.androidx.compose.bom))
    implementation(libs.androidx.compose.material3)
    implementation(libs.androidx.core)
    implementation(libs.androidx.lifecycle.runtime.compose)
    implementation(libs.androidx.lifecycle.viewmodel)
    implementation(libs.kotlinx.coroutines.android)
}

tasks.register<Sync>("copyBundle") {
    description = "Copies a bundle into the app: -Pbundle=FOLDER, from this project's folder."
    from(
        rootProject.layout.projectDirectory.dir(
            providers.gradleProperty("bundle").orElse(
                provider { throw GradleException("Say which bundle: -Pbundle=FOLDER") },
            ),
        ),
    )
    exclude("*.pyq")
    into("src/main/assets/bundle")
}
