#include "runtime/fuse_post_ops.h"

#include <algorithm>
#include <list>

namespace pyquant {
namespace {

using Steps = std::list<FusedNodes>;

class Fuser {
 public:
  explicit Fuser(const Program::Impl& program)
      : program_(program),
        reads_(program.tensors.size(), 0),
        producers_(program.tensors.size(), steps_.end()) {
    for (const ProgramNode& node : program.nodes) {
      for (const std::size_t input : node.inputs) {
        ++reads_[input];
      }
    }
    for (const std::size_t output : program.outputs) {
      ++reads_[output];
    }
  }

  std::vector<FusedNodes> run(const std::string& engine, bool fuse) {
    for (std::size_t i = 0; i < program_.nodes.size(); ++i) {
      if (!fuse || !append_to_producer(i)) {
        const Engine& chosen = select_engine(engine, program_.nodes[i].op, /*fallback=*/true);
        steps_.push_back({&chosen, {i}, {}});
      }
      producers_[program_.nodes[i].output] = std::prev(steps_.end());
    }
    return {steps_.begin(), steps_.end()};
  }

 private:
  // Makes node `index` part of the last step that it can follow, and that step the last one.
  bool append_to_producer(std::size_t index) {
    const ProgramNode& node = program_.nodes[index];
    Steps::iterator best = steps_.end();
    for (std::size_t input = 0; input < node.inputs.size(); ++input) {
      const auto step = producers_[node.inputs[input]];
      if (step == steps_.end() || reads_[node.inputs[input]] != 1) {
        continue;
      }
      step->post_ops.push_back({&node.op, input});
      const bool fuses =
          step->engine->fuses(program_.nodes[step->nodes.front()].op, step->post_ops);
      if (fuses && (best == steps_.end() || step->nodes.back() > best->nodes.back())) {
        if (best != steps_.end()) {
          best->post_ops.pop_back();
        }
        best = step;
      } else {
        step->post_ops.pop_back();
      }
    }
    if (best == steps_.end()) {
      return false;
    }
    best->nodes.push_back(index);
    steps_.splice(steps_.end(), steps_, best);
    return true;
  }

  const Program::Impl& program_;
  std::vector<int> reads_;  // by tensor, Program outputs included
  Steps steps_;
  std::vector<Steps::iterator> producers_;  // by tensor
};

}  // namespace

std::vector<FusedNodes> fuse_post_ops(const Program::Impl& program, const std::string& engine,
                                      bool fuse) {
  return Fuser(program).run(engine, fuse);
}

}  // namespace pyquant
