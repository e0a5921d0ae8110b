// A model as the server offers it: what computes, its labels, and how pictures become its input.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend.h"
#include "image_transform.h"

namespace server {

// The only version of every model.
constexpr const char* kModelVersion = "1";

struct Model {
  std::string name;
  std::unique_ptr<Backend> backend;
  std::vector<std::string> labels;      // empty, or one for each class
  std::optional<ImageTransform> image;  // of bundles with preprocessing
};

// Loads a model file, or a bundle by its folder or its manifest.json. An empty name takes the
// model's own. Throws std::runtime_error or what the runtime throws.
Model load_model(const std::filesystem::path& path, const std::string& name);

}  // namespace server
