// Fuzzes the reader of model.pyq, the planner and the kernels: whatever the bytes are, a Program is
// refused with a pyquant error, or runs, and then native and reference give the same bits.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "fuzz_program.h"
#include "program_generated.h"
#include "pyquant/error.h"
#include "pyquant/program.h"
#include "pyquant/session.h"

namespace {

using namespace pyquant;

// What one input may cost: more would only make the fuzzer slow.
constexpr std::int64_t kMaxElements = 1 << 18;
constexpr std::int64_t kMaxMultiplyAdds = 1 << 21;

std::int64_t elements(const fb::TensorT& tensor) {
  std::int64_t count = 1;
  for (const std::int32_t size : tensor.shape) {
    count *= size;  // the reader has checked that the product fits
  }
  return count;
}

// Of the windows and weights that `node` slides over every output element.
std::int64_t window_area(const fb::ProgramT& program, const fb::NodeT& node) {
  if (node.op.AsMaxPool2d() != nullptr || node.op.AsAvgPool2d() != nullptr) {
    const fb::Window& window = node.op.AsMaxPool2d() != nullptr ? *node.op.AsMaxPool2d()->window
                                                                : *node.op.AsAvgPool2d()->window;
    return static_cast<std::int64_t>(window.kernel_h()) * window.kernel_w();
  }
  if (node.op.AsAdaptiveAvgPool2d() != nullptr || node.op.AsAdaptiveMaxPool2d() != nullptr) {
    return elements(*program.tensors[node.inputs[0]]);
  }
  if (node.inputs.size() > 1 && program.tensors[node.inputs[1]]->buffer != 0) {
    const fb::TensorT& weight = *program.tensors[node.inputs[1]];
    return elements(weight) / weight.shape[0];
  }
  return 1;
}

bool is_cheap(std::span<const std::uint8_t> bytes) {
  const std::unique_ptr<fb::ProgramT> program = fb::UnPackProgram(bytes.data());
  std::int64_t size = 0;
  for (const auto& tensor : program->tensors) {
    size += elements(*tensor);
  }
  std::int64_t work = 0;
  for (const auto& node : program->nodes) {
    const std::int64_t outputs = elements(*program->tensors[node->output]);
    const std::int64_t area = window_area(*program, *node);
    if (area > kMaxMultiplyAdds / outputs) {
      return false;
    }
    work += outputs * area;
  }
  return size <= kMaxElements && work <= kMaxMultiplyAdds;
}

// Buffers of exactly the right size, so that AddressSanitizer sees every byte beyond them.
std::vector<std::vector<std::uint8_t>> make_inputs(const Program& program,
                                                   const std::vector<Shape>& shapes) {
  std::vector<std::vector<std::uint8_t>> inputs;
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const DType dtype = program.inputs()[i].dtype;
    const auto count = static_cast<std::size_t>(shapes[i].elements());
    std::vector<std::uint8_t>& bytes = inputs.emplace_back(count * size_of(dtype));
    for (std::size_t j = 0; j < count; ++j) {
      state = state * 1664525U + 1013904223U;
      if (dtype == DType::kFloat32) {
        const float value = static_cast<float>(static_cast<std::int32_t>(state >> 8U) % 4096) / 256;
        std::memcpy(bytes.data() + j * sizeof value, &value, sizeof value);
      } else {
        bytes[j * size_of(dtype)] = static_cast<std::uint8_t>(state >> 24U);
      }
    }
  }
  return inputs;
}

std::vector<std::vector<std::uint8_t>> run(const std::shared_ptr<const Program>& program,
                                           const SessionOptions& options,
                                           const std::vector<Shape>& shapes) {
  Session session(program, options);
  const std::vector<Shape> output_shapes = session.output_shapes(shapes);
  const std::vector<std::vector<std::uint8_t>> inputs = make_inputs(*program, shapes);
  std::vector<std::vector<std::uint8_t>> outputs;
  std::vector<ConstTensorView> input_views;
  std::vector<TensorView> output_views;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    input_views.push_back({program->inputs()[i].dtype, shapes[i], inputs[i].data()});
  }
  for (std::size_t i = 0; i < output_shapes.size(); ++i) {
    const DType dtype = program->outputs()[i].dtype;
    outputs.emplace_back(static_cast<std::size_t>(output_shapes[i].elements()) * size_of(dtype));
    output_views.push_back({dtype, output_shapes[i], outputs.back().data()});
  }
  session.run(input_views, output_views);
  session.run(input_views, output_views);  // the second run of a plan is another path
  return outputs;
}

void check_engines_agree(const std::shared_ptr<const Program>& program,
                         const std::vector<Shape>& shapes, int threads) {
  const auto expected = run(program, {.engine = "reference", .fuse = false}, shapes);
  if (run(program, {.engine = "native", .threads = threads}, shapes) != expected) {
    std::fputs("native and reference differ\n", stderr);
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span bytes(data, size);
  std::shared_ptr<const Program> program;
  try {
    program = Program::from_bytes(std::as_bytes(bytes));
  } catch (const InvalidProgramError&) {
    return 0;
  }
  if (!is_cheap(bytes)) {
    return 0;
  }
  std::vector<Shape> shapes;
  for (const TensorInfo& input : program->inputs()) {
    shapes.push_back(input.shape);
  }
  check_engines_agree(program, shapes, 1 + static_cast<int>(size % 2));
  for (Shape& shape : shapes) {
    ++shape[0];
  }
  try {
    check_engines_agree(program, shapes, 1);
  } catch (const InvalidInputError&) {  // a batch of another size need not be possible
  }
  return 0;
}
