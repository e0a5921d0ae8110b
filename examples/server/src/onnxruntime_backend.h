// ONNX files, for comparisons: only with -DSERVER_ONNXRUNTIME=... in CMake.
#pragma once

#include <filesystem>
#include <memory>

#include "backend.h"

namespace server {

std::unique_ptr<Backend> load_onnxruntime(const std::filesystem::path& file);

}  // namespace server
