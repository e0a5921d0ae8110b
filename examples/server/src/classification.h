// The classification extension: the best classes of each image instead of all scores.
// https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md
#pragma once

#include <pyquant/tensor.h>

#include <cstddef>
#include <string>
#include <vector>

namespace server {

// "score:index:label" of the largest values, image after image, as many for each: `count`, or all
// if there are fewer. The label is left out where there is none.
std::vector<std::string> best_classes(const pyquant::ConstTensorView& scores, std::size_t count,
                                      const std::vector<std::string>& labels);

}  // namespace server
