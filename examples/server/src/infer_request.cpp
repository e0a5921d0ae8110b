#include "infer_request.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "datatypes.h"
#include "request_error.h"
#include "tensor_data.h"

namespace server {
namespace {

using nlohmann::json;
using pyquant::Shape;

// The best classes that a picture is answered with.
constexpr std::size_t kPictureClasses = 5;

// The JSON of a request needs no more than an object, its lists, and the dimensions of data.
constexpr int kMaxDepth = 16;

const json kNoList = json::array();
const json kNoFields = json::object();

// The value of a field, or the other one if it is absent; refers to one of them. Throws
// RequestError if it is of another type than the other one.
const json& get(const json& object, const char* name, const json& otherwise) {
  const auto found = object.find(name);
  if (found == object.end()) {
    return otherwise;
  }
  if (found->type() != otherwise.type()) {
    throw RequestError(std::string("\"") + name + "\" must be of the type " +
                       (otherwise.is_number() ? "natural number" : otherwise.type_name()));
  }
  return *found;
}

// Lists in lists take much more memory than text, so that they are counted before they are read.
void check_depth(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char character = text[at];
    if (in_string) {
      at += character == '\\' ? 1 : 0;
      in_string = character != '"';
    } else if (character == '"') {
      in_string = true;
    } else if (character == '[' || character == '{') {
      if (++depth > kMaxDepth) {
        throw RequestError("the JSON is nested too deep");
      }
    } else if (character == ']' || character == '}') {
      --depth;
    }
  }
}

json parse_json(std::string_view text) {
  check_depth(text);
  try {
    return json::parse(text);
  } catch (const json::exception& error) {
    throw RequestError(std::string("the JSON cannot be read: ") + error.what());
  }
}

std::size_t parse_length(std::string_view text) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw RequestError("Inference-Header-Content-Length is not a number");
  }
  return value;
}

// The index of the tensor of that name.
std::size_t find(const std::vector<TensorSpec>& specs, const json& entry, const char* kind) {
  if (!entry.is_object()) {
    throw RequestError(std::string("every ") + kind + " must be an object");
  }
  const std::string name = get(entry, "name", "");
  const auto found = std::ranges::find(specs, name, &TensorSpec::name);
  if (found == specs.end()) {
    throw RequestError("the model has no " + std::string(kind) + " \"" + name + "\"");
  }
  return static_cast<std::size_t>(found - specs.begin());
}

// Reads one request; throws RequestError.
class Parser {
 public:
  Parser(const Model& model, const RequestLimits& limits) : model_(model), limits_(limits) {
    result_.inputs.resize(specs().size());
  }

  // The picture alone.
  InferRequest picture(std::string_view body) {
    set_pictures({body});
    result_.outputs.push_back({.classes = kPictureClasses});
    return std::move(result_);
  }

  // The only input's data alone.
  InferRequest raw(std::string_view body) {
    if (specs().size() != 1) {
      throw RequestError("a body without JSON is for models of one input");
    }
    const TensorSpec& spec = specs()[0];
    const std::size_t image = pyquant::ConstTensorView(spec.dtype, spec.shape, nullptr).bytes() /
                              static_cast<std::size_t>(std::max<std::int64_t>(own_batch(), 1));
    const auto batch = static_cast<std::int64_t>(std::max<std::size_t>(body.size() / image, 1));
    set_input(0,
              from_binary(spec.dtype, checked(spec, model_.backend->shape_of(spec, batch)), body));
    all_outputs(true);
    return std::move(result_);
  }

  InferRequest json_and_binary(const json& header, std::string_view binary) {
    if (!header.is_object()) {
      throw RequestError("the request must be a JSON object");
    }
    result_.id = get(header, "id", "");
    for (const json& entry : get(header, "inputs", kNoList)) {
      parse_input(entry, binary);
    }
    if (!binary.empty()) {
      throw RequestError(std::to_string(binary.size()) +
                         " bytes of binary data belong to no input: see binary_data_size");
    }
    for (std::size_t index = 0; index < specs().size(); ++index) {
      if (result_.inputs[index].data == nullptr) {
        throw RequestError("the input \"" + specs()[index].name + "\" is missing");
      }
    }
    const json& parameters = get(header, "parameters", kNoFields);
    const bool binary_outputs = get(parameters, "binary_data_output", false);
    for (const json& entry : get(header, "outputs", kNoList)) {
      parse_output(entry, binary_outputs);
    }
    if (result_.outputs.empty()) {
      all_outputs(binary_outputs);
    }
    return std::move(result_);
  }

 private:
  const std::vector<TensorSpec>& specs() const { return model_.backend->inputs; }

  std::int64_t own_batch() const {
    const Shape& shape = specs()[0].shape;
    return shape.rank() == 0 ? 1 : shape[0];
  }

  // The shape, if the model takes it for that input.
  Shape checked(const TensorSpec& spec, const Shape& shape) const {
    const bool batches = model_.backend->takes_batches;
    Shape expected = spec.shape;
    if (batches && shape.rank() > 0) {
      expected[0] = std::clamp<std::int64_t>(shape[0], 1, limits_.max_batch);
    }
    if (shape != expected) {
      throw RequestError(
          "the input \"" + spec.name + "\" has the shape " + shape.to_string() +
          "; the model takes " + spec.shape.to_string() +
          (batches ? ", with 1 to " + std::to_string(limits_.max_batch) + " in front" : ""));
    }
    return shape;
  }

