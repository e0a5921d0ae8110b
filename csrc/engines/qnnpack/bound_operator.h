// A QNNPACK operator as a BoundKernel.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engines/engine.h"
#include "engines/qnnpack/qnnpack_api.h"
#include "engines/qnnpack/staged_input.h"

namespace pyquant::qnnpack_engine {

struct DeleteOperator {
  void operator()(pytorch_qnnp_operator_t op) const { pytorch_qnnp_delete_operator(op); }
};
using OperatorHandle = std::unique_ptr<pytorch_qnnp_operator, DeleteOperator>;

// Throws Error, or std::bad_alloc, unless `status` is success.
void check(pytorch_qnnp_status status, const std::string& name);

class BoundOperator final : public BoundKernel {
 public:
  // Tells the operator its shapes and pointers; `b` is null unless there are two inputs.
  using Setup = std::function<pytorch_qnnp_status(pytorch_qnnp_operator_t op, const std::uint8_t* a,
                                                  const std::uint8_t* b, std::uint8_t* output)>;

  BoundOperator(std::string name, OperatorHandle op, Setup setup,
                std::optional<StagedInput> staged = std::nullopt);

  std::size_t scratch_bytes() const override;
  void run(const RunArgs& args) override;

 private:
  std::string name_;
  OperatorHandle op_;
  Setup setup_;
  std::optional<StagedInput> staged_;
  // What the operator was set up with: doing so again costs as much as a small convolution.
  std::array<const void*, 3> pointers_{};
};

}  // namespace pyquant::qnnpack_engine
