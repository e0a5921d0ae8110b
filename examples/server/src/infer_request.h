// The request of POST /v2/models/NAME/infer: JSON, with the binary tensor data extension.
// https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
// https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
#pragma once

#include <pyquant/tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model.h"

namespace server {

struct RequestedOutput {
  std::size_t index = 0;    // in the model's outputs
  bool binary = false;      // behind the JSON rather than in it
  std::size_t classes = 0;  // so many best ones instead of the tensor; 0: the tensor
};

struct InferRequest {
  std::string id;
  std::int64_t batch = 1;
  std::vector<pyquant::ConstTensorView> inputs;  // in the model's order
  std::vector<RequestedOutput> outputs;

  // What the views refer to, where they do not refer to the body.
  std::vector<std::unique_ptr<std::byte[]>> storage;
};

// What of the HTTP header matters here.
struct BodyFormat {
  std::string_view content_type;
  std::optional<std::string_view> json_length;  // Inference-Header-Content-Length
};

struct RequestLimits {
  std::int64_t max_batch;
  std::size_t max_pixels;
};

// Reads a body of one of three kinds: JSON, perhaps with binary data behind it; with a JSON length
// of 0, the data of the only input and nothing else; with a Content-Type of image/..., a picture.
// The result may refer to the body. Throws RequestError.
InferRequest parse_infer_request(const Model& model, const RequestLimits& limits,
                                 const BodyFormat& format, std::string_view body);

}  // namespace server