  void set_input(std::size_t index, TensorData data) {
    if (result_.inputs[index].data != nullptr) {
      throw RequestError("the input \"" + specs()[index].name + "\" is there twice");
    }
    const std::int64_t batch = data.view.shape.rank() == 0 ? 1 : data.view.shape[0];
    const bool first =
        std::ranges::all_of(result_.inputs, [](const auto& view) { return view.data == nullptr; });
    if (!first && model_.backend->takes_batches && batch != result_.batch) {
      throw RequestError("the inputs differ in their batch size");
    }
    result_.batch = batch;
    result_.inputs[index] = data.view;
    result_.storage.push_back(std::move(data.storage));
  }

  void set_pictures(const std::vector<std::string_view>& pictures) {
    if (!model_.image) {
      throw RequestError(415,
                         "the model takes no pictures: it is not from a bundle with preprocessing");
    }
    const TensorSpec& spec = specs()[0];
    Shape shape = spec.shape;
    shape[0] = static_cast<std::int64_t>(pictures.size());
    set_input(0, from_pictures(*model_.image, checked(spec, shape), pictures, limits_.max_pixels));
  }

  // Takes the input's part off the binary data.
  void parse_input(const json& entry, std::string_view& binary) {
    const std::size_t index = find(specs(), entry, "input");
    const TensorSpec& spec = specs()[index];
    const std::string type = get(entry, "datatype", "");
    const json& parameters = get(entry, "parameters", kNoFields);
    const bool is_binary = parameters.contains("binary_data_size");
    std::string_view data;
    if (is_binary) {
      const std::size_t size = get(parameters, "binary_data_size", 0U);
      if (size > binary.size()) {
        throw RequestError("the body ends before the binary data of \"" + spec.name + "\"");
      }
      data = binary.substr(0, size);
      binary.remove_prefix(size);
    }
    if (type == kBytes) {
      if (!is_binary) {
        throw RequestError("pictures (BYTES) go as binary data, not in the JSON");
      }
      parse_pictures(entry, data);
      return;
    }
    if (type != datatype(spec.dtype)) {
      throw RequestError("the input \"" + spec.name + "\" has the datatype \"" + type +
                         "\"; the model takes " + std::string(datatype(spec.dtype)));
    }
    const Shape shape = checked(spec, parse_shape(entry));
    set_input(index, is_binary ? from_binary(spec.dtype, shape, data)
                               : from_json(spec.dtype, shape, get(entry, "data", kNoList)));
  }

  void parse_pictures(const json& entry, std::string_view data) {
    const std::vector<std::string_view> pictures = split_bytes_tensor(data);
    const Shape shape = parse_shape(entry);
    const auto count = static_cast<std::int64_t>(pictures.size());
    if (shape != Shape{count} && shape != Shape{count, 1}) {
      throw RequestError("an input of shape " + shape.to_string() + " has " +
                         std::to_string(count) + " pictures");
    }
    set_pictures(pictures);
  }

  static Shape parse_shape(const json& entry) {
    Shape shape;
    const json& dimensions = get(entry, "shape", kNoList);
    if (dimensions.size() > Shape::kMaxRank) {
      throw RequestError("a shape has too many dimensions");
    }
    for (const json& dimension : dimensions) {
      if (!dimension.is_number_unsigned() || dimension > INT32_MAX) {
        throw RequestError("a shape must be a list of natural numbers");
      }
      shape.push_back(dimension);
    }
    return shape;
  }

  void parse_output(const json& entry, bool binary) {
    RequestedOutput output;
    output.index = find(model_.backend->outputs, entry, "output");
    const json& parameters = get(entry, "parameters", kNoFields);
    output.binary = get(parameters, "binary_data", binary);
    output.classes = get(parameters, "classification", 0U);
    result_.outputs.push_back(output);
    if (result_.outputs.size() > model_.backend->outputs.size()) {
      throw RequestError("an output is there twice");
    }
  }

  void all_outputs(bool binary) {
    for (std::size_t index = 0; index < model_.backend->outputs.size(); ++index) {
      result_.outputs.push_back({.index = index, .binary = binary});
    }
  }

  const Model& model_;
  const RequestLimits& limits_;
  InferRequest result_;
};

}  // namespace

InferRequest parse_infer_request(const Model& model, const RequestLimits& limits,
                                 const BodyFormat& format, std::string_view body) {
  Parser parser(model, limits);
  if (format.content_type.starts_with("image/")) {
    return parser.picture(body);
  }
  const std::size_t length = format.json_length ? parse_length(*format.json_length) : body.size();
  if (length > body.size()) {
    throw RequestError("Inference-Header-Content-Length is larger than the body");
  }
  if (length == 0 && format.json_length) {
    return parser.raw(body);
  }
  return parser.json_and_binary(parse_json(body.substr(0, length)), body.substr(length));
}

}  // namespace server
