/* The C interface as a C99 program uses it, well and badly, on the Program of session_test.cpp:
 * y[n, 0] = 0.75 * x[n, 0] - 0.5 * x[n, 1] + 0.625. */
#include <pyquant/pyquant.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

/* The call gives this status, and the message holds the text. */
#define CHECK_FAILS(status, text, call)                                                 \
  do {                                                                                  \
    CHECK((call) == (status));                                                          \
    if (strstr(pyquant_last_error_message(), text) == NULL) {                           \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, pyquant_last_error_message()); \
      exit(1);                                                                          \
    }                                                                                   \
  } while (0)

#define PIXELS 6

static const pyquant_shape kInputShape = {4, {1, 2, 2, 3}};
static const pyquant_shape kOutputShape = {4, {1, 1, 2, 3}};

static pyquant_tensor tensor(void* data, size_t bytes, pyquant_shape shape) {
  pyquant_tensor result;
  result.data = data;
  result.bytes = bytes;
  result.dtype = PYQUANT_FLOAT32;
  result.shape = shape;
  return result;
}

static void test_description(const pyquant_program* program) {
  pyquant_tensor_info info;
  memset(&info, 0, sizeof info);
  info.struct_size = sizeof info;
  CHECK(strcmp(pyquant_program_name(program), "small") == 0);
  CHECK(pyquant_program_input_count(program) == 1);
  CHECK(pyquant_program_output_count(program) == 1);
  CHECK(pyquant_program_input(program, 0, &info) == PYQUANT_OK);
  CHECK(strcmp(info.name, "x") == 0 && info.dtype == PYQUANT_FLOAT32);
  CHECK(info.shape.rank == 4 && info.shape.dims[1] == 2 && info.shape.dims[3] == 3);
  CHECK(pyquant_program_output(program, 0, &info) == PYQUANT_OK);
  CHECK(strcmp(info.name, "y") == 0 && info.shape.dims[1] == 1);
  CHECK_FAILS(PYQUANT_INVALID_ARGUMENT, "number 1", pyquant_program_input(program, 1, &info));
  CHECK_FAILS(PYQUANT_INVALID_ARGUMENT, "info", pyquant_program_input(program, 0, NULL));
  CHECK_FAILS(PYQUANT_INVALID_ARGUMENT, "program", pyquant_program_output(NULL, 0, &info));
  info.struct_size = sizeof info - 1;
  CHECK_FAILS(PYQUANT_INVALID_ARGUMENT, "struct_size", pyquant_program_input(program, 0, &info));
}

/* Any batch size and image size. */
static void run_and_check(pyquant_session* session, int64_t batch, int64_t height) {
  pyquant_shape in_shape = {4, {0, 2, 0, 3}};
  pyquant_shape out_shape;
  pyquant_tensor input, output;
  float x[3 * 2 * PIXELS], y[3 * PIXELS];
  const size_t pixels = (size_t)(height * 3), count = (size_t)batch * pixels;
  size_t i;
  CHECK(count <= 3 * PIXELS);
  in_shape.dims[0] = batch;
  in_shape.dims[2] = height;
  for (i = 0; i < 2 * count; ++i) {
    x[i] = (float)((int)(i * 5 % 11) - 5);
  }
  CHECK(pyquant_session_output_shapes(session, &in_shape, 1, &out_shape, 1) == PYQUANT_OK);
  CHECK(out_shape.rank == 4 && out_shape.dims[0] == batch && out_shape.dims[1] == 1 &&
        out_shape.dims[2] == height && out_shape.dims[3] == 3);
  input = tensor(x, 2 * count * sizeof(float), in_shape);
  output = tensor(y, count * sizeof(float), out_shape);
  CHECK(pyquant_session_run(session, &input, 1, &output, 1) == PYQUANT_OK);
  for (i = 0; i < count; ++i) {
    const float* image = x + 2 * pixels * (i / pixels);
    const float expected = 0.75F * image[i % pixels] - 0.5F * image[pixels + i % pixels] + 0.625F;
    const float error = y[i] - expected;
    CHECK(error <= 0.0625F && error >= -0.0625F); /* half a step of the output */
  }
}

