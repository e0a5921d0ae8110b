#include "kernels/neon/depthwise_columns.h"
#include "kernels/neon/kernels.h"
#include "kernels/neon/multiply.h"

namespace pyquant::neon {
namespace {

// Two rows, widened.
struct InterleaveWords {
  static constexpr std::size_t kRows = 2;

  static PYQUANT_INLINE void store(const uint8x16_t* pixels, std::uint8_t* column) {
    auto* words = reinterpret_cast<std::uint16_t*>(column);
    // Named, because Clang's vst2q_u16 is a macro, which braces split into arguments.
    const uint16x8x2_t low = {vmovl_u8(vget_low_u8(pixels[0])), vmovl_u8(vget_low_u8(pixels[1]))};
    const uint16x8x2_t high = {vmovl_high_u8(pixels[0]), vmovl_high_u8(pixels[1])};
    vst2q_u16(words, low);
    vst2q_u16(words + 16, high);
  }
};

}  // namespace

void interleave(const std::uint8_t* const* rows, std::size_t groups, std::size_t channels,
                std::size_t pixel_stride, std::size_t strips, std::size_t strip_stride,
                std::size_t count, std::uint8_t* columns) {
  interleave_columns<InterleaveWords>(rows, groups, channels, pixel_stride, strips, strip_stride,
                                      count, columns);
}

void convolve_depthwise(const DepthwiseBlock& block, const std::uint8_t* columns,
                        std::size_t pixels, std::size_t row_count, void* y) {
  convolve_columns<MultiplyWords>(block, columns, pixels, row_count, y);
}

}  // namespace pyquant::neon
