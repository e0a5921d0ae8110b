#include "kernels/neon/depthwise_columns.h"
#include "kernels/neon_dotprod/kernels.h"
#include "kernels/neon_dotprod/multiply.h"

namespace pyquant::neon_dotprod {
namespace {

// Four rows, as they are.
struct InterleaveBytes {
  static constexpr std::size_t kRows = 4;

  static PYQUANT_INLINE void store(const uint8x16_t* pixels, std::uint8_t* column) {
    // Named, because Clang's vst4q_u8 is a macro, which braces split into arguments.
    const uint8x16x4_t rows = {pixels[0], pixels[1], pixels[2], pixels[3]};
    vst4q_u8(column, rows);
  }
};

}  // namespace

void interleave(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                std::size_t pixel_stride, std::size_t strips, std::size_t strip_stride,
                std::size_t count, std::uint8_t* columns) {
  neon::interleave_columns<InterleaveBytes>(rows, groups, channels, pixel_stride, strips,
                                            strip_stride, count, columns);
}

void convolve_depthwise(const DepthwiseBlock& block, const std::uint8_t* columns,
                        std::size_t pixels, std::size_t row_count, void* y) {
  neon::convolve_columns<MultiplyBytes>(block, columns, pixels, row_count, y);
}

}  // namespace pyquant::neon_dotprod
