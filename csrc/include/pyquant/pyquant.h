/* The C interface, for servers in C, Go, Rust, Java and others: plain C99, and no C++ exception
 * comes out of it.
 *
 *   pyquant_program* program = NULL;
 *   pyquant_session* session = NULL;
 *   if (pyquant_program_load("model.pyq", &program) != PYQUANT_OK ||
 *       pyquant_session_create(program, NULL, &session) != PYQUANT_OK ||
 *       pyquant_session_run(session, &image, 1, &scores, 1) != PYQUANT_OK) {
 *     fprintf(stderr, "%s\n", pyquant_last_error_message());
 *   }
 *   pyquant_session_free(session);
 *   pyquant_program_free(program);
 *
 * Errors. A function that can fail returns a pyquant_status. Where it is not PYQUANT_OK, no output
 * argument was written, and pyquant_last_error_message() of the same thread says why. NULL where a
 * pointer is needed gives PYQUANT_INVALID_ARGUMENT. What cannot be checked is the caller's duty:
 * pointers are valid and large enough for what they are said to hold, and handles not freed yet.
 *
 * Ownership. What a function makes belongs to the caller, who frees it once with the function of
 * that name. Every other pointer is borrowed, for the time that is said where it appears: pyquant
 * frees nothing of the caller's, and the caller nothing of pyquant's.
 *
 * Threads. A program is immutable: any threads may use it at the same time. A session is used by
 * one thread at a time, not always by the same. Many sessions over one program may run in parallel.
 * Functions without a handle may be called by any thread at any time.
 *
 * Binary compatibility. Within one version of the shared library (the number in its file name)
 * functions, numbers of constants and fields only get added. Structures that may grow begin with
 * their own size, so that old callers keep working; pyquant_tensor and pyquant_shape do not grow.
 * Enumerations travel as int32_t. A caller may meet status and dtype numbers that are newer than
 * its header, and takes them for errors.
 */
#ifndef PYQUANT_PYQUANT_H
#define PYQUANT_PYQUANT_H

#include <stddef.h>
#include <stdint.h>

#include "pyquant/export.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pyquant_program pyquant_program;
typedef struct pyquant_session pyquant_session;

typedef int32_t pyquant_status;
enum {
  PYQUANT_OK = 0,
  PYQUANT_INVALID_ARGUMENT = 1, /* NULL, an index or a size out of range, an unknown dtype */
  PYQUANT_INVALID_PROGRAM = 2,  /* the file or bytes are truncated, foreign, newer, inconsistent */
  PYQUANT_INVALID_INPUT = 3,    /* tensors have a wrong number, shape or dtype, or are too small */
  PYQUANT_UNSUPPORTED = 4,      /* no such engine or CPU feature here */
  PYQUANT_IO_ERROR = 5,         /* the file could not be opened or read */
  PYQUANT_OUT_OF_MEMORY = 6,
  PYQUANT_INTERNAL_ERROR = 7 /* a mistake in pyquant */
};

typedef int32_t pyquant_dtype;
enum { PYQUANT_UINT8 = 0, PYQUANT_INT8 = 1, PYQUANT_INT32 = 2, PYQUANT_FLOAT32 = 3 };

enum { PYQUANT_MAX_RANK = 6 };

/* Outermost dimension first. What lies behind `rank` is not read. */
typedef struct pyquant_shape {
  int32_t rank; /* 1 to PYQUANT_MAX_RANK */
  int64_t dims[PYQUANT_MAX_RANK];
} pyquant_shape;

/* A dense, row-major tensor in the caller's memory. float32 of rank 4 is NCHW, uint8 NHWC. */
typedef struct pyquant_tensor {
  void* data;   /* aligned to its elements; of an input only read */
  size_t bytes; /* that `data` has room for: at least those of the shape */
  pyquant_dtype dtype;
  pyquant_shape shape;
} pyquant_tensor;

/* ---- The library ---- */

/* The release of the library that is linked, as "1.2.3". Lives for ever. */
PYQUANT_API const char* pyquant_version(void);

/* What this CPU has of the instruction sets that this build has kernels for, best first, as
 * "avx512_vnni avx2 scalar". Lives for ever. NULL when there is no memory left. */
PYQUANT_API const char* pyquant_cpu_features(void);

