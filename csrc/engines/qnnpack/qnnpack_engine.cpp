#include "engines/qnnpack/qnnpack_engine.h"

#include "engines/qnnpack/kernels.h"
#include "engines/qnnpack/qnnpack_api.h"

namespace pyquant {
namespace qnnpack_engine {
namespace {

template <typename Attributes>
concept Runnable =
    requires(const Operator& op, const Attributes& attributes) { why_unsupported(op, attributes); };

class QnnpackEngine final : public Engine {
 public:
  std::string_view name() const override { return "qnnpack"; }

  std::string why_unsupported(const Operator& op) const override {
    // Idempotent, and thread-safe.
    if (pytorch_qnnp_initialize() != pytorch_qnnp_status_success) {
      return "QNNPACK does not run on this CPU";
    }
    return std::visit(
        [&op](const auto& attributes) -> std::string {
          if constexpr (Runnable<decltype(attributes)>) {
            return qnnpack_engine::why_unsupported(op, attributes);
          } else {
            return "QNNPACK has no such operator";
          }
        },
        op.attributes);
  }

  std::unique_ptr<PreparedKernel> prepare(const Operator& op,
                                          std::span<const PostOp> /*post_ops*/) const override {
    return std::visit(
        [&op](const auto& attributes) -> std::unique_ptr<PreparedKernel> {
          if constexpr (Runnable<decltype(attributes)>) {
            return qnnpack_engine::prepare(op, attributes);
          } else {
            return nullptr;  // why_unsupported has refused it
          }
        },
        op.attributes);
  }
};

}  // namespace
}  // namespace qnnpack_engine

std::unique_ptr<Engine> make_qnnpack_engine() {
  return std::make_unique<qnnpack_engine::QnnpackEngine>();
}

}  // namespace pyquant
