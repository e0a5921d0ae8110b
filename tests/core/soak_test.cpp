// A server's life in small: run after run with changing batch sizes, and its memory stays flat.
#include <unistd.h>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "check.h"
#include "pyquant/program.h"
#include "pyquant/session.h"

namespace {

using namespace pyquant;

// Of this process, in bytes.
std::size_t resident_memory() {
  std::ifstream file("/proc/self/statm");
  std::size_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

// soak_test PROGRAM RUNS
int main(int argc, char** argv) {
  CHECK(argc == 3);
  const auto program = Program::load(argv[1]);
  const long runs = std::atol(argv[2]);
  constexpr std::int64_t kBatches = 40;  // more than the plans that a Session keeps
  constexpr std::size_t kGrowth = 1 << 20;
  Session session(program);
  Shape shape = program->inputs()[0].shape;
  shape[0] = kBatches;
  const std::vector<float> x(static_cast<std::size_t>(shape.elements()), 0.25F);
  std::vector<std::vector<float>> outputs;
  for (const Shape& output_shape : session.output_shapes({&shape, 1})) {
    outputs.emplace_back(static_cast<std::size_t>(output_shape.elements()));
  }
  std::size_t settled = 0;
  for (long run = 0; run < runs; ++run) {
    if (run % 16 == 0) {
      shape[0] = 1 + run / 16 % kBatches;
    }
    const ConstTensorView input{DType::kFloat32, shape, x.data()};
    std::vector<TensorView> views;
    for (const Shape& output_shape : session.output_shapes({&shape, 1})) {
      views.push_back({DType::kFloat32, output_shape, outputs[views.size()].data()});
    }
    session.run({&input, 1}, views);
    if (run == runs / 4) {
      settled = resident_memory();
    }
  }
  const std::size_t end = resident_memory();
  std::printf("%ld runs: %zu KiB resident after a quarter, %zu KiB at the end\n", runs,
              settled / 1024, end / 1024);
  CHECK(end <= settled + kGrowth);
  std::puts("soak: passed");
}
