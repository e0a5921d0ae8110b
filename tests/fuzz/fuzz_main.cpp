// For compilers without libFuzzer: runs the files of a corpus, then mutations of them, without
// feedback from coverage. `program_fuzzer SECONDS FILE-OR-FOLDER...`
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <span>
#include <vector>

#include "fuzz_program.h"
#include "pyquant/error.h"
#include "pyquant/program.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

std::minstd_rand random_bits(1);  // NOLINT: LLVMFuzzerMutate takes no state

std::size_t below(std::size_t end) { return random_bits() % end; }

Bytes read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool is_valid(const Bytes& bytes) {
  try {
    pyquant::Program::from_bytes(std::as_bytes(std::span(bytes)));
    return true;
  } catch (const pyquant::InvalidProgramError&) {
    return false;
  }
}

std::vector<Bytes> read_corpus(char** begin, char** end) {
  std::vector<Bytes> corpus;
  for (char** path = begin; path != end; ++path) {
    if (std::filesystem::is_directory(*path)) {
      for (const auto& entry : std::filesystem::recursive_directory_iterator(*path)) {
        if (entry.is_regular_file()) {
          corpus.push_back(read(entry.path()));
        }
      }
    } else {
      corpus.push_back(read(*path));
    }
  }
  return corpus;
}

}  // namespace

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size,
                                        std::size_t max_size) {
  Bytes bytes(data, data + size);
  const std::size_t changes = 1 + below(4);
  for (std::size_t i = 0; i < changes; ++i) {
    if (bytes.empty() || (below(8) == 0 && bytes.size() < max_size)) {
      bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size() + 1)),
                   static_cast<std::uint8_t>(below(256)));
    } else if (below(8) == 0) {
      bytes.resize(below(bytes.size() + 1));
    } else {
      bytes[below(bytes.size())] ^= static_cast<std::uint8_t>(1U << below(8));
    }
  }
  std::copy(bytes.begin(), bytes.end(), data);
  return bytes.size();
}

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: program_fuzzer SECONDS FILE-OR-FOLDER...\n", stderr);
    return 2;
  }
  constexpr std::size_t kMaxSize = 1 << 16;
  constexpr std::size_t kMaxCorpus = 4096;
  const std::chrono::duration<double> limit(std::atof(argv[1]));
  std::vector<Bytes> corpus = read_corpus(argv + 2, argv + argc);
  if (corpus.empty()) {
    std::fputs("the corpus is empty\n", stderr);
    return 2;
  }
  for (const Bytes& bytes : corpus) {
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  const auto start = std::chrono::steady_clock::now();
  std::size_t runs = corpus.size();
  std::size_t valid = 0;
  for (; std::chrono::steady_clock::now() - start < limit; ++runs) {
    Bytes bytes = corpus[below(corpus.size())];
    const std::size_t size = bytes.size();
    bytes.resize(std::max(size, kMaxSize));
    bytes.resize(LLVMFuzzerCustomMutator(bytes.data(), size, kMaxSize,
                                         static_cast<unsigned int>(random_bits())));
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    if (is_valid(bytes)) {
      ++valid;
      // Without coverage nothing says what is worth keeping: chance does.
      if (corpus.size() < kMaxCorpus) {
        corpus.push_back(std::move(bytes));
      } else {
        corpus[below(kMaxCorpus)] = std::move(bytes);
      }
    }
  }
  std::printf("%zu files, %zu of them Programs: no finding\n", runs, valid);
}
