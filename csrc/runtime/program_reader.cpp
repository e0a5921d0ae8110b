#include "runtime/program_reader.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "program_generated.h"
#include "runtime/ops/op_definition.h"
#include "runtime/utf8.h"

namespace pyquant {
namespace {

static_assert(std::endian::native == std::endian::little, "model.pyq is little-endian");

constexpr std::size_t kMaxNameLength = 4096;

[[noreturn]] void reject(const std::string& why) {
  throw InvalidProgramError("not a valid pyquant Program: " + why);
}

std::string read_name(const flatbuffers::String* text, const char* role) {
  if (text == nullptr) {
    return {};
  }
  std::string name = text->str();
  if (name.size() > kMaxNameLength || !is_utf8(name)) {
    reject(std::string("the name of a ") + role + " is too long or no UTF-8");
  }
  return name;
}

std::size_t checked_index(std::uint64_t index, std::size_t size, const std::string& role) {
  if (index >= size) {
    reject(role + " refers to number " + std::to_string(index) + " of " + std::to_string(size));
  }
  return static_cast<std::size_t>(index);
}

DType read_dtype(fb::DType dtype, const std::string& name) {
  if (dtype > fb::DType::MAX) {
    reject("the tensor '" + name + "' has an unknown dtype");
  }
  return static_cast<DType>(dtype);
}

Shape read_shape(const flatbuffers::Vector<std::int32_t>* dims, const std::string& name) {
  Shape shape;
  if (dims == nullptr || dims->empty() || dims->size() > Shape::kMaxRank) {
    reject("the tensor '" + name + "' must have one to six dimensions");
  }
  std::int64_t elements = 1;
  for (const std::int32_t dim : *dims) {
    if (dim < 1 || elements * dim > INT32_MAX) {
      reject("the tensor '" + name + "' has an empty or too large shape");
    }
    elements *= dim;
    shape.push_back(dim);
  }
  return shape;
}

Window read_window(const fb::Window& from) {
  return {from.kernel_h(),   from.kernel_w(),  from.stride_h(),   from.stride_w(),
          from.pad_top(),    from.pad_left(),  from.pad_bottom(), from.pad_right(),
          from.dilation_h(), from.dilation_w()};
}

OpAttributes read_attributes(const fb::Node& node, const std::string& name) {
  switch (node.op_type()) {
    case fb::OpAttributes::Quantize:
      return Quantize{};
    case fb::OpAttributes::Dequantize:
      return Dequantize{};
    case fb::OpAttributes::Conv2d: {
      const fb::Conv2d& op = *node.op_as_Conv2d();
      return Conv2d{read_window(*op.window()), op.groups(), op.output_min(), op.output_max()};
    }
    case fb::OpAttributes::Linear: {
      const fb::Linear& op = *node.op_as_Linear();
      return Linear{op.output_min(), op.output_max()};
    }
    case fb::OpAttributes::Add: {
      const fb::Add& op = *node.op_as_Add();
      return Add{op.output_min(), op.output_max(), op.broadcast()};
    }
    case fb::OpAttributes::MaxPool2d: {
      const fb::MaxPool2d& op = *node.op_as_MaxPool2d();
      return MaxPool2d{read_window(*op.window()), op.ceil_mode()};
    }
    case fb::OpAttributes::AvgPool2d: {
      const fb::AvgPool2d& op = *node.op_as_AvgPool2d();
      return AvgPool2d{read_window(*op.window()), op.ceil_mode(), op.count_include_pad(),
                       op.divisor_override()};
    }
    case fb::OpAttributes::AdaptiveAvgPool2d: {
      const fb::AdaptiveAvgPool2d& op = *node.op_as_AdaptiveAvgPool2d();
      return AdaptiveAvgPool2d{op.output_h(), op.output_w()};
    }
    case fb::OpAttributes::Flatten:
      return Flatten{};
    case fb::OpAttributes::Pad: {
      const fb::Pad& op = *node.op_as_Pad();
      return Pad{op.top(), op.left(), op.bottom(), op.right()};
    }
    case fb::OpAttributes::LookupTable: {
      LookupTable table;
      const auto* values = node.op_as_LookupTable()->values();
      if (values->size() != table.values.size()) {
        reject("the table '" + name + "' does not have 256 values");
      }
      std::memcpy(table.values.data(), values->data(), table.values.size());
      return table;
    }
    case fb::OpAttributes::Mul: {
      const fb::Mul& op = *node.op_as_Mul();
      return Mul{op.output_min(), op.output_max()};
    }
    case fb::OpAttributes::Concat: {
      const fb::Concat& op = *node.op_as_Concat();
      return Concat{op.axis(), op.interleaved()};
    }
    case fb::OpAttributes::Slice: {
      const fb::Slice& op = *node.op_as_Slice();
      return Slice{op.axis(), op.begin(), op.end()};
    }
    case fb::OpAttributes::ChannelShuffle:
      return ChannelShuffle{node.op_as_ChannelShuffle()->groups()};
    case fb::OpAttributes::ResizeNearest: {
      const fb::ResizeNearest& op = *node.op_as_ResizeNearest();
      return ResizeNearest{op.output_h(), op.output_w(), op.scale_h(), op.scale_w()};
    }
    case fb::OpAttributes::ResizeBilinear: {
      const fb::ResizeBilinear& op = *node.op_as_ResizeBilinear();
      return ResizeBilinear{op.output_h(), op.output_w(), op.scale_h(), op.scale_w(),
                            op.align_corners()};
    }
    case fb::OpAttributes::ConvTranspose2d: {
      const fb::ConvTranspose2d& op = *node.op_as_ConvTranspose2d();
      return ConvTranspose2d{read_window(*op.window()), op.groups(),     op.output_pad_h(),
                             op.output_pad_w(),         op.output_min(), op.output_max()};
    }
    case fb::OpAttributes::Reshape: {
      const auto& sizes = *node.op_as_Reshape()->sizes();
      return Reshape{{sizes.begin(), sizes.end()}};
    }
    case fb::OpAttributes::AdaptiveMaxPool2d: {
      const fb::AdaptiveMaxPool2d& op = *node.op_as_AdaptiveMaxPool2d();
      return AdaptiveMaxPool2d{op.output_h(), op.output_w()};
    }
    case fb::OpAttributes::NONE:
      break;
  }
  reject("the node '" + name + "' is of a kind that this version of pyquant does not know");
}

class Reader {
 public:
  explicit Reader(const fb::Program& from) : from_(from) {}

