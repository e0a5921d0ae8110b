// The torch operators of quantization in training and their gradients; what they do is described in
// pyquant/quantization/fake_quantize_op.py.
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/FunctionRef.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

namespace pyquant::python {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;
using Axis = std::optional<std::int64_t>;
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;  // of x, scale and zero point
using Rounded = std::tuple<at::Tensor, at::Tensor>;  // the values, and the bits of what passed

template <typename Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

at::Tensor pass_gradient(const at::Tensor& dy, const at::Tensor& passed,
                         c10::SymIntArrayRef strides) {
  static const auto kOperator =
      find<at::Tensor(const at::Tensor&, const at::Tensor&, c10::SymIntArrayRef)>(
          "pyquant::pass_gradient");
  return kOperator.call(dy, passed, strides);
}

bool wants_gradient(const at::Tensor& x) { return at::GradMode::is_enabled() && x.requires_grad(); }

// The gradient of what was not clamped passes. Needs one bit for each value of x.
struct StraightThrough : Function<StraightThrough> {
  static constexpr bool is_traceable = true;  // compiled autograd may look into `backward`

  static variable_list forward(AutogradContext* context, const at::Tensor& /*x*/,
                               c10::function_ref<Rounded()> round) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto [y, passed] = round();
    context->set_materialize_grads(false);
    context->save_for_backward({passed});
    context->saved_data["strides"] = y.sym_strides();
    return {y, passed};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    if (!gradients[0].defined()) {
      return {{}, {}};
    }
    const auto strides = context->saved_data["strides"].toSymIntVector();
    return {pass_gradient(gradients[0], context->get_saved_variables()[0], strides), {}};
  }
};

Rounded straight_through(const at::Tensor& x, c10::function_ref<Rounded()> round) {
  if (!wants_gradient(x)) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return round();
  }
  const variable_list outputs = StraightThrough::apply(x, round);
  return {outputs[0], outputs[1]};
}

// The same, and the gradients of the scale and of a zero point in float32.
struct LearnedStep : Function<LearnedStep> {
  static constexpr bool is_traceable = true;

  static variable_list forward(AutogradContext* context, const at::Tensor& x,
                               const at::Tensor& scale, const at::Tensor& zero_point,
                               std::int64_t quant_min, std::int64_t quant_max, Axis axis,
                               const c10::SymInt& features, c10::function_ref<Rounded()> round) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto [y, passed] = round();
    context->set_materialize_grads(false);
    context->save_for_backward({x, scale, zero_point});
    context->saved_data["quant_min"] = quant_min;
    context->saved_data["quant_max"] = quant_max;
    context->saved_data["axis"] = axis;
    context->saved_data["features"] = features;
    return {y, passed};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    variable_list all(8);
    if (gradients[0].defined()) {
      static const auto kOperator =
          find<Gradients(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                         std::int64_t, std::int64_t, Axis, c10::SymInt)>(
              "pyquant::learned_step_backward");
      const variable_list saved = context->get_saved_variables();
      at::Tensor dzero_point;
      auto& with = context->saved_data;
      std::tie(all[0], all[1], dzero_point) = kOperator.call(
          saved[0], gradients[0], saved[1], saved[2], with["quant_min"].toInt(),
          with["quant_max"].toInt(), with["axis"].to<Axis>(), with["features"].toSymInt());
      if (saved[2].is_floating_point()) {
        all[2] = dzero_point;
      }
    }
    return all;
  }
};

Rounded observe_fake_quantize(const at::Tensor& x, const at::Tensor& low, const at::Tensor& high,
                              const at::Tensor& scale, const at::Tensor& zero_point,
                              const std::optional<at::Tensor>& extremes, double floor,
                              double ceiling, std::optional<double> averaging_constant,
                              std::int64_t quant_min, std::int64_t quant_max, bool symmetric,
                              Axis axis) {
  static const auto kOperator =
      find<decltype(observe_fake_quantize)>("pyquant::observe_fake_quantize");
  return straight_through(x, [&] {
    return kOperator.call(x, low, high, scale, zero_point, extremes, floor, ceiling,
                          averaging_constant, quant_min, quant_max, symmetric, axis);
  });
}

Rounded fake_quantize(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& zero_point,
                      std::int64_t quant_min, std::int64_t quant_max, Axis axis,
                      c10::SymInt features) {
  static const auto kOperator = find<decltype(fake_quantize)>("pyquant::fake_quantize");
  const auto round = [&] {
    return kOperator.call(x, scale, zero_point, quant_min, quant_max, axis, features);
  };
  if (!wants_gradient(scale) && !wants_gradient(zero_point)) {
    return straight_through(x, round);
  }
  const variable_list outputs = LearnedStep::apply(x, scale, zero_point, quant_min, quant_max, axis,
                                                   features, c10::function_ref<Rounded()>(round));
  return {outputs[0], outputs[1]};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(pyquant, library) {
  library.def(
      "observe_fake_quantize(Tensor x, Tensor(a!) low, Tensor(b!) high, Tensor(c!) scale, "
      "Tensor(d!) zero_point, Tensor? extremes, float floor, float ceiling, "
      "float? averaging_constant, int quant_min, int quant_max, bool symmetric, int? axis) "
      "-> (Tensor, Tensor)");
  library.def(
      "fake_quantize(Tensor x, Tensor scale, Tensor zero_point, int quant_min, int quant_max, "
      "int? axis, SymInt features) -> (Tensor, Tensor)");
  library.def("pass_gradient(Tensor dy, Tensor passed, SymInt[] strides) -> Tensor");
  library.def(
      "learned_step_backward(Tensor x, Tensor dy, Tensor scale, Tensor zero_point, int quant_min, "
      "int quant_max, int? axis, SymInt features) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(pyquant, Autograd, kernels) {
  kernels.impl("observe_fake_quantize", &observe_fake_quantize);
  kernels.impl("fake_quantize", &fake_quantize);
  kernels.impl("pass_gradient", torch::autograd::autogradNotImplementedFallback());
  kernels.impl("learned_step_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace pyquant::python
