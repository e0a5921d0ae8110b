// An Operator that owns its constants, for engines that read them after prepare.
#pragma once

#include <cstring>
#include <vector>

#include "pyquant/operator.h"

namespace pyquant {

class OwnedOperator {
 public:
  explicit OwnedOperator(const Operator& op) : op_(op) {
    storage_.reserve(op.inputs.size());
    for (Operand& input : op_.inputs) {
      if (input.constant.data == nullptr) {
        continue;
      }
      const std::size_t bytes = input.constant.bytes();
      storage_.emplace_back(bytes);
      std::memcpy(storage_.back().data(), input.constant.data, bytes);
      input.constant.data = storage_.back().data();
      if (input.channel_scales != nullptr) {
        scales_.assign(input.channel_scales, input.channel_scales + input.constant.shape[0]);
        input.channel_scales = scales_.data();
      }
    }
  }
  OwnedOperator(const OwnedOperator&) = delete;
  OwnedOperator& operator=(const OwnedOperator&) = delete;

  const Operator& get() const { return op_; }

 private:
  Operator op_;
  std::vector<std::vector<std::byte>> storage_;
  std::vector<float> scales_;
};

}  // namespace pyquant
