// pyquant.h on top of the C++ interface.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "kernels/dispatch.h"
#include "pyquant/error.h"
#include "pyquant/program.h"
#include "pyquant/pyquant.h"
#include "pyquant/session.h"

using pyquant::ConstTensorView;
using pyquant::DType;
using pyquant::InvalidInputError;
using pyquant::Program;
using pyquant::Session;
using pyquant::Shape;
using pyquant::TensorInfo;
using pyquant::TensorView;

struct pyquant_program {
  std::shared_ptr<const Program> program;
};

struct pyquant_session {
  std::shared_ptr<const Program> program;
  Session session;
  // Of the run under way; kept so that runs do not allocate.
  std::vector<Shape> shapes;
  std::vector<ConstTensorView> inputs;
  std::vector<TensorView> outputs;
};

static_assert(Shape::kMaxRank == PYQUANT_MAX_RANK);
static_assert(static_cast<int>(DType::kFloat32) == PYQUANT_FLOAT32);

namespace {

thread_local std::string last_error;

// The caller's mistake about an argument, not about a tensor.
class ArgumentError : public pyquant::Error {
 public:
  using Error::Error;
};

void set_last_error(const char* message) noexcept {
  try {
    last_error = message;
  } catch (...) {
    last_error.clear();  // no memory even for the message
  }
}

// Runs the body of a function of the C interface; its exceptions become statuses.
template <typename Body>
pyquant_status guarded(const Body& body) noexcept {
  const auto fail = [](pyquant_status status, const char* message) {
    set_last_error(message);
    return status;
  };
  try {
    body();
    return PYQUANT_OK;
  } catch (const ArgumentError& error) {
    return fail(PYQUANT_INVALID_ARGUMENT, error.what());
  } catch (const pyquant::InvalidProgramError& error) {
    return fail(PYQUANT_INVALID_PROGRAM, error.what());
  } catch (const InvalidInputError& error) {
    return fail(PYQUANT_INVALID_INPUT, error.what());
  } catch (const pyquant::UnsupportedError& error) {
    return fail(PYQUANT_UNSUPPORTED, error.what());
  } catch (const pyquant::IoError& error) {
    return fail(PYQUANT_IO_ERROR, error.what());
  } catch (const std::bad_alloc&) {
    return fail(PYQUANT_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return fail(PYQUANT_INTERNAL_ERROR, error.what());
  } catch (...) {
    return fail(PYQUANT_INTERNAL_ERROR, "unknown error");
  }
}

template <typename Object>
void require(const Object* pointer, const char* name) {
  if (pointer == nullptr) {
    throw ArgumentError(std::string(name) + " is NULL");
  }
}

// Arrays of no elements may be NULL.
void require_array(const void* pointer, std::size_t count, const char* name) {
  if (count != 0) {
    require(pointer, name);
  }
}

// least: the size of the structure's first version, which old callers have.
void require_size(std::size_t given, std::size_t least, const char* name) {
  if (given < least) {
    throw ArgumentError("struct_size of " + std::string(name) + " is " + std::to_string(given) +
                        "; it must be sizeof(" + name + ")");
  }
}

std::string tensor_name(const char* role, std::size_t index) {
  return std::string(role) + " " + std::to_string(index);
}

Shape to_shape(const pyquant_shape& from, const char* role, std::size_t index) {
  if (from.rank < 1 || from.rank > PYQUANT_MAX_RANK) {
    throw InvalidInputError(tensor_name(role, index) + " has rank " + std::to_string(from.rank) +
                            "; it must be 1 to " + std::to_string(PYQUANT_MAX_RANK));
  }
  Shape shape;
  for (std::int32_t axis = 0; axis < from.rank; ++axis) {
    shape.push_back(from.dims[axis]);
  }
  return shape;
}

pyquant_shape from_shape(const Shape& from) {
  pyquant_shape shape = {};
  shape.rank = static_cast<std::int32_t>(from.rank());
  std::copy(from.begin(), from.end(), shape.dims);
  return shape;
}

// `bytes` is at least what the shape takes: a size that does not fit size_t is no such number.
void require_bytes(const pyquant_tensor& tensor, const Shape& shape, DType dtype, const char* role,
                   std::size_t index) {
  std::size_t needed = pyquant::size_of(dtype);
  bool fits = true;
  for (const std::int64_t dim : shape) {
    fits = fits && dim >= 0 && !__builtin_mul_overflow(needed, dim, &needed);
  }
  if (!fits || tensor.bytes < needed) {
    throw InvalidInputError(tensor_name(role, index) + " has " + std::to_string(tensor.bytes) +
                            " bytes, too few for the shape " + shape.to_string());
  }
}

template <typename View>
void to_views(const pyquant_tensor* tensors, std::size_t count, const char* role,
              std::vector<View>& views) {
  views.clear();
  for (std::size_t i = 0; i < count; ++i) {
    const pyquant_tensor& tensor = tensors[i];
    if (tensor.dtype < PYQUANT_UINT8 || tensor.dtype > PYQUANT_FLOAT32) {
      throw ArgumentError(tensor_name(role, i) + " has the unknown dtype " +
                          std::to_string(tensor.dtype));
    }
    const auto dtype = static_cast<DType>(tensor.dtype);
    const Shape shape = to_shape(tensor.shape, role, i);
    require_bytes(tensor, shape, dtype, role, i);
    views.push_back({dtype, shape, tensor.data});
  }
}

template <typename Load>
pyquant_status make_program(pyquant_program** program, const Load& load) {
  return guarded([&] {
    require(program, "program");
    *program = new pyquant_program{load()};
  });
}

pyquant_status describe(const pyquant_program* program, pyquant_tensor_info* info,
                        const std::vector<TensorInfo>& (Program::*tensors)() const,
                        std::size_t index) {
  return guarded([&] {
    require(program, "program");
    require(info, "info");
    require_size(info->struct_size, sizeof(pyquant_tensor_info), "pyquant_tensor_info");
    const std::vector<TensorInfo>& all = ((*program->program).*tensors)();
    if (index >= all.size()) {
      throw ArgumentError("there is no number " + std::to_string(index) + " among " +
                          std::to_string(all.size()));
    }
    const TensorInfo& found = all[index];
    info->name = found.name.c_str();
    info->dtype = static_cast<pyquant_dtype>(found.dtype);
    info->shape = from_shape(found.shape);
    info->scale = found.qparams.scale;
    info->zero_point = found.qparams.zero_point;
  });
}

}  // namespace

extern "C" {

const char* pyquant_version(void) { return PYQUANT_VERSION; }

const char* pyquant_cpu_features(void) {
  try {
    static const std::string features = [] {
      std::string joined;
      for (const std::string& isa : pyquant::isas()) {
        joined += (joined.empty() ? "" : " ") + isa;
      }
      return joined;
    }();
    return features.c_str();
  } catch (...) {
    return nullptr;
  }
}

const char* pyquant_last_error_message(void) { return last_error.c_str(); }

pyquant_status pyquant_program_load(const char* path, pyquant_program** program) {
  return make_program(program, [&] {
    require(path, "path");
    return Program::load(path);
  });
}

pyquant_status pyquant_program_from_bytes(const void* bytes, size_t size,
                                          pyquant_program** program) {
  return make_program(program, [&] {
    require_array(bytes, size, "bytes");
    return Program::from_bytes({static_cast<const std::byte*>(bytes), size});
  });
}

void pyquant_program_free(pyquant_program* program) { delete program; }

const char* pyquant_program_name(const pyquant_program* program) {
  return program == nullptr ? "" : program->program->name().c_str();
}

size_t pyquant_program_input_count(const pyquant_program* program) {
  return program == nullptr ? 0 : program->program->inputs().size();
}

size_t pyquant_program_output_count(const pyquant_program* program) {
  return program == nullptr ? 0 : program->program->outputs().size();
}

pyquant_status pyquant_program_input(const pyquant_program* program, size_t index,
                                     pyquant_tensor_info* info) {
  return describe(program, info, &Program::inputs, index);
}

pyquant_status pyquant_program_output(const pyquant_program* program, size_t index,
                                      pyquant_tensor_info* info) {
  return describe(program, info, &Program::outputs, index);
}

pyquant_status pyquant_session_create(const pyquant_program* program,
                                      const pyquant_session_options* options,
                                      pyquant_session** session) {
  return guarded([&] {
    require(program, "program");
    require(session, "session");
    pyquant::SessionOptions taken;
    if (options != nullptr) {
      require_size(options->struct_size, sizeof(pyquant_session_options),
                   "pyquant_session_options");
      taken.threads = options->threads;
      taken.engine = options->engine == nullptr ? "auto" : options->engine;
    }
    *session = new pyquant_session{program->program, Session(program->program, taken), {}, {}, {}};
  });
}

void pyquant_session_free(pyquant_session* session) { delete session; }

pyquant_status pyquant_session_output_shapes(pyquant_session* session, const pyquant_shape* inputs,
                                             size_t input_count, pyquant_shape* outputs,
                                             size_t output_count) {
  return guarded([&] {
    require(session, "session");
    require_array(inputs, input_count, "inputs");
    require_array(outputs, output_count, "outputs");
    session->shapes.clear();
    for (std::size_t i = 0; i < input_count; ++i) {
      session->shapes.push_back(to_shape(inputs[i], "input", i));
    }
    const std::vector<Shape>& shapes = session->session.output_shapes(session->shapes);
    if (output_count != shapes.size()) {
      throw InvalidInputError("the Program has " + std::to_string(shapes.size()) +
                              " outputs, not " + std::to_string(output_count));
    }
    for (std::size_t i = 0; i < output_count; ++i) {
      outputs[i] = from_shape(shapes[i]);
    }
  });
}

pyquant_status pyquant_session_run(pyquant_session* session, const pyquant_tensor* inputs,
                                   size_t input_count, const pyquant_tensor* outputs,
                                   size_t output_count) {
  return guarded([&] {
    require(session, "session");
    require_array(inputs, input_count, "inputs");
    require_array(outputs, output_count, "outputs");
    to_views(inputs, input_count, "input", session->inputs);
    to_views(outputs, output_count, "output", session->outputs);
    session->session.run(session->inputs, session->outputs);
  });
}

}  // extern "C"
