// Runs a model.pyq on files of raw float32, with the core alone:
//
//   run_program MODEL INPUTS OUTPUTS    the inputs of any number of runs, one behind the other
//   run_program --isas                  names the instruction sets that PYQUANT_ISA may ask for
//   here
//
// Shapes are those of the Program's example input.
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dispatch.h"
#include "pyquant/error.h"
#include "pyquant/program.h"
#include "pyquant/session.h"

namespace {

using namespace pyquant;

std::vector<float> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  if (!file || bytes.empty() || bytes.size() % sizeof(float) != 0) {
    throw IoError(path + " holds no float32 values");
  }
  std::vector<float> values(bytes.size() / sizeof(float));
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(values.data()));
  return values;
}

// float32 tensors of these shapes, one behind the other; `data` moves behind them.
template <class View, class Pointer>
std::vector<View> views(const std::vector<TensorInfo>& infos, Pointer& data) {
  std::vector<View> result;
  for (const TensorInfo& info : infos) {
    if (info.dtype != DType::kFloat32) {
      throw UnsupportedError(info.name + " is " + to_string(info.dtype) + " instead of float32");
    }
    result.push_back(View{info.dtype, info.shape, data});
    data += info.shape.elements();
  }
  return result;
}

std::size_t elements(const std::vector<TensorInfo>& infos) {
  std::size_t count = 0;
  for (const TensorInfo& info : infos) {
    count += static_cast<std::size_t>(info.shape.elements());
  }
  return count;
}

void run(const std::string& model, const std::string& input_path, const std::string& output_path) {
  const auto program = Program::load(model);
  const std::vector<float> inputs = read(input_path);
  const std::size_t input_size = elements(program->inputs());
  if (inputs.size() % input_size != 0) {
    throw InvalidInputError(input_path + " does not hold whole inputs");
  }
  std::vector<float> outputs(inputs.size() / input_size * elements(program->outputs()));
  Session session(program, {.engine = "native"});
  const float* x = inputs.data();
  float* y = outputs.data();
  while (x != inputs.data() + inputs.size()) {
    const auto from = views<ConstTensorView>(program->inputs(), x);
    const auto to = views<TensorView>(program->outputs(), y);
    session.run(from, to);
  }
  std::ofstream file(output_path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(outputs.data()),
             static_cast<std::streamsize>(outputs.size() * sizeof(float)));
  if (!file.flush()) {
    throw IoError("cannot write " + output_path);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc == 2 && std::string_view(argv[1]) == "--isas") {
      for (const std::string& isa : isas()) {
        std::puts(isa.c_str());
      }
      return 0;
    }
    if (argc != 4) {
      std::fputs("run_program MODEL INPUTS OUTPUTS | --isas\n", stderr);
      return 2;
    }
    run(argv[1], argv[2], argv[3]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
