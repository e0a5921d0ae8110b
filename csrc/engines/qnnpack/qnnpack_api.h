// The part of QNNPACK that pyquant calls, as libtorch 2.13 exports it: its own headers are not in
// the torch wheel. No stable ABI; the wheel requires this torch version.
#pragma once

#include <pthreadpool.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

extern "C" {

enum pytorch_qnnp_status {
  pytorch_qnnp_status_success = 0,
  pytorch_qnnp_status_uninitialized = 1,
  pytorch_qnnp_status_invalid_parameter = 2,
  pytorch_qnnp_status_unsupported_parameter = 3,
  pytorch_qnnp_status_unsupported_hardware = 4,
  pytorch_qnnp_status_out_of_memory = 5,
};

struct pytorch_qnnp_operator;
typedef struct pytorch_qnnp_operator* pytorch_qnnp_operator_t;

enum pytorch_qnnp_status pytorch_qnnp_initialize(void);

enum pytorch_qnnp_status pytorch_qnnp_run_operator(pytorch_qnnp_operator_t op,
                                                   pthreadpool_t threadpool);

enum pytorch_qnnp_status pytorch_qnnp_delete_operator(pytorch_qnnp_operator_t op);

// kernel is [groups * group_output_channels, kernel_height, kernel_width, group_input_channels] and
// copied; kernel_zero_points and requantization_scales are borrowed, and read up to
// kReadBeyondChannels elements beyond the last channel.
enum pytorch_qnnp_status pytorch_qnnp_create_convolution2d_nhwc_q8(
    uint32_t input_padding_height, uint32_t input_padding_width, uint32_t kernel_height,
    uint32_t kernel_width, uint32_t subsampling_height, uint32_t subsampling_width,
    uint32_t dilation_height, uint32_t dilation_width, uint32_t groups, size_t group_input_channels,
    size_t group_output_channels, uint8_t input_zero_point, const uint8_t* kernel_zero_points,
    const uint8_t* kernel, const int32_t* bias, uint8_t output_zero_point, uint8_t output_min,
    uint8_t output_max, uint32_t flags, const float* requantization_scales, bool per_channel,
    pytorch_qnnp_operator_t* convolution);

enum pytorch_qnnp_status pytorch_qnnp_setup_convolution2d_nhwc_q8(
    pytorch_qnnp_operator_t convolution, size_t batch_size, size_t input_height, size_t input_width,
    const uint8_t* input, size_t input_stride, uint8_t* output, size_t output_stride,
    pthreadpool_t threadpool);

enum pytorch_qnnp_status pytorch_qnnp_create_add_nc_q8(size_t channels, uint8_t a_zero_point,
                                                       float a_scale, uint8_t b_zero_point,
                                                       float b_scale, uint8_t sum_zero_point,
                                                       float sum_scale, uint8_t sum_min,
                                                       uint8_t sum_max, uint32_t flags,
                                                       pytorch_qnnp_operator_t* add);

enum pytorch_qnnp_status pytorch_qnnp_setup_add_nc_q8(pytorch_qnnp_operator_t add,
                                                      size_t batch_size, const uint8_t* a,
                                                      size_t a_stride, const uint8_t* b,
                                                      size_t b_stride, uint8_t* sum,
                                                      size_t sum_stride);

enum pytorch_qnnp_status pytorch_qnnp_create_max_pooling2d_nhwc_u8(
    uint32_t input_padding_height, uint32_t input_padding_width, uint32_t pooling_height,
    uint32_t pooling_width, uint32_t stride_height, uint32_t stride_width, uint32_t dilation_height,
    uint32_t dilation_width, size_t channels, uint8_t output_min, uint8_t output_max,
    uint32_t flags, pytorch_qnnp_operator_t* max_pooling);

enum pytorch_qnnp_status pytorch_qnnp_setup_max_pooling2d_nhwc_u8(
    pytorch_qnnp_operator_t max_pooling, size_t batch_size, size_t input_height, size_t input_width,
    const uint8_t* input, size_t input_stride, uint8_t* output, size_t output_stride,
    pthreadpool_t threadpool);

enum pytorch_qnnp_status pytorch_qnnp_create_average_pooling2d_nhwc_q8(
    uint32_t input_padding_height, uint32_t input_padding_width, uint32_t pooling_height,
    uint32_t pooling_width, uint32_t stride_height, uint32_t stride_width, size_t channels,
    uint8_t input_zero_point, float input_scale, uint8_t output_zero_point, float output_scale,
    uint8_t output_min, uint8_t output_max, uint32_t flags,
    pytorch_qnnp_operator_t* average_pooling);

enum pytorch_qnnp_status pytorch_qnnp_setup_average_pooling2d_nhwc_q8(
    pytorch_qnnp_operator_t average_pooling, size_t batch_size, size_t input_height,
    size_t input_width, const uint8_t* input, size_t input_stride, uint8_t* output,
    size_t output_stride, pthreadpool_t threadpool);

enum pytorch_qnnp_status pytorch_qnnp_create_global_average_pooling_nwc_q8(
    size_t channels, uint8_t input_zero_point, float input_scale, uint8_t output_zero_point,
    float output_scale, uint8_t output_min, uint8_t output_max, uint32_t flags,
    pytorch_qnnp_operator_t* global_average_pooling);

enum pytorch_qnnp_status pytorch_qnnp_setup_global_average_pooling_nwc_q8(
    pytorch_qnnp_operator_t global_average_pooling, size_t batch_size, size_t width,
    const uint8_t* input, size_t input_stride, uint8_t* output, size_t output_stride);

}  // extern "C"

namespace qnnpack {

// A weight matrix [output_channels, input_channels], packed. The layout of the class is QNNPACK's:
// its constructor is in libtorch.
class PackBMatrix final {
 public:
  PackBMatrix(size_t input_channels, size_t output_channels, const uint8_t* kernel_zero_points,
              const float* requantization_scales, const uint8_t* kernel, const int32_t* bias);
  ~PackBMatrix() { std::free(packed_weights_); }
  PackBMatrix(const PackBMatrix&) = delete;
  PackBMatrix& operator=(const PackBMatrix&) = delete;

  void* getPackedWeights() const { return packed_weights_; }

 private:
  void* packed_weights_ = nullptr;
  size_t input_channels_;
  size_t output_channels_;
};

// Has no state beside its arguments, so that threads may share the packed weights.
pytorch_qnnp_status qnnpackLinear(size_t batch_size, size_t input_channels, size_t output_channels,
                                  uint8_t input_zero_point, const uint8_t* kernel_zero_points,
                                  const float* requantization_scales, uint8_t output_zero_point,
                                  uint8_t output_min, uint8_t output_max, const uint8_t* input,
                                  size_t input_stride, void* packed_weights, uint8_t* output,
                                  size_t output_stride, pthreadpool_t threadpool);

}  // namespace qnnpack

namespace pyquant::qnnpack_engine {

// QNNPACK's kernels load the parameters of a full register of channels.
inline constexpr std::size_t kReadBeyondChannels = 8;

// They load eight input bytes at a time, and where a pixel has fewer, those before it.
inline constexpr std::size_t kReadAtOnce = 8;

}  // namespace pyquant::qnnpack_engine
