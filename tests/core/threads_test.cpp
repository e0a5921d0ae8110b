// Many threads with Sessions of their own over one Program, while others load the same file, run it
// once and let it go. Meant for ThreadSanitizer (preset `tsan`); right results are checked anyway.
#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "pyquant/program.h"
#include "pyquant/session.h"

namespace {

using namespace pyquant;

constexpr int kRunners = 8;
constexpr int kLoaders = 2;

std::vector<float> run(Session& session, const Program& program, std::int64_t batch) {
  Shape shape = program.inputs()[0].shape;
  shape[0] = batch;
  const std::vector<Shape> output_shapes = session.output_shapes({&shape, 1});
  std::vector<float> x(static_cast<std::size_t>(shape.elements()));
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(i % 23) / 4 - 2;
  }
  std::vector<std::vector<float>> outputs;
  std::vector<TensorView> views;
  for (const Shape& output_shape : output_shapes) {
    outputs.emplace_back(static_cast<std::size_t>(output_shape.elements()));
    views.push_back({DType::kFloat32, output_shape, outputs.back().data()});
  }
  const ConstTensorView input{DType::kFloat32, shape, x.data()};
  session.run({&input, 1}, views);
  return outputs[0];
}

}  // namespace

// threads_test PROGRAM REPEATS
int main(int argc, char** argv) {
  CHECK(argc == 3);
  const std::string path = argv[1];
  const int repeats = std::atoi(argv[2]);
  const auto program = Program::load(path);
  Session first(program, {.engine = "reference"});
  const std::vector<std::vector<float>> expected = {run(first, *program, 1),
                                                    run(first, *program, 2)};
  std::atomic<int> running = kRunners;
  std::vector<std::thread> threads;
  for (int number = 0; number < kRunners; ++number) {
    threads.emplace_back([&, number] {
      Session session(program, {.threads = 1 + number % 2});  // the first ones race to pack weights
      for (int repeat = 0; repeat < repeats; ++repeat) {
        const int batch = 1 + (repeat + number) % 2;
        CHECK(run(session, *program, batch) == expected[static_cast<std::size_t>(batch) - 1]);
      }
      --running;
    });
  }
  for (int number = 0; number < kLoaders; ++number) {
    threads.emplace_back([&] {
      while (running != 0) {
        const auto loaded = Program::load(path);
        Session session(loaded);
        CHECK(run(session, *loaded, 1) == expected[0]);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  std::puts("threads: passed");
}