static void test_wrong_runs(pyquant_session* session) {
  float x[2 * PIXELS] = {0}, y[PIXELS];
  const pyquant_tensor good_x = tensor(x, sizeof x, kInputShape);
  const pyquant_tensor good_y = tensor(y, sizeof y, kOutputShape);
  pyquant_tensor bad;
  pyquant_shape shapes[2];

  CHECK_FAILS(PYQUANT_INVALID_ARGUMENT, "session",
              pyquant_session_run(NULL, &good_x, 1, &good_y, 1));
  CHECK_FAILS(PYQUANT_INVALID_ARGUMENT, "inputs",
              pyquant_session_run(session, NULL, 1, &good_y, 1));
  CHECK_FAILS(PYQUANT_INVALID_ARGUMENT, "outputs",
              pyquant_session_run(session, &good_x, 1, NULL, 1));
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "inputs", pyquant_session_run(session, NULL, 0, &good_y, 1));
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "outputs", pyquant_session_run(session, &good_x, 1, NULL, 0));

  bad = good_x;
  bad.data = NULL;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "no data", pyquant_session_run(session, &bad, 1, &good_y, 1));
  bad = good_x;
  --bad.bytes;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "too few", pyquant_session_run(session, &bad, 1, &good_y, 1));
  bad = good_x;
  bad.dtype = PYQUANT_UINT8;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "float32", pyquant_session_run(session, &bad, 1, &good_y, 1));
  bad.dtype = 99;
  CHECK_FAILS(PYQUANT_INVALID_ARGUMENT, "dtype", pyquant_session_run(session, &bad, 1, &good_y, 1));
  bad = good_x;
  bad.shape.rank = 3;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "dimensions",
              pyquant_session_run(session, &bad, 1, &good_y, 1));
  bad.shape.rank = 7;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "rank", pyquant_session_run(session, &bad, 1, &good_y, 1));
  bad.shape.rank = -1;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "rank", pyquant_session_run(session, &bad, 1, &good_y, 1));
  bad = good_x;
  bad.shape.dims[0] = 0;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "", pyquant_session_run(session, &bad, 1, &good_y, 1));
  bad.shape.dims[0] = -1;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "", pyquant_session_run(session, &bad, 1, &good_y, 1));
  bad.shape.dims[0] = INT64_MAX;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "too few", pyquant_session_run(session, &bad, 1, &good_y, 1));
  bad.shape.dims[0] = 1;
  bad.shape.dims[1] = 1;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "channels", pyquant_session_run(session, &bad, 1, &good_y, 1));

  bad = good_y;
  bad.bytes = 0;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "output 0", pyquant_session_run(session, &good_x, 1, &bad, 1));
  bad = good_y;
  bad.shape.dims[3] = 2;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "must be [1, 1, 2, 3]",
              pyquant_session_run(session, &good_x, 1, &bad, 1));

  shapes[0] = kInputShape;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "outputs",
              pyquant_session_output_shapes(session, shapes, 1, shapes, 2));
  shapes[0].dims[1] = -5;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "",
              pyquant_session_output_shapes(session, shapes, 1, shapes + 1, 1));
  run_and_check(session, 1, 2); /* still good */
}

