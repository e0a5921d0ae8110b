#include "onnxruntime_backend.h"

#include <onnxruntime_cxx_api.h>

#include <stdexcept>
#include <utility>

namespace server {
namespace {

using pyquant::ConstTensorView;
using pyquant::DType;
using pyquant::Shape;
using pyquant::TensorView;

// By DType.
constexpr ONNXTensorElementDataType kTypes[] = {
    ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT};

DType dtype_of(ONNXTensorElementDataType type) {
  for (std::size_t index = 0; index < std::size(kTypes); ++index) {
    if (kTypes[index] == type) {
      return static_cast<DType>(index);
    }
  }
  throw std::runtime_error("the ONNX model has a tensor of a type that is not served");
}

// A dimension that may differ becomes 1.
TensorSpec spec(std::string name, const Ort::TypeInfo& info) {
  const auto tensor = info.GetTensorTypeAndShapeInfo();
  TensorSpec result{std::move(name), dtype_of(tensor.GetElementType()), {}};
  for (const std::int64_t dimension : tensor.GetShape()) {
    result.shape.push_back(dimension < 0 ? 1 : dimension);
  }
  return result;
}

bool has_free_batch(const Ort::TypeInfo& info) {
  const std::vector<std::int64_t> shape = info.GetTensorTypeAndShapeInfo().GetShape();
  return !shape.empty() && shape[0] < 0;
}

// One session for all workers: its Run may be called by many threads at once.
struct OnnxModel {
  Ort::Env env{ORT_LOGGING_LEVEL_ERROR, "server"};
  Ort::Session session{nullptr};
  std::vector<std::string> inputs, outputs;
};

Ort::Value wrap(DType dtype, const Shape& shape, void* data) {
  static const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const std::size_t bytes = TensorView{dtype, shape, data}.bytes();
  return Ort::Value::CreateTensor(memory, data, bytes, shape.begin(), shape.rank(),
                                  kTypes[static_cast<std::size_t>(dtype)]);
}

class OnnxRunner : public Runner {
 public:
  explicit OnnxRunner(std::shared_ptr<OnnxModel> model)
      : model_(std::move(model)), binding_(model_->session) {}

  void run(std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) override {
    for (std::size_t index = 0; index < inputs.size(); ++index) {
      const ConstTensorView& input = inputs[index];
      binding_.BindInput(model_->inputs[index].c_str(),
                         wrap(input.dtype, input.shape, const_cast<void*>(input.data)));
    }
    for (std::size_t index = 0; index < outputs.size(); ++index) {
      const TensorView& output = outputs[index];
      binding_.BindOutput(model_->outputs[index].c_str(),
                          wrap(output.dtype, output.shape, output.data));
    }
    model_->session.Run(options_, binding_);
  }

 private:
  std::shared_ptr<OnnxModel> model_;
  Ort::IoBinding binding_;
  Ort::RunOptions options_;
};

class OnnxBackend : public Backend {
 public:
  explicit OnnxBackend(const std::filesystem::path& file) {
    platform = "onnxruntime_onnx";
    model_name = file.stem().string();
    file_ = file;
    model_ = load();
    Ort::AllocatorWithDefaultOptions allocator;
    Ort::Session& session = model_->session;
    takes_batches = true;
    for (std::size_t index = 0; index < session.GetInputCount(); ++index) {
      model_->inputs.emplace_back(session.GetInputNameAllocated(index, allocator).get());
      inputs.push_back(spec(model_->inputs.back(), session.GetInputTypeInfo(index)));
      takes_batches &= has_free_batch(session.GetInputTypeInfo(index));
    }
    for (std::size_t index = 0; index < session.GetOutputCount(); ++index) {
      model_->outputs.emplace_back(session.GetOutputNameAllocated(index, allocator).get());
      outputs.push_back(spec(model_->outputs.back(), session.GetOutputTypeInfo(index)));
    }
  }

  std::unique_ptr<Runner> make_runner(int) const override {
    return std::make_unique<OnnxRunner>(model_);
  }

 private:
  std::shared_ptr<OnnxModel> load() const {
    auto model = std::make_shared<OnnxModel>();
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    options.SetInterOpNumThreads(1);
    options.SetGraphOptimizationLevel(ORT_ENABLE_ALL);
    options.AddConfigEntry("session.intra_op.allow_spinning", "0");
    model->session = Ort::Session(model->env, file_.c_str(), options);
    return model;
  }

  std::filesystem::path file_;
  std::shared_ptr<OnnxModel> model_;
};

}  // namespace

std::unique_ptr<Backend> load_onnxruntime(const std::filesystem::path& file) {
  return std::make_unique<OnnxBackend>(file);
}

}  // namespace server