  std::unique_ptr<Program::Impl> read() {
    program_->name = read_name(from_.name(), "Program");
    for (const fb::Tensor* tensor : *from_.tensors()) {
      read_tensor(*tensor);
    }
    written_.assign(program_->tensors.size(), false);
    for (std::size_t i = 0; i < program_->tensors.size(); ++i) {
      written_[i] = program_->tensors[i].operand.constant.data != nullptr;
    }
    read_inputs();
    for (const fb::Node* node : *from_.nodes()) {
      read_node(*node);
    }
    read_outputs();
    return std::move(program_);
  }

 private:
  void read_tensor(const fb::Tensor& from) {
    ProgramTensor tensor;
    TensorInfo& info = tensor.info;
    info.name = read_name(from.name(), "tensor");
    info.dtype = read_dtype(from.dtype(), info.name);
    info.shape = read_shape(from.shape(), info.name);
    const auto* scales = from.scale();
    const std::size_t scale_count = scales == nullptr ? 0 : scales->size();
    if (scale_count == 1) {
      info.qparams = {scales->Get(0), from.zero_point()};
    }
    tensor.operand.dtype = info.dtype;
    tensor.operand.qparams = info.qparams;
    if (from.buffer() != 0) {
      read_constant(from, scale_count, tensor);
    } else if (info.dtype == DType::kUInt8 && scale_count != 1) {
      reject("the activation '" + info.name + "' has no scale");
    }
    program_->tensors.push_back(std::move(tensor));
  }

  void read_constant(const fb::Tensor& from, std::size_t scale_count, ProgramTensor& tensor) {
    const TensorInfo& info = tensor.info;
    const std::size_t index =
        checked_index(from.buffer() - 1, from_.buffers()->size(), "the tensor '" + info.name + "'");
    const auto* data = from_.buffers()->Get(static_cast<flatbuffers::uoffset_t>(index))->data();
    tensor.operand.constant = {info.dtype, info.shape, data == nullptr ? nullptr : data->data()};
    if (data == nullptr || data->size() != tensor.operand.constant.bytes()) {
      reject("the data of '" + info.name + "' does not have the size of its shape");
    }
    if (reinterpret_cast<std::uintptr_t>(data->data()) % size_of(info.dtype) != 0) {
      reject("the data of '" + info.name + "' is not aligned");
    }
    if (info.dtype == DType::kInt8) {
      if (scale_count != static_cast<std::size_t>(info.shape[0]) || from.zero_point() != 0) {
        reject("the weight '" + info.name +
               "' must have one scale per output channel and zero_point 0");
      }
      tensor.operand.channel_scales = from.scale()->data();
    }
  }

