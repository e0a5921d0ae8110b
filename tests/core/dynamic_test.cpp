// Dynamic linear and recurrent layers on every instruction set of this CPU, with one thread and
// several. The linear layer is compared with plain loops, to the bit. Of a recurrent layer the
// scalar kernels run every sequence by itself, one step a call, and each step is compared with
// std::exp and std::tanh; whole batches of any instruction set then must have the same bits.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "check.h"
#include "kernels/dispatch.h"
#include "pyquant/dynamic_linear.h"
#include "pyquant/error.h"
#include "pyquant/recurrent.h"

namespace {

using namespace pyquant;
using Floats = std::vector<float>;

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

struct Weights {
  std::int64_t outputs = 0, inputs = 0;
  std::vector<std::int8_t> values;
  Floats scales, bias;

  Int8Weights view() const { return {outputs, inputs, values, scales, bias}; }
};

class Generator {
 public:
  explicit Generator(std::uint32_t seed) : engine_(seed) {}

  int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
  bool one_in(int count) { return draw(1, count) == 1; }
  float number(float low, float high) {
    return std::uniform_real_distribution<float>(low, high)(engine_);
  }
  Floats numbers(std::int64_t count, float low, float high) {
    Floats result(size(count));
    std::ranges::generate(result, [&] { return number(low, high); });
    return result;
  }

  // Rows add up to about 1 for inputs of that size. Extreme ones hold the largest weights only.
  Weights weights(std::int64_t outputs, std::int64_t inputs, bool with_bias, bool extreme = false) {
    Weights result{outputs, inputs, {}, {}, {}};
    result.values.resize(size(outputs * inputs));
    std::ranges::generate(result.values, [&] {
      return static_cast<std::int8_t>(extreme ? 254 * draw(0, 1) - 127 : draw(-127, 127));
    });
    const float scale = 1.0F / (127.0F * std::sqrt(static_cast<float>(inputs)));
    result.scales = numbers(outputs, 0.5F * scale, 2.0F * scale);
    if (with_bias) {
      result.bias = numbers(outputs, -0.5F, 0.5F);
    }
    return result;
  }

 private:
  std::mt19937 engine_;
};

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return std::ranges::equal(a, b, [](float x, float y) {
    return std::memcmp(&x, &y, sizeof x) == 0 || (std::isnan(x) && std::isnan(y));
  });
}

// --- Linear layers.

// What dynamic_linear.h says, in plain loops; dividing by s is multiplying by its rounded inverse.
Floats plain_linear(const Weights& weights, std::span<const float> x) {
  float low = 0.0F, high = 0.0F;
  for (const float value : x) {
    if (!std::isfinite(value)) {
      return Floats(size(weights.outputs), std::numeric_limits<float>::quiet_NaN());
    }
    low = std::min(low, value);
    high = std::max(high, value);
  }
  const float scale = std::max(high / 255.0F - low / 255.0F, 0x1p-100F);
  const float inverse = 1.0F / scale;
  const auto zero_point = static_cast<int>(std::min(std::nearbyint(-low * inverse), 255.0F));
  Floats y(size(weights.outputs));
  for (std::size_t output = 0; output < y.size(); ++output) {
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const int steps = static_cast<int>(std::nearbyint(x[i] * inverse)) + zero_point;
      sum += (std::clamp(steps, 0, 255) - zero_point) * weights.values[output * x.size() + i];
    }
    const float value = static_cast<float>(sum) * (scale * weights.scales[output]);
    y[output] = value + (weights.bias.empty() ? 0.0F : weights.bias[output]);
  }
  return y;
}

// Ordinary rows and those at which something is special.
Floats draw_row(Generator& generator, std::int64_t count) {
  constexpr float kMax = std::numeric_limits<float>::max();
  const auto strange = [&](float value) {
    Floats row = generator.numbers(count, -1.0F, 1.0F);
    row[size(generator.draw(0, static_cast<int>(count) - 1))] = value;
    return row;
  };
  switch (generator.draw(0, 15)) {
    case 0:
      return Floats(size(count), 0.0F);
    case 1:
      return Floats(size(count), generator.number(-3.0F, 3.0F));
    case 2:
      return generator.numbers(count, 5.0F, 6.0F);
    case 3:
      return generator.numbers(count, -6.0F, -5.0F);
    case 4:
      return generator.numbers(count, -1e-35F, 1e-35F);
    case 5:
      return strange(generator.one_in(2) ? kMax : -kMax);
    case 6:
      return strange(std::numeric_limits<float>::infinity());
    case 7:
      return strange(std::numeric_limits<float>::quiet_NaN());
    default:
      return generator.numbers(count, -generator.number(0.0F, 9.0F), generator.number(0.0F, 9.0F));
  }
}

