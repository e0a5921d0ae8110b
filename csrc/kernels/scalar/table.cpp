#include "kernels/scalar/kernels.h"

namespace pyquant::scalar {

const KernelTable kTable = {
    "scalar", quantize_planes, dequantize_planes, add,    add_float,
    max_rows, accumulate,      requantize,        lookup, mul,
};

}  // namespace pyquant::scalar
