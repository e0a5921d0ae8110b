#include "model.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

namespace server {
namespace {

using nlohmann::json;

constexpr int kSchemaVersion = 1;

// The value of a field, unless that is absent or null.
template <typename T>
std::optional<T> field(const json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? std::nullopt : std::optional(found->get<T>());
}

Preprocessing read_preprocessing(const json& object) {
  Preprocessing result;
  result.resize = field<Preprocessing::Size>(object, "resize");
  result.crop = field<Preprocessing::Size>(object, "crop");
  result.mean = field<std::vector<float>>(object, "mean").value_or(result.mean);
  result.std = field<std::vector<float>>(object, "std").value_or(result.std);
  result.scale = field<float>(object, "scale").value_or(result.scale);
  result.color_order = field<std::string>(object, "color_order").value_or(result.color_order);
  return result;
}

json read_manifest(const std::filesystem::path& file) {
  std::ifstream stream(file);
  if (!stream) {
    throw std::runtime_error(file.string() + " cannot be read");
  }
  json manifest = json::parse(stream);
  if (manifest.at("format") != "pyquant-bundle" ||
      manifest.at("schema_version") != kSchemaVersion) {
    throw std::runtime_error(file.string() + " is not the manifest of a bundle of version " +
                             std::to_string(kSchemaVersion));
  }
  return manifest;
}

// The file beside the manifest that holds the Program.
std::filesystem::path program_file(const json& manifest, const std::filesystem::path& folder) {
  for (const json& file : manifest.at("files")) {
    if (file.at("target") == "program") {
      const std::filesystem::path name = file.at("name").get<std::string>();
      if (name != name.filename()) {
        throw std::runtime_error("the manifest names a file outside of the bundle");
      }
      return folder / name;
    }
  }
  throw std::runtime_error("the bundle in " + folder.string() + " has no model.pyq");
}

// Pictures are for models of one float32 input [batch, channels, height, width].
std::optional<ImageTransform> image_transform(const json& manifest, const Backend& backend) {
  const auto preprocessing = field<json>(manifest, "preprocessing");
  if (!preprocessing) {
    return std::nullopt;
  }
  const TensorSpec& input = backend.inputs.at(0);
  if (backend.inputs.size() != 1 || input.shape.rank() != 4 ||
      input.dtype != pyquant::DType::kFloat32) {
    throw std::runtime_error("the manifest has preprocessing, but the model does not take images");
  }
  const auto size = [&](std::size_t axis) { return static_cast<std::size_t>(input.shape[axis]); };
  return ImageTransform(read_preprocessing(*preprocessing), size(1), {size(2), size(3)});
}

Model load_bundle(const std::filesystem::path& file) {
  try {
    const json manifest = read_manifest(file);
    Model model;
    model.backend = load_backend(program_file(manifest, file.parent_path()));
    model.name = manifest.at("model_name").get<std::string>();
    model.labels = field<std::vector<std::string>>(manifest, "class_names").value_or(model.labels);
    model.image = image_transform(manifest, *model.backend);
    return model;
  } catch (const json::exception& error) {
    throw std::runtime_error(file.string() + " is damaged: " + error.what());
  }
}

Model load_file(const std::filesystem::path& file) {
  Model model;
  model.backend = load_backend(file);
  model.name = model.backend->model_name;
  return model;
}

// Names are parts of URLs.
bool is_name(const std::string& name) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  return !name.empty() && name.find_first_not_of(kAllowed) == std::string::npos;
}

}  // namespace

Model load_model(const std::filesystem::path& path, const std::string& name) {
  const std::filesystem::path file = is_directory(path) ? path / "manifest.json" : path;
  Model model = file.extension() == ".json" ? load_bundle(file) : load_file(file);
  if (!name.empty()) {
    model.name = name;
  }
  if (!is_name(model.name)) {
    throw std::runtime_error("the name \"" + model.name +
                             "\" cannot stand in a URL: give another one with --name");
  }
  return model;
}

}  // namespace server