void check_linear(const std::string& name, const Weights& weights, const Floats& x,
                  std::span<Workspace> workspaces) {
  const std::int64_t rows = static_cast<std::int64_t>(x.size()) / weights.inputs;
  Floats expected;
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::span one(x.data() + row * weights.inputs, size(weights.inputs));
    const Floats y = plain_linear(weights, one);
    expected.insert(expected.end(), y.begin(), y.end());
  }
  for (const std::string& isa : isas()) {
    use_isa(isa);
    const DynamicLinear layer(weights.view());
    CHECK(layer.inputs() == weights.inputs && layer.outputs() == weights.outputs);
    for (Workspace& workspace : workspaces) {
      Floats y(expected.size());
      layer.run(x.data(), rows, y.data(), workspace);
      if (!same_bits(y, expected)) {
        std::fprintf(stderr, "linear layer %s differs on %s\n", name.c_str(), isa.c_str());
        std::exit(1);
      }
    }
  }
}

void test_linear(std::span<Workspace> workspaces) {
  Generator generator(1);
  for (int i = 0; i < 60; ++i) {
    const Weights weights =
        generator.weights(generator.draw(1, 70), generator.draw(1, generator.one_in(3) ? 700 : 70),
                          generator.one_in(2), generator.one_in(3));
    const int rows = generator.draw(0, generator.one_in(5) ? 150 : 12);
    Floats x;
    for (int row = 0; row < rows; ++row) {
      const Floats drawn = draw_row(generator, weights.inputs);
      x.insert(x.end(), drawn.begin(), drawn.end());
    }
    check_linear(std::to_string(i), weights, x, workspaces);
  }
  // The largest sums, and more bytes than are quantized at once.
  Weights largest = generator.weights(3, DynamicLinear::kMaxInputs, true);
  std::ranges::fill(largest.values, std::int8_t{127});
  check_linear("of most inputs", largest, Floats(size(11 * DynamicLinear::kMaxInputs), 2.0F),
               workspaces);
}

// --- Recurrent layers.

struct Layer {
  RecurrentCell cell;
  Weights input, state, projection;  // no projection: no outputs

  std::int64_t hidden() const { return state.outputs / gate_count(cell); }
  std::int64_t outputs() const { return state.inputs; }
  RecurrentLayer make() const {
    return {cell, input.view(), state.view(),
            projection.outputs == 0 ? Int8Weights{} : projection.view()};
  }
};

// Sequences, the longest first, and the first states.
struct Batch {
  std::vector<std::size_t> lengths;
  std::vector<Floats> x;  // [length, inputs] each
  Floats h, c;
};

// What came out: of each sequence y [length, outputs], and the last states of all.
struct Result {
  std::vector<Floats> y;
  Floats h, c;
};

float sigmoid(float x) { return 1.0F / (1.0F + std::exp(-x)); }

// One step with the gates of torch.nn. c: in and out.
Floats plain_step(const Layer& layer, std::span<const float> x, std::span<const float> h,
                  std::span<float> c) {
  const Floats input = plain_linear(layer.input, x);
  const Floats last = plain_linear(layer.state, h);
  const std::size_t hidden = size(layer.hidden());
  Floats y(hidden);
  for (std::size_t i = 0; i < hidden; ++i) {
    const auto gate = [&](std::size_t g) { return input[g * hidden + i] + last[g * hidden + i]; };
    switch (layer.cell) {
      case RecurrentCell::kLstm:
        c[i] = sigmoid(gate(1)) * c[i] + sigmoid(gate(0)) * std::tanh(gate(2));
        y[i] = sigmoid(gate(3)) * std::tanh(c[i]);
        break;
      case RecurrentCell::kGru: {
        const float update = sigmoid(gate(1));
        const float candidate =
            std::tanh(input[2 * hidden + i] + sigmoid(gate(0)) * last[2 * hidden + i]);
        y[i] = (1.0F - update) * candidate + update * h[i];
        break;
      }
      case RecurrentCell::kTanh:
        y[i] = std::tanh(gate(0));
        break;
      case RecurrentCell::kRelu:
        y[i] = std::max(gate(0), 0.0F);
    }
  }
  return layer.projection.outputs == 0 ? y : plain_linear(layer.projection, y);
}

