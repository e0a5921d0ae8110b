// The core by itself, as an inference server uses it: writes a small Program, loads it, runs it in
// Sessions on several threads, and provokes errors.
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "program_generated.h"
#include "pyquant/error.h"
#include "pyquant/program.h"
#include "pyquant/session.h"

namespace {

using namespace pyquant;

struct Options {
  float scale = 0.5F;
  std::int32_t groups = 1;
  std::uint32_t version = 1;
};

// y = dequantize(conv1x1(quantize(x))): two channels to one, weights 3 and -2, bias 5.
// Scales: 0.5 for x, 0.25 for the weight, 0.125 for y; so y = 1.5 x0 / 2 - x1 / 2 + 0.625.
std::vector<std::uint8_t> write_program(const Options& options) {
  flatbuffers::FlatBufferBuilder builder;
  const auto buffer = [&](const void* data, std::size_t bytes) {
    builder.ForceVectorAlignment(bytes, 1, 64);
    return fb::CreateBuffer(builder,
                            builder.CreateVector(static_cast<const std::uint8_t*>(data), bytes));
  };
  const std::int8_t weight[] = {3, -2};
  const std::int32_t bias[] = {5};
  const std::vector buffers = {buffer(weight, sizeof weight), buffer(bias, sizeof bias)};

  const auto tensor = [&](const char* name, fb::DType dtype, std::vector<std::int32_t> shape,
                          std::vector<float> scale, std::int32_t zero_point,
                          std::uint32_t constant) {
    return fb::CreateTensorDirect(builder, name, dtype, &shape, &scale, zero_point, constant);
  };
  const std::vector tensors = {
      tensor("x", fb::DType::float32, {1, 2, 2, 3}, {}, 0, 0),
      tensor("x8", fb::DType::uint8, {1, 2, 3, 2}, {options.scale}, 100, 0),
      tensor("weight", fb::DType::int8, {1, 1, 1, 2}, {0.25F}, 0, 1),
      tensor("bias", fb::DType::int32, {1}, {}, 0, 2),
      tensor("y8", fb::DType::uint8, {1, 2, 3, 1}, {0.125F}, 128, 0),
      tensor("y", fb::DType::float32, {1, 1, 2, 3}, {}, 0, 0),
  };
  const fb::Window window(1, 1, 1, 1, 0, 0, 0, 0, 1, 1);
  const auto node = [&](const char* name, fb::OpAttributes kind, flatbuffers::Offset<void> op,
                        std::vector<std::uint32_t> inputs, std::uint32_t output) {
    return fb::CreateNodeDirect(builder, name, kind, op, &inputs, output);
  };
  const std::vector nodes = {
      node("quantize", fb::OpAttributes::Quantize, fb::CreateQuantize(builder).Union(), {0}, 1),
      node("conv", fb::OpAttributes::Conv2d,
           fb::CreateConv2d(builder, &window, options.groups).Union(), {1, 2, 3}, 4),
      node("dequantize", fb::OpAttributes::Dequantize, fb::CreateDequantize(builder).Union(), {4},
           5),
  };
  const std::vector<std::uint32_t> inputs = {0};
  const std::vector<std::uint32_t> outputs = {5};
  builder.Finish(fb::CreateProgramDirect(builder, options.version, "session_test", "small",
                                         &tensors, &nodes, &inputs, &outputs, &buffers),
                 fb::ProgramIdentifier());
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

std::shared_ptr<const Program> program_of(const std::vector<std::uint8_t>& bytes) {
  return Program::from_bytes(std::as_bytes(std::span(bytes)));
}

// Inputs on the grid of x8, so that the expected values are exact.
void run_and_check(Session& session, std::int64_t batch, std::int64_t height, std::int64_t width,
                   int seed) {
  const std::int64_t pixels = height * width;
  std::vector<float> x(static_cast<std::size_t>(batch * 2 * pixels));
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = 0.5F * static_cast<float>((static_cast<int>(i) * 7 + seed) % 19 - 9);
  }
  const Shape x_shape = {batch, 2, height, width};
  const Shape y_shape = {batch, 1, height, width};
  CHECK(session.output_shapes(std::vector<Shape>{x_shape})[0] == y_shape);
  std::vector<float> y(static_cast<std::size_t>(batch * pixels), -1.0F);
  session.run(std::vector<ConstTensorView>{{DType::kFloat32, x_shape, x.data()}},
              std::vector<TensorView>{{DType::kFloat32, y_shape, y.data()}});
  for (std::int64_t n = 0; n < batch; ++n) {
    for (std::int64_t p = 0; p < pixels; ++p) {
      const float x0 = x[static_cast<std::size_t>((n * 2) * pixels + p)];
      const float x1 = x[static_cast<std::size_t>((n * 2 + 1) * pixels + p)];
      const float expected = 0.75F * x0 - 0.5F * x1 + 0.625F;
      // Within the rounding of y8, whose steps are 0.125.
      CHECK(std::abs(y[static_cast<std::size_t>(n * pixels + p)] - expected) <= 0.0625F);
    }
  }
}

void test_description(const Program& program) {
  CHECK(program.name() == "small");
  CHECK(program.inputs().size() == 1 && program.inputs()[0].name == "x");
  CHECK((program.inputs()[0].shape == Shape{1, 2, 2, 3}));
  CHECK(program.outputs().size() == 1 && program.outputs()[0].dtype == DType::kFloat32);
  CHECK(program.nodes().size() == 3 && program.nodes()[1].kind == "Conv2d");
}

void test_sessions_on_threads(const std::shared_ptr<const Program>& program) {
  std::vector<std::thread> threads;
  for (int number = 0; number < 2; ++number) {
    threads.emplace_back([&, number] {
      Session session(program, {.engine = "auto", .threads = 1 + number});
      CHECK(session.node_engines().size() == 3);
      for (int repeat = 0; repeat < 200; ++repeat) {
        run_and_check(session, 1 + repeat % 3, 1 + (repeat + number) % 5, 3, repeat);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

void test_sessions_outlive_the_program() {
  Session session(program_of(write_program({})), {.engine = "reference"});
  Session moved = std::move(session);
  run_and_check(moved, 2, 2, 2, 1);
}

void test_profile(const std::shared_ptr<const Program>& program) {
  Session session(program);
  const std::vector<float> x(2 * 2 * 5 * 4, 1.0F);
  std::vector<float> y(2 * 5 * 4);
  std::vector<float> profiled(y.size());
  const std::vector<ConstTensorView> inputs = {{DType::kFloat32, {2, 2, 5, 4}, x.data()}};
  session.run(inputs, std::vector<TensorView>{{DType::kFloat32, {2, 1, 5, 4}, y.data()}});
  const std::vector<StepProfile> steps = session.profile(
      inputs, std::vector<TensorView>{{DType::kFloat32, {2, 1, 5, 4}, profiled.data()}});
  CHECK(y == profiled);
  std::vector<std::size_t> nodes;
  std::vector<Shape> shapes;
  for (const StepProfile& step : steps) {
    CHECK(step.seconds >= 0 && step.nodes.size() == step.output_shapes.size());
    nodes.insert(nodes.end(), step.nodes.begin(), step.nodes.end());
    shapes.insert(shapes.end(), step.output_shapes.begin(), step.output_shapes.end());
  }
  CHECK((nodes == std::vector<std::size_t>{0, 1, 2}));
  CHECK((shapes == std::vector<Shape>{{2, 5, 4, 2}, {2, 5, 4, 1}, {2, 1, 5, 4}}));
}

void test_observe(const std::shared_ptr<const Program>& program) {
  Session session(program, {.fuse = false});
  const std::vector<float> x(2 * 2 * 5 * 4, 1.0F);
  std::vector<float> y(2 * 5 * 4);
  std::vector<float> seen;
  std::vector<std::size_t> nodes;
  session.observe(std::vector<ConstTensorView>{{DType::kFloat32, {2, 2, 5, 4}, x.data()}},
                  std::vector<TensorView>{{DType::kFloat32, {2, 1, 5, 4}, y.data()}},
                  [&](std::size_t node, const ConstTensorView& value) {
                    nodes.push_back(node);
                    const auto* bytes = static_cast<const std::uint8_t*>(value.data);
                    if (node == 0) {
                      CHECK((value.shape == Shape{2, 5, 4, 2}) && value.dtype == DType::kUInt8);
                      CHECK(bytes[0] == 102 && bytes[2 * 2 * 5 * 4 - 1] == 102);
                    } else if (node == 1) {
                      CHECK((value.shape == Shape{2, 5, 4, 1}) && value.dtype == DType::kUInt8);
                      CHECK(bytes[0] == 135);  // (0.75 - 0.5 + 0.625) / 0.125 + 128
                    } else {
                      const auto* values = static_cast<const float*>(value.data);
                      seen.assign(values, values + value.shape.elements());
                    }
                  });
  CHECK((nodes == std::vector<std::size_t>{0, 1, 2}));
  CHECK(seen == y);
}

void test_wrong_inputs(const std::shared_ptr<const Program>& program) {
  Session session(program);
  std::vector<float> data(64);
  const Shape good = {1, 2, 2, 3};
  const auto run = [&](const ConstTensorView& x, const TensorView& y) {
    session.run(std::vector<ConstTensorView>{x}, std::vector<TensorView>{y});
  };
  const TensorView y = {DType::kFloat32, {1, 1, 2, 3}, data.data()};
  CHECK_THROWS(InvalidInputError, "uint8", run({DType::kUInt8, good, data.data()}, y));
  CHECK_THROWS(InvalidInputError, "dimensions", run({DType::kFloat32, {2, 3}, data.data()}, y));
  CHECK_THROWS(InvalidInputError, "channels", run({DType::kFloat32, {1, 3, 2, 3}, data.data()}, y));
  CHECK_THROWS(InvalidInputError, "no data", run({DType::kFloat32, good, nullptr}, y));
  CHECK_THROWS(
      InvalidInputError, "must be [1, 1, 2, 3]",
      run({DType::kFloat32, good, data.data()}, {DType::kFloat32, {1, 1, 3, 3}, data.data()}));
  CHECK_THROWS(InvalidInputError, "inputs", session.run({}, std::vector<TensorView>{y}));
  CHECK_THROWS(UnsupportedError, "warp", Session(program, {.engine = "warp"}));
  CHECK_THROWS(InvalidInputError, "threads", Session(program, {.threads = 0}));
  CHECK_THROWS(InvalidInputError, "Program", Session(nullptr));
  run_and_check(session, 1, 2, 3, 0);
}

void test_wrong_programs(const std::string& path) {
  const std::vector<std::uint8_t> good = write_program({});
  std::size_t end = good.size();
  while (good[end - 1] == 0) {
    --end;  // padding, whose loss is none
  }
  for (std::size_t length = 0; length < end; ++length) {
    const std::vector<std::uint8_t> cut(good.begin(),
                                        good.begin() + static_cast<std::ptrdiff_t>(length));
    CHECK_THROWS(InvalidProgramError, "", program_of(cut));
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS(InvalidProgramError, "scale", program_of(write_program({.scale = nan})));
  CHECK_THROWS(InvalidProgramError, "conv", program_of(write_program({.groups = 0})));
  CHECK_THROWS(InvalidProgramError, "newer", program_of(write_program({.version = 1000})));
  CHECK_THROWS(IoError, "missing", Program::load(path + ".missing"));
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc == 2);
  const std::string path = argv[1];
  const std::vector<std::uint8_t> bytes = write_program({});
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  const std::shared_ptr<const Program> program = Program::load(path);
  test_description(*program);
  test_sessions_on_threads(program);
  test_sessions_outlive_the_program();
  test_profile(program);
  test_observe(program);
  test_wrong_inputs(program);
  test_wrong_programs(path);
  std::puts("session: passed");
}
