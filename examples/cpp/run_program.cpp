// Runs a model.pyq of one float32 input and one float32 output in two Sessions on two threads,
// and prints the five largest outputs and the latency.
//
//   run_program model.pyq [input.raw [output.raw]]
//
// The files are float32 without a header; without an input, it is random.
#include <pyquant/peak.h>
#include <pyquant/program.h>
#include <pyquant/session.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using pyquant::DType;

// What one thread does and finds out.
struct Worker {
  std::vector<float> output;
  double best_ms = std::numeric_limits<double>::infinity();
  std::exception_ptr error;

  // A Session is used by one thread at a time: each makes its own, over the shared Program.
  void run(const std::shared_ptr<const pyquant::Program>& program, std::span<const float> image) {
    try {
      const pyquant::Shape in_shape = program->inputs()[0].shape;
      pyquant::Session session(program, {.threads = 1});
      const pyquant::Shape out_shape = session.output_shapes({&in_shape, 1})[0];
      output.resize(static_cast<std::size_t>(out_shape.elements()));
      const pyquant::ConstTensorView input = {DType::kFloat32, in_shape, image.data()};
      const pyquant::TensorView result = {DType::kFloat32, out_shape, output.data()};
      for (int repeat = 0; repeat < 10; ++repeat) {
        const auto start = std::chrono::steady_clock::now();
        session.run({&input, 1}, {&result, 1});
        const std::chrono::duration<double, std::milli> time =
            std::chrono::steady_clock::now() - start;
        best_ms = std::min(best_ms, time.count());
      }
    } catch (...) {
      error = std::current_exception();
    }
  }
};

std::vector<float> read_or_draw(const char* path, std::size_t count) {
  std::vector<float> values(count);
  if (path == nullptr) {
    std::mt19937 engine(0);
    std::normal_distribution<float> normal;
    std::ranges::generate(values, [&] { return normal(engine); });
    return values;
  }
  std::ifstream file(path, std::ios::binary);
  const auto bytes = static_cast<std::streamsize>(count * sizeof(float));
  if (!file.read(reinterpret_cast<char*>(values.data()), bytes) || file.peek() != EOF) {
    throw std::runtime_error(std::string(path) + " must have " + std::to_string(bytes) + " bytes");
  }
  return values;
}

void print_top5(const std::vector<float>& scores) {
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const std::size_t count = std::min<std::size_t>(5, order.size());
  std::ranges::partial_sort(order, order.begin() + static_cast<std::ptrdiff_t>(count),
                            std::greater{}, [&](std::size_t i) { return scores[i]; });
  for (std::size_t i = 0; i < count; ++i) {
    std::printf("%5zu  %g\n", order[i], static_cast<double>(scores[order[i]]));
  }
}

void run(std::span<char*> arguments) {
  const std::shared_ptr<const pyquant::Program> program = pyquant::Program::load(arguments[1]);
  if (program->inputs().size() != 1 || program->inputs()[0].dtype != DType::kFloat32 ||
      program->outputs().size() != 1 || program->outputs()[0].dtype != DType::kFloat32) {
    throw std::runtime_error("this example takes models of one float32 input and output");
  }
  const auto elements = static_cast<std::size_t>(program->inputs()[0].shape.elements());
  const std::vector<float> image =
      read_or_draw(arguments.size() > 2 ? arguments[2] : nullptr, elements);

  Worker workers[2];
  {
    std::jthread other([&] { workers[1].run(program, image); });
    workers[0].run(program, image);
  }
  for (const Worker& worker : workers) {
    if (worker.error) {
      std::rethrow_exception(worker.error);
    }
  }
  if (workers[0].output != workers[1].output) {
    throw std::runtime_error("the two Sessions do not agree");
  }
  print_top5(workers[0].output);
  std::printf("%s, 2 Sessions at once: %.3f ms and %.3f ms (best of 10)\n",
              pyquant::isa_in_use().c_str(), workers[0].best_ms, workers[1].best_ms);
  if (arguments.size() > 3) {
    const std::vector<float>& output = workers[0].output;
    std::ofstream file(arguments[3], std::ios::binary);
    file.write(reinterpret_cast<const char*>(output.data()),
               static_cast<std::streamsize>(output.size() * sizeof(float)));
    if (!file.flush()) {
      throw std::runtime_error(std::string("cannot write ") + arguments[3]);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    std::fprintf(stderr, "usage: %s model.pyq [input.raw [output.raw]]\n", argv[0]);
    return 2;
  }
  try {
    run({argv, static_cast<std::size_t>(argc)});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 1;
  }
}
