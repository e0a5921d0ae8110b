// Which nodes of a Program are computed together.
#pragma once

#include <string>
#include <vector>

#include "engines/engine.h"
#include "runtime/program_impl.h"

namespace pyquant {

// Nodes on an engine: one, followed by those that the engine computes on its output before storing
// it.
struct FusedNodes {
  const Engine* engine;
  std::vector<std::size_t> nodes;
  std::vector<PostOp> post_ops;  // nodes[1..]
};

// All nodes of the Program, in an order in which they can run; each alone, without `fuse`. Each is
// on the engine that
// select_engine() gives; a node follows another one into its step where nothing else reads what is
// between them and the engine fuses them. Of two operands that could take an Add in, the one that
// is computed last does, so that the other one is there.
std::vector<FusedNodes> fuse_post_ops(const Program::Impl& program, const std::string& engine,
                                      bool fuse);

}  // namespace pyquant
