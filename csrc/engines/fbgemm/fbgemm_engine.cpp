#include "engines/fbgemm/fbgemm_engine.h"

#include <fbgemm/Fbgemm.h>

#include <utility>

#include "engines/fbgemm/depthwise.h"
#include "engines/fbgemm/gemm.h"
#include "engines/fbgemm/groupwise.h"
#include "engines/fbgemm/layer.h"
#include "engines/fbgemm/output_stage.h"

namespace pyquant {
namespace fbgemm_engine {
namespace {

class FbgemmEngine final : public Engine {
 public:
  std::string_view name() const override { return "fbgemm"; }

  std::string why_unsupported(const Operator& op) const override {
    if (!std::holds_alternative<Conv2d>(op.attributes) &&
        !std::holds_alternative<Linear>(op.attributes)) {
      return "FBGEMM has convolutions and linear layers only";
    }
    // Also initialises cpuinfo: before the first call FBGEMM's feature tests all answer no.
    if (!fbgemm::fbgemmSupportedCPU()) {
      return "FBGEMM needs a CPU with AVX2";
    }
    return {};
  }

  std::unique_ptr<PreparedKernel> prepare(const Operator& op,
                                          std::span<const PostOp> /*post_ops*/) const override {
    const Layer layer(op);
    OutputStage stage(op);
    if (is_depthwise(layer)) {
      return prepare_depthwise(layer, std::move(stage));
    }
    if (is_groupwise(layer, stage)) {
      return prepare_groupwise(layer, std::move(stage));
    }
    return prepare_gemm(layer, std::move(stage));
  }
};

}  // namespace
}  // namespace fbgemm_engine

std::unique_ptr<Engine> make_fbgemm_engine() {
  return std::make_unique<fbgemm_engine::FbgemmEngine>();
}

}  // namespace pyquant
