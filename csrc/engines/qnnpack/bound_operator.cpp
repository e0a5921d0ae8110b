#include "engines/qnnpack/bound_operator.h"

#include <new>
#include <utility>

#include "pyquant/error.h"

namespace pyquant::qnnpack_engine {

void check(pytorch_qnnp_status status, const std::string& name) {
  switch (status) {
    case pytorch_qnnp_status_success:
      return;
    case pytorch_qnnp_status_out_of_memory:
      throw std::bad_alloc();
    default:
      throw Error("QNNPACK refused '" + name + "' with status " +
                  std::to_string(static_cast<int>(status)));
  }
}

BoundOperator::BoundOperator(std::string name, OperatorHandle op, Setup setup,
                             std::optional<StagedInput> staged)
    : name_(std::move(name)), op_(std::move(op)), setup_(std::move(setup)), staged_(staged) {
  // QNNPACK allocates its indirection buffer here, so that run finds it large enough. It only
  // computes addresses.
  check(setup_(op_.get(), nullptr, nullptr, nullptr), name_);
}

std::size_t BoundOperator::scratch_bytes() const { return staged_ ? staged_->scratch_bytes() : 0; }

void BoundOperator::run(const RunArgs& args) {
  const void* a = staged_ ? staged_->copy(args.inputs[0], args.scratch) : args.inputs[0];
  const void* b = args.inputs.size() > 1 ? args.inputs[1] : nullptr;
  const std::array<const void*, 3> pointers = {a, b, args.output};
  if (pointers != pointers_) {
    check(setup_(op_.get(), static_cast<const std::uint8_t*>(a),
                 static_cast<const std::uint8_t*>(b), static_cast<std::uint8_t*>(args.output)),
          name_);
    pointers_ = pointers;
  }
  check(pytorch_qnnp_run_operator(op_.get(), /*threadpool=*/nullptr), name_);
}

}  // namespace pyquant::qnnpack_engine
