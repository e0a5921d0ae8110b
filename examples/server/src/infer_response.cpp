#include "infer_response.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>

#include "classification.h"
#include "datatypes.h"
#include "json_text.h"

namespace server {
namespace {

using nlohmann::ordered_json;
using pyquant::ConstTensorView;

template <typename T>
ordered_json numbers(const ConstTensorView& tensor) {
  return std::span(static_cast<const T*>(tensor.data),
                   static_cast<std::size_t>(tensor.shape.elements()));
}

// By DType.
constexpr ordered_json (*kNumbers[])(const ConstTensorView&) = {
    numbers<std::uint8_t>, numbers<std::int8_t>, numbers<std::int32_t>, numbers<float>};

void append_length(std::string& binary, std::size_t length) {
  const auto value = static_cast<std::uint32_t>(length);
  binary.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// Writes outputs: what is said of them into JSON objects, binary data into one string.
class Writer {
 public:
  explicit Writer(const Model& model) : model_(model) {}

  void write(const RequestedOutput& requested, const ConstTensorView& tensor) {
    if (requested.classes > 0) {
      write_classes(requested, tensor);
      return;
    }
    ordered_json& entry = add(requested, datatype(tensor.dtype), tensor.shape);
    if (requested.binary) {
      entry["parameters"]["binary_data_size"] = tensor.bytes();
      binary_.append(static_cast<const char*>(tensor.data), tensor.bytes());
    } else {
      entry["data"] = kNumbers[static_cast<std::size_t>(tensor.dtype)](tensor);
    }
  }

  InferResponse finish(ordered_json head) {
    head["outputs"] = std::move(outputs_);
    InferResponse response{json_text(head), std::nullopt};
    if (has_binary_) {
      response.json_length = response.body.size();
      response.body += binary_;
    }
    return response;
  }

 private:
  ordered_json& add(const RequestedOutput& requested, std::string_view type,
                    const pyquant::Shape& shape) {
    has_binary_ |= requested.binary;
    ordered_json& entry = outputs_.emplace_back();
    entry["name"] = model_.backend->outputs[requested.index].name;
    entry["datatype"] = type;
    entry["shape"] = std::span(shape.begin(), shape.end());
    return entry;
  }

  void write_classes(const RequestedOutput& requested, const ConstTensorView& tensor) {
    const std::vector<std::string> best = best_classes(tensor, requested.classes, model_.labels);
    const std::int64_t batch = tensor.shape.rank() == 0 ? 1 : tensor.shape[0];
    const pyquant::Shape shape = {batch, static_cast<std::int64_t>(best.size()) / batch};
    ordered_json& entry = add(requested, kBytes, shape);
    if (!requested.binary) {
      entry["data"] = best;
      return;
    }
    const std::size_t start = binary_.size();
    for (const std::string& text : best) {
      append_length(binary_, text.size());
      binary_ += text;
    }
    entry["parameters"]["binary_data_size"] = binary_.size() - start;
  }

  const Model& model_;
  ordered_json outputs_ = ordered_json::array();
  std::string binary_;
  bool has_binary_ = false;
};

}  // namespace

InferResponse make_infer_response(const Model& model, const InferRequest& request,
                                  const OutputData& data) {
  Writer writer(model);
  for (const RequestedOutput& output : request.outputs) {
    const TensorSpec& spec = model.backend->outputs[output.index];
    writer.write(output, {spec.dtype, model.backend->shape_of(spec, request.batch),
                          data[output.index].data()});
  }
  ordered_json head = {{"model_name", model.name}, {"model_version", kModelVersion}};
  if (!request.id.empty()) {
    head["id"] = request.id;
  }
  return writer.finish(std::move(head));
}

}  // namespace server
