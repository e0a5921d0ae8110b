#include "kernels/scalar/kernels.h"

namespace pyquant::scalar {

const KernelTable kTable = {
    "scalar",   quantize_planes, dequantize_planes, add,      add_float, max_rows, accumulate,
    requantize, lookup,          copy_rows,         zip_rows, transpose, blend,
};

}  // namespace pyquant::scalar
