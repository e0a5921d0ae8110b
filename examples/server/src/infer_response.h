// The answer to POST /v2/models/NAME/infer.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "infer_request.h"

namespace server {

// The model's outputs for one request, in the model's order, each dense with the request's batch.
using OutputData = std::vector<std::vector<std::byte>>;

struct InferResponse {
  std::string body;
  std::optional<std::size_t> json_length;  // if binary data follow the JSON
};

InferResponse make_infer_response(const Model& model, const InferRequest& request,
                                  const OutputData& data);

}  // namespace server
