#include "kernels/avx2/kernels.h"

namespace pyquant::avx2 {

const KernelTable kTable = {
    "avx2",     quantize_planes, dequantize_planes, add,     add_float, max_rows,      accumulate,
    requantize, lookup,          nullptr,           nullptr, nullptr,   multiply_adds,
};

}  // namespace pyquant::avx2