/* Why the last function that failed on this thread did, in UTF-8; "" before the first. Borrowed,
 * until the next function fails on this thread, or the thread ends. */
PYQUANT_API const char* pyquant_last_error_message(void);

/* ---- Programs: immutable, shared by any threads ---- */

/* Maps a model.pyq into memory and verifies all of it. The file must not be changed while the
 * program or a session over it lives; removing it, or renaming another one over it, is fine.
 * path: UTF-8, borrowed for the call. PYQUANT_IO_ERROR, PYQUANT_INVALID_PROGRAM. */
PYQUANT_API pyquant_status pyquant_program_load(const char* path, pyquant_program** program);

/* The same from the bytes of such a file, which are copied. PYQUANT_INVALID_PROGRAM. */
PYQUANT_API pyquant_status pyquant_program_from_bytes(const void* bytes, size_t size,
                                                      pyquant_program** program);

/* Sessions over the program stay good. NULL is fine. No other thread may use the handle any more.
 */
PYQUANT_API void pyquant_program_free(pyquant_program* program);

/* Borrowed, until pyquant_program_free. "" for NULL. */
PYQUANT_API const char* pyquant_program_name(const pyquant_program* program);

/* 0 for NULL. */
PYQUANT_API size_t pyquant_program_input_count(const pyquant_program* program);
PYQUANT_API size_t pyquant_program_output_count(const pyquant_program* program);

/* An input or output of a program. */
typedef struct pyquant_tensor_info {
  size_t struct_size; /* sizeof(pyquant_tensor_info), set by the caller */
  const char* name;   /* borrowed, until pyquant_program_free */
  pyquant_dtype dtype;
  pyquant_shape shape; /* of the example input. The batch size (dimension 0) and, where the
                          operators allow it, height and width may differ from run to run: ask
                          pyquant_session_output_shapes. */
  float scale;         /* of a uint8 tensor: x = (q - zero_point) * scale */
  int32_t zero_point;
} pyquant_tensor_info;

/* Describes an input or output. PYQUANT_INVALID_ARGUMENT for an index beyond the last or a
 * struct_size that is too small. */
PYQUANT_API pyquant_status pyquant_program_input(const pyquant_program* program, size_t index,
                                                 pyquant_tensor_info* info);
PYQUANT_API pyquant_status pyquant_program_output(const pyquant_program* program, size_t index,
                                                  pyquant_tensor_info* info);

/* ---- Sessions: used by one thread at a time ---- */

typedef struct pyquant_session_options {
  size_t struct_size; /* sizeof(pyquant_session_options), set by the caller */
  int32_t threads;    /* inside one run, the caller included: 1 to 1024 */
  const char* engine; /* borrowed for the call; NULL or "auto": the fastest for each operator */
} pyquant_session_options;

/* Makes a session. The first one over a program packs its weights; the others share them. The
 * session keeps what it needs of the program alive. options: NULL for one thread and "auto".
 * PYQUANT_UNSUPPORTED, PYQUANT_INVALID_INPUT. */
PYQUANT_API pyquant_status pyquant_session_create(const pyquant_program* program,
                                                  const pyquant_session_options* options,
                                                  pyquant_session** session);

/* NULL is fine. */
PYQUANT_API void pyquant_session_free(pyquant_session* session);

/* The output shapes for these input shapes, in the program's order; the counts are those of the
 * program. The first time for a shape plans and allocates. PYQUANT_INVALID_INPUT. */
PYQUANT_API pyquant_status pyquant_session_output_shapes(pyquant_session* session,
                                                         const pyquant_shape* inputs,
                                                         size_t input_count, pyquant_shape* outputs,
                                                         size_t output_count);

/* Runs. Tensors in the program's order, with the dtypes of pyquant_program_input and _output and
 * the shapes of pyquant_session_output_shapes; they are borrowed for the call, and their memory
 * must not overlap. The first run of a shape plans and allocates, later runs do not.
 * PYQUANT_INVALID_INPUT: nothing was computed. The session stays good after every error. */
PYQUANT_API pyquant_status pyquant_session_run(pyquant_session* session,
                                               const pyquant_tensor* inputs, size_t input_count,
                                               const pyquant_tensor* outputs, size_t output_count);

#ifdef __cplusplus
}
#endif

#endif /* PYQUANT_PYQUANT_H */
