#include "backend.h"

#include <stdexcept>

#include "onnxruntime_backend.h"
#include "pyquant_backend.h"

namespace server {
namespace {

struct Format {
  const char* ending;
  std::unique_ptr<Backend> (*load)(const std::filesystem::path&);
};

constexpr Format kFormats[] = {
    {".pyq", load_pyquant},
#ifdef SERVER_ONNXRUNTIME
    {".onnx", load_onnxruntime},
#endif
};

}  // namespace

pyquant::Shape Backend::shape_of(const TensorSpec& spec, std::int64_t batch) const {
  pyquant::Shape shape = spec.shape;
  if (takes_batches) {
    shape[0] = batch;
  }
  return shape;
}

std::unique_ptr<Backend> load_backend(const std::filesystem::path& file) {
  std::string endings;
  for (const Format& format : kFormats) {
    if (file.extension() == format.ending) {
      return format.load(file);
    }
    endings += std::string(endings.empty() ? "" : ", ") + format.ending;
  }
  throw std::runtime_error(file.string() + " is not a model file (" + endings + ")");
}

}  // namespace server