void check_near(std::span<const float> found, std::span<const float> expected, float tolerance) {
  CHECK(std::ranges::equal(found, expected, [&](float a, float b) {
    return std::abs(a - b) <= tolerance * std::max(1.0F, std::abs(b));
  }));
}

// Each sequence by itself, one step a call.
Result run_steps(const Layer& layer, const Batch& batch, bool reverse, Workspace& workspace) {
  use_isa("scalar");
  const RecurrentLayer made = layer.make();
  const std::size_t inputs = size(layer.input.inputs), outputs = size(layer.outputs());
  const std::size_t cells = layer.cell == RecurrentCell::kLstm ? size(layer.hidden()) : 0;
  Result result{{}, batch.h, batch.c};
  for (std::size_t i = 0; i < batch.lengths.size(); ++i) {
    Floats& y = result.y.emplace_back(batch.lengths[i] * outputs);
    const std::span h(result.h.data() + i * outputs, outputs);
    const std::span c(result.c.data() + i * cells, cells);
    for (std::size_t step = 0; step < batch.lengths[i]; ++step) {
      const std::size_t at = reverse ? batch.lengths[i] - 1 - step : step;
      const std::span x(batch.x[i].data() + at * inputs, inputs);
      Floats expected_c(c.begin(), c.end());
      const Floats expected = plain_step(layer, x, h, expected_c);
      const std::int64_t one = 1;
      made.run({.x = x.data(),
                .batch_sizes = {&one, 1},
                .y = y.data() + at * outputs,
                .y_stride = layer.outputs(),
                .h = h.data(),
                .c = cells == 0 ? nullptr : c.data()},
               workspace);
      // The last bits of a state before its projection may turn how it is rounded.
      check_near(h, expected, layer.projection.outputs == 0 ? 1e-5F : 1e-2F);
      check_near(c, expected_c, 1e-5F);
      CHECK(same_bits(std::span(y).subspan(at * outputs, outputs), h));
    }
  }
  return result;
}

// All sequences in one call, packed, into rows with a gap.
Result run_packed(const RecurrentLayer& layer, const Batch& batch, bool reverse,
                  Workspace& workspace) {
  constexpr float kGap = 7.0F;
  const std::size_t inputs = size(layer.inputs()), outputs = size(layer.outputs());
  const std::size_t stride = outputs + 3;
  std::vector<std::int64_t> counts(batch.lengths.front(), 0);
  for (const std::size_t length : batch.lengths) {
    for (std::size_t step = 0; step < length; ++step) {
      ++counts[step];
    }
  }
  Floats x;
  for (std::size_t step = 0; step < counts.size(); ++step) {
    for (std::size_t i = 0; i < size(counts[step]); ++i) {
      const auto begin = batch.x[i].begin() + static_cast<std::ptrdiff_t>(step * inputs);
      x.insert(x.end(), begin, begin + static_cast<std::ptrdiff_t>(inputs));
    }
  }
  const std::size_t rows = x.size() / inputs;
  Floats y(rows * stride, kGap);
  Result result{{}, batch.h, batch.c};
  layer.run({.x = x.data(),
             .batch_sizes = counts,
             .y = y.data(),
             .y_stride = static_cast<std::int64_t>(stride),
             .h = result.h.data(),
             .c = batch.c.empty() ? nullptr : result.c.data(),
             .reverse = reverse},
            workspace);
  result.y.resize(batch.lengths.size());
  auto row = y.begin();
  for (const std::int64_t count : counts) {
    for (std::size_t i = 0; i < size(count); ++i, row += static_cast<std::ptrdiff_t>(stride)) {
      const auto gap = row + static_cast<std::ptrdiff_t>(outputs);
      result.y[i].insert(result.y[i].end(), row, gap);
      CHECK(std::all_of(gap, gap + 3, [](float value) { return value == kGap; }));
    }
  }
  return result;
}