static void test_wrong_sessions(const pyquant_program* program) {
  pyquant_session_options options = {sizeof options, 1, NULL};
  pyquant_session* session = NULL;
  CHECK_FAILS(PYQUANT_INVALID_ARGUMENT, "program", pyquant_session_create(NULL, NULL, &session));
  CHECK_FAILS(PYQUANT_INVALID_ARGUMENT, "session", pyquant_session_create(program, NULL, NULL));
  options.threads = 0;
  CHECK_FAILS(PYQUANT_INVALID_INPUT, "threads",
              pyquant_session_create(program, &options, &session));
  options.threads = 1;
  options.engine = "warp";
  CHECK_FAILS(PYQUANT_UNSUPPORTED, "warp", pyquant_session_create(program, &options, &session));
  options.engine = "reference";
  options.struct_size = 0;
  CHECK_FAILS(PYQUANT_INVALID_ARGUMENT, "struct_size",
              pyquant_session_create(program, &options, &session));
  CHECK(session == NULL);
}

/* Reads the file, and damages it. */
static void test_wrong_programs(const char* path) {
  pyquant_program* program = NULL;
  unsigned char bytes[65536];
  FILE* file = fopen(path, "rb");
  size_t size;
  CHECK(file != NULL);
  size = fread(bytes, 1, sizeof bytes, file);
  CHECK(size > 0 && size < sizeof bytes);
  fclose(file);

  CHECK_FAILS(PYQUANT_INVALID_ARGUMENT, "path", pyquant_program_load(NULL, &program));
  CHECK_FAILS(PYQUANT_INVALID_ARGUMENT, "program", pyquant_program_load(path, NULL));
  CHECK_FAILS(PYQUANT_IO_ERROR, "/missing", pyquant_program_load("/missing.pyq", &program));
  CHECK_FAILS(PYQUANT_IO_ERROR, "regular file", pyquant_program_load("/", &program));
  CHECK_FAILS(PYQUANT_INVALID_ARGUMENT, "bytes", pyquant_program_from_bytes(NULL, 1, &program));
  CHECK_FAILS(PYQUANT_INVALID_PROGRAM, "", pyquant_program_from_bytes(NULL, 0, &program));
  CHECK_FAILS(PYQUANT_INVALID_PROGRAM, "", pyquant_program_from_bytes(bytes, size / 2, &program));
  CHECK(program == NULL);
  CHECK(pyquant_program_from_bytes(bytes, size, &program) == PYQUANT_OK);
  memset(bytes, 0xFF, size); /* the program has its own copy */
  test_description(program);
  pyquant_program_free(program);
  program = NULL;
  CHECK_FAILS(PYQUANT_INVALID_PROGRAM, "", pyquant_program_from_bytes(bytes, size, &program));
}

static void test_no_handles(void) {
  CHECK(strcmp(pyquant_program_name(NULL), "") == 0);
  CHECK(pyquant_program_input_count(NULL) == 0 && pyquant_program_output_count(NULL) == 0);
  pyquant_program_free(NULL);
  pyquant_session_free(NULL);
}

int main(int argc, char** argv) {
  pyquant_program* program = NULL;
  pyquant_session* session = NULL;
  pyquant_session* with_options = NULL;
  const pyquant_session_options options = {sizeof options, 2, "reference"};
  CHECK(argc == 2);
  CHECK(strcmp(pyquant_version(), EXPECTED_VERSION) == 0);
  CHECK(strstr(pyquant_cpu_features(), "scalar") != NULL);
  CHECK(strcmp(pyquant_last_error_message(), "") == 0);

  CHECK(pyquant_program_load(argv[1], &program) == PYQUANT_OK);
  test_description(program);
  test_wrong_sessions(program);
  CHECK(pyquant_session_create(program, NULL, &session) == PYQUANT_OK);
  CHECK(pyquant_session_create(program, &options, &with_options) == PYQUANT_OK);
  pyquant_program_free(program); /* the sessions keep what they need */
  run_and_check(session, 1, 2);
  run_and_check(session, 3, 2);
  run_and_check(with_options, 2, 3);
  test_wrong_runs(session);
  pyquant_session_free(session);
  pyquant_session_free(with_options);
  test_wrong_programs(argv[1]);
  test_no_handles();
  puts("c_api: passed");
  return 0;
}
