// The `reference` engine: every operator as plain loops over its definition in operator.h. Slow;
// the truth that all other engines are compared with.
#pragma once

#include <memory>

#include "engines/engine.h"

namespace pyquant {

std::unique_ptr<Engine> make_reference_engine();

namespace reference {

// One function per kind of operator, in the file of its name. `inputs` are the activation inputs
// and `output` the result, with their shapes.
using Function = void (*)(const Operator& op, std::span<const ConstTensorView> inputs,
                          const TensorView& output);

void run_quantize(const Operator& op, std::span<const ConstTensorView> inputs,
                  const TensorView& output);
void run_dequantize(const Operator& op, std::span<const ConstTensorView> inputs,
                    const TensorView& output);
void run_conv2d(const Operator& op, std::span<const ConstTensorView> inputs,
                const TensorView& output);
void run_linear(const Operator& op, std::span<const ConstTensorView> inputs,
                const TensorView& output);
void run_add(const Operator& op, std::span<const ConstTensorView> inputs, const TensorView& output);
void run_max_pool2d(const Operator& op, std::span<const ConstTensorView> inputs,
                    const TensorView& output);
void run_avg_pool2d(const Operator& op, std::span<const ConstTensorView> inputs,
                    const TensorView& output);
void run_adaptive_avg_pool2d(const Operator& op, std::span<const ConstTensorView> inputs,
                             const TensorView& output);
void run_flatten(const Operator& op, std::span<const ConstTensorView> inputs,
                 const TensorView& output);
void run_pad(const Operator& op, std::span<const ConstTensorView> inputs, const TensorView& output);
void run_table(const Operator& op, std::span<const ConstTensorView> inputs,
               const TensorView& output);
void run_mul(const Operator& op, std::span<const ConstTensorView> inputs, const TensorView& output);
void run_concat(const Operator& op, std::span<const ConstTensorView> inputs,
                const TensorView& output);
void run_slice(const Operator& op, std::span<const ConstTensorView> inputs,
               const TensorView& output);
void run_channel_shuffle(const Operator& op, std::span<const ConstTensorView> inputs,
                         const TensorView& output);
void run_resize_nearest(const Operator& op, std::span<const ConstTensorView> inputs,
                        const TensorView& output);
void run_resize_bilinear(const Operator& op, std::span<const ConstTensorView> inputs,
                         const TensorView& output);
void run_conv_transpose2d(const Operator& op, std::span<const ConstTensorView> inputs,
                          const TensorView& output);
void run_adaptive_max_pool2d(const Operator& op, std::span<const ConstTensorView> inputs,
                             const TensorView& output);
void run_reshape(const Operator& op, std::span<const ConstTensorView> inputs,
                 const TensorView& output);

}  // namespace reference
}  // namespace pyquant