  void read_inputs() {
    for (const std::uint32_t raw : *from_.inputs()) {
      const std::size_t index = checked_index(raw, program_->tensors.size(), "an input");
      if (written_[index]) {
        reject("the tensor '" + program_->tensors[index].info.name +
               "' is an input twice, or a constant");
      }
      written_[index] = true;
      program_->inputs.push_back(index);
      program_->input_infos.push_back(program_->tensors[index].info);
    }
  }

  void read_node(const fb::Node& from) {
    ProgramNode node;
    node.op.name = read_name(from.name(), "node");
    node.op.attributes = read_attributes(from, node.op.name);
    std::vector<Shape> shapes;
    for (const std::uint32_t raw : *from.inputs()) {
      const std::size_t index =
          checked_index(raw, program_->tensors.size(), "the node '" + node.op.name + "'");
      if (!written_[index]) {
        reject("the node '" + node.op.name + "' reads '" + program_->tensors[index].info.name +
               "' before it is written");
      }
      node.inputs.push_back(index);
      node.op.inputs.push_back(program_->tensors[index].operand);
      shapes.push_back(program_->tensors[index].info.shape);
    }
    node.output =
        checked_index(from.output(), program_->tensors.size(), "the node '" + node.op.name + "'");
    const ProgramTensor& output = program_->tensors[node.output];
    if (written_[node.output]) {
      reject("the node '" + node.op.name + "' writes '" + output.info.name +
             "', which is already written");
    }
    written_[node.output] = true;
    node.op.output = output.operand;
    check_operator(node.op);
    check_shape(node.op, shapes, output.info);
    program_->node_infos.push_back({node.op.name, kind_name(node.op.attributes)});
    program_->nodes.push_back(std::move(node));
  }

  static void check_shape(const Operator& op, const std::vector<Shape>& inputs,
                          const TensorInfo& output) {
    Shape inferred;
    try {
      inferred = infer_output_shape(op, inputs);
    } catch (const InvalidInputError& error) {
      throw InvalidProgramError(error.what());
    }
    if (!(inferred == output.shape)) {
      reject_operator(op, "gives " + inferred.to_string() + ", but '" + output.name + "' is " +
                              output.shape.to_string());
    }
  }

  void read_outputs() {
    if (from_.outputs()->empty()) {
      reject("it has no output");
    }
    for (const std::uint32_t raw : *from_.outputs()) {
      const std::size_t index = checked_index(raw, program_->tensors.size(), "an output");
      const ProgramTensor& tensor = program_->tensors[index];
      if (!written_[index] || tensor.operand.constant.data != nullptr) {
        reject("the output '" + tensor.info.name + "' is never written");
      }
      program_->outputs.push_back(index);
      program_->output_infos.push_back(tensor.info);
    }
  }

  const fb::Program& from_;
  std::unique_ptr<Program::Impl> program_ = std::make_unique<Program::Impl>();
  std::vector<bool> written_;  // inputs, constants and outputs of earlier nodes
};

}  // namespace

std::unique_ptr<Program::Impl> read_program(std::span<const std::byte> bytes) {
  const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  // The identifier is at bytes 4 to 8; looking there first tells a foreign file from a damaged one.
  constexpr std::size_t kHeader = 8;
  if (bytes.size() < kHeader || !fb::ProgramBufferHasIdentifier(data)) {
    reject("the file does not begin as one does (another kind of file, or cut short)");
  }
  flatbuffers::Verifier::Options options;
  options.max_tables = 1U << 22U;
  if (bytes.size() >= FLATBUFFERS_MAX_BUFFER_SIZE) {
    reject("it is larger than 2 GiB");
  }
  flatbuffers::Verifier verifier(data, bytes.size(), options);
  if (!fb::VerifyProgramBuffer(verifier)) {
    reject("it is damaged or cut short");
  }
  const fb::Program& program = *fb::GetProgram(data);
  if (program.version() == 0 || program.version() > kProgramVersion) {
    reject("it has version " + std::to_string(program.version()) +
           ", and this pyquant reads versions 1 to " + std::to_string(kProgramVersion) +
           "; a newer pyquant may read it");
  }
  return Reader(program).read();
}

}  // namespace pyquant
