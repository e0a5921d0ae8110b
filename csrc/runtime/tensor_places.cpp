#include "runtime/tensor_places.h"

#include <algorithm>
#include <optional>

#include "runtime/ops/op_definition.h"

namespace pyquant {
namespace {

constexpr std::size_t kNone = SIZE_MAX;

class Placer {
 public:
  Placer(const Program::Impl& program, const PreparedProgram& prepared,
         std::span<const Shape> shapes)
      : program_(program),
        prepared_(prepared),
        shapes_(shapes),
        producers_(shapes.size(), kNone),
        readers_(shapes.size()),
        moves_(prepared.steps.size(), true) {
    for (std::size_t tensor = 0; tensor < shapes.size(); ++tensor) {
      places_.push_back({tensor, 0, StridedShape(shapes[tensor]).pixel_stride});
    }
    for (std::size_t step = 0; step < prepared.steps.size(); ++step) {
      const std::vector<std::size_t>& inputs = prepared.steps[step].inputs;
      producers_[prepared.steps[step].output] = step;
      for (std::size_t input = 0; input < inputs.size(); ++input) {
        readers_[inputs[input]].push_back({step, input});
      }
    }
  }

  Placement run(bool join) {
    for (std::size_t step = 0; step < moves_.size(); ++step) {
      const ProgramNode& node = first_node(step);
      const PreparedStep& prepared = prepared_.steps[step];
      if (is_view(step)) {
        const TensorPlace& input = places_[node.inputs[0]];
        places_[node.output] = {input.root, input.offset, places_[node.output].pixel_stride};
        moves_[step] = false;
      } else if (const auto* slice = std::get_if<Slice>(&node.op.attributes); join && slice) {
        moves_[step] = !read_in_place(*slice, prepared.inputs[0], prepared.output);
      }
    }
    // The last ones first: others may become parts of them.
    for (std::size_t step = moves_.size(); join && step-- != 0;) {
      const auto* concat = std::get_if<Concat>(&first_node(step).op.attributes);
      if (concat != nullptr && !concat->interleaved) {
        moves_[step] = !join_inputs(static_cast<std::size_t>(concat->axis), step);
      }
    }
    Placement placement{std::move(places_), {}};
    for (std::size_t step = 0; step < moves_.size(); ++step) {
      if (moves_[step]) {
        placement.steps.push_back(&prepared_.steps[step]);
      }
    }
    return placement;
  }

 private:
  struct Reader {
    std::size_t step, input;
  };

  const ProgramNode& first_node(std::size_t step) const {
    return program_.nodes[prepared_.steps[step].nodes.front()];
  }

  bool is_view(std::size_t step) const {
    const ProgramNode& node = first_node(step);
    std::vector<Shape> inputs;
    inputs.reserve(node.inputs.size());
    for (const std::size_t tensor : node.inputs) {
      inputs.push_back(shapes_[tensor]);
    }
    return definition_of(node.op.attributes).is_view(inputs);
  }

  // Whether a range of an axis is pixels at one distance: of the channels, or of all pixels.
  static bool is_regular(const Shape& shape, std::size_t axis) {
    return axis + 1 == shape.rank() ||
           std::all_of(shape.begin(), shape.begin() + axis, [](std::int64_t d) { return d == 1; });
  }

  // The elements before position `begin` of an axis for which is_regular.
  std::int64_t offset_in(std::size_t tensor, std::size_t axis, std::int64_t begin) const {
    const Shape& shape = shapes_[tensor];
    std::int64_t offset = begin;
    for (std::size_t inner = axis + 1; inner < shape.rank(); ++inner) {
      offset *= inner + 1 == shape.rank() ? places_[tensor].pixel_stride : shape[inner];
    }
    return offset;
  }

  bool is_program_output(std::size_t tensor) const {
    return std::ranges::find(program_.outputs, tensor) != program_.outputs.end();
  }

  // Whether a tensor may be a part of another as far as what reads it is concerned.
  bool readers_take_strides(std::size_t tensor) const {
    return !is_program_output(tensor) &&
           std::ranges::all_of(readers_[tensor], [&](const Reader& reader) {
             return prepared_.steps[reader.step].kernel->takes_strided_input(reader.input);
           });
  }

  bool read_in_place(const Slice& slice, std::size_t from, std::size_t to) {
    const auto axis = static_cast<std::size_t>(slice.axis);
    if (!is_regular(shapes_[from], axis) || !readers_take_strides(to)) {
      return false;
    }
    const TensorPlace& place = places_[from];
    const std::int64_t begin = slice.begin_in(shapes_[from][axis]);
    places_[to] = {place.root, place.offset + offset_in(from, axis, begin), place.pixel_stride};
    return true;
  }

  // Whether nothing is left to do for a Concat.
  bool join_inputs(std::size_t axis, std::size_t step) {
    const std::vector<std::size_t>& inputs = prepared_.steps[step].inputs;
    const std::size_t output = prepared_.steps[step].output;
    if (!is_regular(shapes_[output], axis)) {
      return false;
    }
    if (const auto place = place_of_neighbours(inputs, axis);
        place && places_[output].root == output && readers_take_strides(output)) {
      move(output, *place);
      return true;
    }
    bool all = true;
    std::int64_t begin = 0;
    for (const std::size_t input : inputs) {
      const TensorPlace& whole = places_[output];
      const TensorPlace place = {whole.root, whole.offset + offset_in(output, axis, begin),
                                 whole.pixel_stride};
      const bool joins = std::ranges::count(inputs, input) == 1 && may_move(input);
      if (joins) {
        move(input, place);
      }
      all = all && joins;
      begin += shapes_[input][axis];
    }
    return all;
  }

  // A tensor that is computed into memory of its own, and need not be.
  bool may_move(std::size_t tensor) const {
    const std::size_t producer = producers_[tensor];
    return producer != kNone && places_[tensor].root == tensor &&
           prepared_.steps[producer].kernel->takes_strided_output() && readers_take_strides(tensor);
  }

  // The place of tensors that lie side by side along an axis, taken together.
  std::optional<TensorPlace> place_of_neighbours(std::span<const std::size_t> tensors,
                                                 std::size_t axis) const {
    const TensorPlace& first = places_[tensors[0]];
    std::int64_t offset = first.offset;
    for (const std::size_t tensor : tensors) {
      const TensorPlace& place = places_[tensor];
      if (place.root == tensor || place.root != first.root || place.offset != offset ||
          place.pixel_stride != first.pixel_stride) {
        return std::nullopt;
      }
      offset += offset_in(tensor, axis, shapes_[tensor][axis]);
    }
    return first;
  }

  // Gives a root a place in another one, and with it what lies in it.
  void move(std::size_t root, const TensorPlace& target) {
    const std::int64_t stride = places_[root].pixel_stride;
    for (TensorPlace& place : places_) {
      if (place.root == root) {
        place = {
            target.root,
            target.offset + place.offset / stride * target.pixel_stride + place.offset % stride,
            target.pixel_stride};
      }
    }
  }

  const Program::Impl& program_;
  const PreparedProgram& prepared_;
  std::span<const Shape> shapes_;
  std::vector<std::size_t> producers_;        // by tensor: the step; of inputs and constants none
  std::vector<std::vector<Reader>> readers_;  // by tensor
  std::vector<bool> moves_;                   // by step: whether it computes or copies anything
  std::vector<TensorPlace> places_;           // by tensor
};

}  // namespace

Placement place_tensors(const Program::Impl& program, const PreparedProgram& prepared,
                        std::span<const Shape> shapes, bool join) {
  return Placer(program, prepared, shapes).run(join);
}

}  // namespace pyquant
