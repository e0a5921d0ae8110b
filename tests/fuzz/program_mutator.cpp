// Structure-aware mutation: a Program is unpacked, some of its fields are changed, and it is packed
// again. Changed attributes would mostly be refused for the shapes that follow from them; those are
// repaired, so that kernels see the strange ones, too.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <regex>
#include <span>
#include <string>
#include <vector>

#include "fuzz_program.h"
#include "program_generated.h"
#include "pyquant/error.h"
#include "pyquant/program.h"

namespace {

using namespace pyquant;
using Random = std::minstd_rand;

std::size_t below(Random& random, std::size_t end) {
  return end == 0 ? 0 : std::uniform_int_distribution<std::size_t>(0, end - 1)(random);
}

template <typename T>
T& pick(Random& random, std::vector<T>& from) {
  return from[below(random, from.size())];
}

bool one_in(Random& random, std::size_t count) { return below(random, count) == 0; }

std::int32_t some_int(Random& random) {
  constexpr std::int32_t kStrange[] = {-1, 0, 255, 256, 1 << 14, 1 << 24, INT32_MAX, INT32_MIN};
  return one_in(random, 8) ? kStrange[below(random, std::size(kStrange))]
                           : static_cast<std::int32_t>(below(random, 6));
}

float some_scale(Random& random) {
  using Limits = std::numeric_limits<float>;
  constexpr float kStrange[] = {
      0.0F, -1.0F, Limits::infinity(), Limits::quiet_NaN(), Limits::min(), Limits::max(), 1e-42F};
  return one_in(random, 4) ? kStrange[below(random, std::size(kStrange))]
                           : std::exp2(static_cast<float>(below(random, 64)) / 4 - 12);
}

std::vector<std::uint8_t> some_bytes(Random& random, std::size_t count) {
  std::vector<std::uint8_t> bytes(count);
  std::ranges::generate(bytes, [&] { return static_cast<std::uint8_t>(random() >> 8U); });
  return bytes;
}

fb::TensorT* tensor_at(fb::ProgramT& program, std::uint32_t index) {
  return index < program.tensors.size() ? program.tensors[index].get() : nullptr;
}

// --- Attributes.

fb::Window mutate(Random& random, const fb::Window& window) {
  std::int32_t values[10];
  static_assert(sizeof values == sizeof window);
  std::memcpy(values, &window, sizeof values);
  values[below(random, std::size(values))] = some_int(random);
  fb::Window changed;
  std::memcpy(&changed, values, sizeof values);
  return changed;
}

template <typename Op>
void mutate_window(Random& random, Op& op) {
  if (op.window != nullptr) {
    *op.window = mutate(random, *op.window);
  }
}

template <typename Op>
void mutate_bounds(Random& random, Op& op) {
  (one_in(random, 2) ? op.output_min : op.output_max) = static_cast<std::uint8_t>(random() >> 8U);
}

template <typename Op>
void mutate_resize(Random& random, Op& op) {
  (one_in(random, 2) ? op.output_h : op.output_w) = some_int(random);
  (one_in(random, 2) ? op.scale_h : op.scale_w) = one_in(random, 2) ? 0.0 : some_scale(random);
}

// The weight [O, kernel_h, kernel_w, C / groups] of a convolution gets other sizes, and its data,
// scales and bias with them.
void resize_weight(Random& random, fb::ProgramT& program, const fb::NodeT& node,
                   fb::Window* window) {
  if (node.inputs.size() != 3) {
    return;
  }
  fb::TensorT* weight = tensor_at(program, node.inputs[1]);
  fb::TensorT* bias = tensor_at(program, node.inputs[2]);
  const auto has_data = [&](const fb::TensorT* tensor) {
    return tensor != nullptr && tensor->buffer != 0 && tensor->buffer <= program.buffers.size();
  };
  if (!has_data(weight) || !has_data(bias) || weight->shape.size() < 2) {
    return;
  }
  constexpr std::int32_t kChannels[] = {1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 48, 64, 65, 130};
  weight->shape[0] = kChannels[below(random, std::size(kChannels))];
  if (window != nullptr && weight->shape.size() == 4) {
    weight->shape[1] = 1 + static_cast<std::int32_t>(below(random, 7));
    weight->shape[2] = 1 + static_cast<std::int32_t>(below(random, 7));
    std::int32_t values[10];
    std::memcpy(values, window, sizeof values);
    std::copy_n(weight->shape.begin() + 1, 2, values);
    std::memcpy(static_cast<void*>(window), values, sizeof values);
  }
  std::size_t count = 1;
  for (const std::int32_t size : weight->shape) {
    count *= static_cast<std::size_t>(std::clamp(size, 0, 4096));
  }
  const auto channels = static_cast<std::size_t>(weight->shape[0]);
  if (count > 1U << 16U) {
    return;
  }
  program.buffers[weight->buffer - 1]->data = some_bytes(random, count);
  weight->scale.assign(channels, 0.003F);
  bias->shape = {weight->shape[0]};
  program.buffers[bias->buffer - 1]->data.assign(channels * sizeof(std::int32_t), 1);
}

void mutate_attributes(Random& random, fb::ProgramT& program) {
  fb::NodeT& node = *pick(random, program.nodes);
  if (auto* conv = node.op.AsConv2d()) {
    switch (below(random, 4)) {
      case 0:
        return resize_weight(random, program, node, conv->window.get());
      case 1:
        return mutate_bounds(random, *conv);
      case 2:
        conv->groups = some_int(random);
        return;
      default:
        return mutate_window(random, *conv);
    }
  }
  if (auto* transposed = node.op.AsConvTranspose2d()) {
    if (one_in(random, 3)) {
      return resize_weight(random, program, node, transposed->window.get());
    }
    transposed->output_pad_h = one_in(random, 4) ? some_int(random) : transposed->output_pad_h;
    transposed->groups = one_in(random, 4) ? some_int(random) : transposed->groups;
    return mutate_window(random, *transposed);
  }
  if (auto* linear = node.op.AsLinear()) {
    return one_in(random, 2) ? resize_weight(random, program, node, nullptr)
                             : mutate_bounds(random, *linear);
  }
  if (auto* add = node.op.AsAdd()) {
    add->broadcast ^= one_in(random, 4);
    return mutate_bounds(random, *add);
  }
  if (auto* mul = node.op.AsMul()) {
    return mutate_bounds(random, *mul);
  }
  if (auto* pool = node.op.AsMaxPool2d()) {
    pool->ceil_mode ^= one_in(random, 4);
    return mutate_window(random, *pool);
  }
  if (auto* pool = node.op.AsAvgPool2d()) {
    pool->ceil_mode ^= one_in(random, 4);
    pool->count_include_pad ^= one_in(random, 4);
    pool->divisor_override = one_in(random, 4) ? some_int(random) : pool->divisor_override;
    return mutate_window(random, *pool);
  }
  if (auto* pool = node.op.AsAdaptiveAvgPool2d()) {
    (one_in(random, 2) ? pool->output_h : pool->output_w) = some_int(random);
  } else if (auto* max_pool = node.op.AsAdaptiveMaxPool2d()) {
    (one_in(random, 2) ? max_pool->output_h : max_pool->output_w) = some_int(random);
  } else if (auto* pad = node.op.AsPad()) {
    std::int32_t* const sides[] = {&pad->top, &pad->left, &pad->bottom, &pad->right};
    *sides[below(random, 4)] = one_in(random, 2) ? some_int(random) : -(some_int(random) % 8);
  } else if (auto* table = node.op.AsLookupTable()) {
    table->values = some_bytes(random, one_in(random, 8) ? below(random, 300) : 256);
  } else if (auto* concat = node.op.AsConcat()) {
    concat->axis = some_int(random);
    concat->interleaved ^= one_in(random, 2);
  } else if (auto* slice = node.op.AsSlice()) {
    std::int32_t* const fields[] = {&slice->axis, &slice->begin, &slice->end};
    *fields[below(random, 3)] = some_int(random);
  } else if (auto* shuffle = node.op.AsChannelShuffle()) {
    shuffle->groups = some_int(random);
  } else if (auto* nearest = node.op.AsResizeNearest()) {
    mutate_resize(random, *nearest);
  } else if (auto* bilinear = node.op.AsResizeBilinear()) {
    bilinear->align_corners ^= one_in(random, 2);
    mutate_resize(random, *bilinear);
  } else if (auto* reshape = node.op.AsReshape()) {
    reshape->sizes.resize(1 + below(random, 6), -1);
    pick(random, reshape->sizes) = some_int(random);
  }
}

// --- Tensors, buffers and wiring.

void mutate_tensor(Random& random, fb::ProgramT& program) {
  fb::TensorT& tensor = *pick(random, program.tensors);
  switch (below(random, 6)) {
    case 0:
      if (!tensor.shape.empty()) {
        pick(random, tensor.shape) = some_int(random);
      }
      return;
    case 1:
      tensor.shape.resize(below(random, 8), 2);
      return;
    case 2:
      if (!tensor.scale.empty()) {
        pick(random, tensor.scale) = some_scale(random);
      }
      return;
    case 3:
      tensor.zero_point =
          one_in(random, 4) ? some_int(random) : static_cast<std::int32_t>(below(random, 256));
      return;
    case 4:
      tensor.dtype = static_cast<fb::DType>(below(random, 5));
      return;
    default:
      tensor.buffer = static_cast<std::uint32_t>(below(random, program.buffers.size() + 2));
  }
}

void mutate_image(Random& random, fb::ProgramT& program) {
  if (program.inputs.empty()) {
    return;
  }
  fb::TensorT* tensor = tensor_at(program, pick(random, program.inputs));
  if (tensor != nullptr && !tensor->shape.empty()) {
    pick(random, tensor->shape) = 1 + static_cast<std::int32_t>(below(random, 34));
  }
}

void mutate_buffer(Random& random, fb::ProgramT& program) {
  if (program.buffers.empty()) {
    return;
  }
  std::vector<std::uint8_t>& data = pick(random, program.buffers)->data;
  if (one_in(random, 8)) {
    data.resize(below(random, 2 * data.size() + 2));
  }
  for (std::size_t i = 0; i < 4 && !data.empty(); ++i) {
    constexpr std::uint8_t kExtremes[] = {0, 127, 128, 129, 255};
    pick(random, data) = kExtremes[below(random, std::size(kExtremes))];
  }
}

std::uint32_t some_tensor(Random& random, const fb::ProgramT& program) {
  return static_cast<std::uint32_t>(below(random, program.tensors.size() + one_in(random, 16)));
}

void mutate_wiring(Random& random, fb::ProgramT& program) {
  const std::size_t index = below(random, program.nodes.size());
  fb::NodeT& node = *program.nodes[index];
  switch (below(random, 7)) {
    case 0:
      if (!node.inputs.empty()) {
        pick(random, node.inputs) = some_tensor(random, program);
      }
      return;
    case 1:
      node.output = some_tensor(random, program);
      return;
    case 2:
      std::swap(program.nodes[index], pick(random, program.nodes));
      return;
    case 3:  // the same once more, with an output of its own that is an output of the Program
      if (program.nodes.size() < 64 && tensor_at(program, node.output) != nullptr) {
        const auto output = static_cast<std::uint32_t>(program.tensors.size());
        auto twin = std::make_unique<fb::NodeT>(node);
        twin->output = output;
        program.tensors.push_back(std::make_unique<fb::TensorT>(*program.tensors[node.output]));
        program.nodes.insert(program.nodes.begin() + static_cast<std::ptrdiff_t>(index) + 1,
                             std::move(twin));
        program.outputs.push_back(output);
      }
      return;
    case 4:  // without it: whoever read its output reads its input
      for (const auto& other : program.nodes) {
        std::ranges::replace(other->inputs, node.output,
                             node.inputs.empty() ? node.output : node.inputs[0]);
      }
      program.nodes.erase(program.nodes.begin() + static_cast<std::ptrdiff_t>(index));
      return;
    case 5:
      program.outputs.push_back(some_tensor(random, program));
      return;
    default:
      node.inputs.push_back(some_tensor(random, program));
  }
}

// --- Packing.

std::vector<std::uint8_t> pack(const fb::ProgramT& program) {
  flatbuffers::FlatBufferBuilder builder;
  fb::FinishProgramBuffer(builder, fb::Program::Pack(builder, &program));
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

// The reader says which activation has another shape than its operator gives: "gives [1, 2], but
// 't3' is [1, 3]". It gets that shape, until all fit or something else is wrong.
void repair_shapes(fb::ProgramT& program) {
  static const std::regex kMismatch(R"(gives \[([0-9, ]+)\], but '(\w+)' is )");
  for (std::size_t round = 0; round < program.nodes.size(); ++round) {
    try {
      const std::vector<std::uint8_t> bytes = pack(program);
      Program::from_bytes(std::as_bytes(std::span(bytes)));
      return;
    } catch (const InvalidProgramError& error) {
      const std::string text = error.what();
      std::smatch found;
      if (!std::regex_search(text, found, kMismatch)) {
        return;
      }
      const auto tensor = std::ranges::find_if(
          program.tensors, [&](const auto& each) { return each->name == found[2]; });
      if (tensor == program.tensors.end()) {
        return;
      }
      (*tensor)->shape.clear();
      const std::string sizes = found[1];
      static const std::regex kNumber("[0-9]+");
      for (std::sregex_iterator size(sizes.begin(), sizes.end(), kNumber), end; size != end;
           ++size) {
        (*tensor)->shape.push_back(std::stoi(size->str()));
      }
    }
  }
}

// Names tell tensors apart, for repair_shapes.
void name_tensors(fb::ProgramT& program) {
  for (std::size_t i = 0; i < program.tensors.size(); ++i) {
    program.tensors[i]->name = std::to_string(i);
  }
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned int seed) {
  using Mutation = void (*)(Random&, fb::ProgramT&);
  constexpr Mutation kMutations[] = {mutate_attributes, mutate_attributes, mutate_attributes,
                                     mutate_tensor,     mutate_image,      mutate_image,
                                     mutate_buffer,     mutate_wiring};
  Random random(seed + 1);
  flatbuffers::Verifier verifier(data, size);
  if (one_in(random, 8) || size < 8 || !fb::VerifyProgramBuffer(verifier)) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  const std::unique_ptr<fb::ProgramT> program = fb::UnPackProgram(data);
  name_tensors(*program);
  const std::size_t count = 1 + below(random, 4);
  for (std::size_t i = 0; i < count && !program->nodes.empty() && !program->tensors.empty(); ++i) {
    kMutations[below(random, std::size(kMutations))](random, *program);
  }
  if (!one_in(random, 4)) {
    repair_shapes(*program);
  }
  const std::vector<std::uint8_t> bytes = pack(*program);
  if (bytes.size() > max_size) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  std::ranges::copy(bytes, data);
  return bytes.size();
}
