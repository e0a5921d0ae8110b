/* Runs a model.pyq of one float32 input and one float32 output through the C interface and prints
 * the largest output.
 *
 *   run_program_c model.pyq input.raw [output.raw]
 *
 * The files are float32 without a header. */
#include <pyquant/pyquant.h>
#include <stdio.h>
#include <stdlib.h>

static void fail(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(pyquant_status status, const char* what) {
  if (status != PYQUANT_OK) {
    fail(what, pyquant_last_error_message());
  }
}

static size_t elements(const pyquant_shape* shape) {
  size_t count = 1;
  int32_t axis;
  for (axis = 0; axis < shape->rank; ++axis) {
    count *= (size_t)shape->dims[axis];
  }
  return count;
}

/* A float32 tensor with memory of its own. */
static pyquant_tensor make_tensor(const pyquant_shape* shape) {
  pyquant_tensor tensor;
  tensor.shape = *shape;
  tensor.dtype = PYQUANT_FLOAT32;
  tensor.bytes = elements(shape) * sizeof(float);
  tensor.data = malloc(tensor.bytes);
  if (tensor.data == NULL) {
    fail("malloc", "out of memory");
  }
  return tensor;
}

static void read_file(const char* path, const pyquant_tensor* tensor) {
  FILE* file = fopen(path, "rb");
  if (file == NULL || fread(tensor->data, 1, tensor->bytes, file) != tensor->bytes) {
    fail(path, "cannot be read, or is too short");
  }
  fclose(file);
}

static void write_file(const char* path, const pyquant_tensor* tensor) {
  FILE* file = fopen(path, "wb");
  if (file == NULL || fwrite(tensor->data, 1, tensor->bytes, file) != tensor->bytes ||
      fclose(file) != 0) {
    fail(path, "cannot be written");
  }
}

static void print_largest(const pyquant_tensor* tensor) {
  const float* scores = tensor->data;
  const size_t count = tensor->bytes / sizeof(float);
  size_t i, best = 0;
  for (i = 1; i < count; ++i) {
    if (scores[i] > scores[best]) {
      best = i;
    }
  }
  printf("%5lu  %g\n", (unsigned long)best, (double)scores[best]);
}

int main(int argc, char** argv) {
  pyquant_program* program = NULL;
  pyquant_session* session = NULL;
  pyquant_session_options options = {sizeof options, 1, "auto"};
  pyquant_tensor_info info = {0};
  pyquant_shape output_shape;
  pyquant_tensor input, output;

  if (argc < 3 || argc > 4) {
    fprintf(stderr, "usage: %s model.pyq input.raw [output.raw]\n", argv[0]);
    return 2;
  }
  check(pyquant_program_load(argv[1], &program), argv[1]);
  info.struct_size = sizeof info;
  check(pyquant_program_input(program, 0, &info), "input");
  if (pyquant_program_input_count(program) != 1 || pyquant_program_output_count(program) != 1 ||
      info.dtype != PYQUANT_FLOAT32) {
    fail(argv[1], "this example takes models of one float32 input and output");
  }
  check(pyquant_session_create(program, &options, &session), "session");
  check(pyquant_session_output_shapes(session, &info.shape, 1, &output_shape, 1), "shapes");

  input = make_tensor(&info.shape);
  output = make_tensor(&output_shape);
  read_file(argv[2], &input);
  check(pyquant_session_run(session, &input, 1, &output, 1), "run");

  printf("pyquant %s on %s\n", pyquant_version(), pyquant_cpu_features());
  print_largest(&output);
  if (argc > 3) {
    write_file(argv[3], &output);
  }
  free(input.data);
  free(output.data);
  pyquant_session_free(session);
  pyquant_program_free(program);
  return 0;
}
