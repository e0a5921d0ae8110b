#include "pyquant/program.h"

#include <cstring>

#include "runtime/aligned_buffer.h"
#include "runtime/fuse_post_ops.h"
#include "runtime/mapped_file.h"
#include "runtime/program_impl.h"
#include "runtime/program_reader.h"

namespace pyquant {

Program::Program(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Program::~Program() = default;

std::shared_ptr<const Program> Program::load(const std::string& path) {
  auto file = std::make_shared<const MappedFile>(path);
  auto impl = read_program(file->bytes());
  impl->storage = std::move(file);
  return std::make_shared<const Program>(std::move(impl));
}

std::shared_ptr<const Program> Program::from_bytes(std::span<const std::byte> bytes) {
  auto copy = std::make_shared<AlignedBuffer>();
  copy->reserve(bytes.size());
  if (!bytes.empty()) {
    std::memcpy(copy->data(), bytes.data(), bytes.size());
  }
  auto impl = read_program({copy->data(), bytes.size()});
  impl->storage = std::move(copy);
  return std::make_shared<const Program>(std::move(impl));
}

const std::string& Program::name() const { return impl_->name; }
const std::vector<TensorInfo>& Program::inputs() const { return impl_->input_infos; }
const std::vector<TensorInfo>& Program::outputs() const { return impl_->output_infos; }
const std::vector<NodeInfo>& Program::nodes() const { return impl_->node_infos; }

std::shared_ptr<const PreparedProgram> Program::Impl::prepared(const std::string& engine,
                                                               bool fuse) const {
  const std::lock_guard lock(mutex_);
  if (const auto found = prepared_.find({engine, fuse}); found != prepared_.end()) {
    return found->second;
  }
  auto result = std::make_shared<PreparedProgram>();
  result->engines.resize(nodes.size());
  for (FusedNodes& fused : fuse_post_ops(*this, engine, fuse)) {
    PreparedStep step;
    step.kernel = fused.engine->prepare(nodes[fused.nodes.front()].op, fused.post_ops);
    for (const std::size_t index : fused.nodes) {
      const ProgramNode& node = nodes[index];
      for (std::size_t i = 0; i < node.inputs.size(); ++i) {
        const bool inner = index != fused.nodes.front() && node.inputs[i] == step.output;
        if (node.op.inputs[i].constant.data == nullptr && !inner) {
          step.inputs.push_back(node.inputs[i]);
        }
      }
      step.output = node.output;
      result->engines[index] = fused.engine->name();
    }
    step.nodes = std::move(fused.nodes);
    result->steps.push_back(std::move(step));
  }
  prepared_.emplace(std::pair(engine, fuse), result);
  return result;
}

}  // namespace pyquant