Layer draw_layer(Generator& generator, RecurrentCell cell, bool projected) {
  const int inputs = generator.draw(1, 70);
  const int hidden = generator.draw(1, generator.one_in(4) ? 90 : 30);
  const int outputs = projected ? generator.draw(1, hidden) : hidden;
  const std::int64_t gates = gate_count(cell) * hidden;
  const bool bias = !generator.one_in(3);
  Layer layer{
      cell, generator.weights(gates, inputs, bias), generator.weights(gates, outputs, bias), {}};
  if (projected) {
    layer.projection = generator.weights(outputs, hidden, false);
  }
  return layer;
}

Batch draw_batch(Generator& generator, const Layer& layer) {
  Batch batch;
  const bool long_one = generator.one_in(3);  // more rows than are multiplied together
  batch.lengths.resize(size(generator.draw(1, 9)));
  const bool same = generator.one_in(3);
  std::ranges::generate(batch.lengths, [&] { return size(generator.draw(1, long_one ? 40 : 6)); });
  std::ranges::sort(batch.lengths, std::greater());
  if (same) {
    std::ranges::fill(batch.lengths, batch.lengths.front());
  }
  for (const std::size_t length : batch.lengths) {
    const std::int64_t count = static_cast<std::int64_t>(length) * layer.input.inputs;
    batch.x.push_back(generator.numbers(count, -2.0F, 2.0F));
  }
  const auto sequences = static_cast<std::int64_t>(batch.lengths.size());
  batch.h = generator.numbers(sequences * layer.outputs(), -1.0F, 1.0F);
  if (layer.cell == RecurrentCell::kLstm) {
    batch.c = generator.numbers(sequences * layer.hidden(), -2.0F, 2.0F);
  }
  return batch;
}

void test_recurrent(std::span<Workspace> workspaces) {
  Generator generator(2);
  for (int i = 0; i < 40; ++i) {
    const auto cell = static_cast<RecurrentCell>(i % 4);
    const Layer layer = draw_layer(generator, cell, cell == RecurrentCell::kLstm && i % 8 == 0);
    const Batch batch = draw_batch(generator, layer);
    const bool reverse = generator.one_in(2);
    const Result expected = run_steps(layer, batch, reverse, workspaces.front());
    for (const std::string& isa : isas()) {
      use_isa(isa);
      const RecurrentLayer made = layer.make();
      CHECK(made.inputs() == layer.input.inputs && made.outputs() == layer.outputs() &&
            made.hidden() == layer.hidden() && made.cell() == cell);
      for (Workspace& workspace : workspaces) {
        const Result found = run_packed(made, batch, reverse, workspace);
        if (!same_bits(found.h, expected.h) || !same_bits(found.c, expected.c) ||
            !std::ranges::equal(found.y, expected.y, same_bits)) {
          std::fprintf(stderr, "recurrent layer %d differs on %s\n", i, isa.c_str());
          std::exit(1);
        }
      }
    }
  }
}

// --- What is refused.

void test_errors(Workspace& workspace) {
  Generator generator(3);
  const Weights weights = generator.weights(6, 4, true);
  Int8Weights wrong = weights.view();
  wrong.scales = wrong.scales.first(5);
  CHECK_THROWS(InvalidInputError, "do not fit [6, 4]", DynamicLinear(wrong));
  wrong.inputs = 0;
  CHECK_THROWS(InvalidInputError, "no inputs", DynamicLinear(wrong));
  wrong.inputs = DynamicLinear::kMaxInputs + 1;
  CHECK_THROWS(UnsupportedError, "65537", DynamicLinear(wrong));
  const Weights state = generator.weights(6, 2, true);
  const auto layer = [&](RecurrentCell cell) {
    return RecurrentLayer(cell, weights.view(), state.view());
  };
  CHECK_THROWS(InvalidInputError, "do not fit each other", layer(RecurrentCell::kTanh));
  CHECK_THROWS(InvalidInputError, "do not fit each other", layer(RecurrentCell::kLstm));
  const std::int64_t counts[] = {1, 2};
  CHECK_THROWS(InvalidInputError, "2 follows 1",
               (layer(RecurrentCell::kGru).run({.batch_sizes = counts}, workspace), 0));
}

}  // namespace

int main() {
  Workspace workspaces[] = {Workspace(1), Workspace(3)};
  test_linear(workspaces);
  test_recurrent(workspaces);
  test_errors(workspaces[0]);
  std::printf("dynamic layers: passed on");
  for (const std::string& isa : isas()) {
    std::printf(" %s", isa.c_str());
  }
  std::puts("");
}
