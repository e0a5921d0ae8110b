// Which part of what a histogram has seen the grid should cover; the rest saturates.
//
// All take a histogram that is not empty and return a range that holds 0 and goes no further than
// the extremes, or, for symmetric grids, than the larger of both.
#pragma once

#include "observers/histogram.h"
#include "quant/grid.h"

namespace pyquant {

struct ValueRange {
  float low, high;
};

// The range whose grid has the least expected squared error: the sum over all bins of
// count * mean((x - quantized(x))^2), where x is spread evenly over the bin. The criterion is that
// of torchao's HistogramObserver (Caffe2's norm_minimization.cc); its search only ever moves inward
// while the error falls and takes every value to be half a step off at most, also around zero. Here
// the error is exact for the grid as it is rounded, zero point included. The search: symmetric
// thresholds in half octaves, then from the best of them a pattern search over both ends (Hooke and
// Jeeves, "Direct Search Solution of Numerical and Statistical Problems", 1961) down to 1/64
// octave.
ValueRange least_squares_range(const HistogramState& histogram, const Grid& grid);

// The threshold T on |x| at which the distribution of |x|, saturated, loses least information
// (Kullback-Leibler divergence) when it is merged into as many levels as the grid has on one side
// of zero: Migacz, "8-bit Inference with TensorRT", GTC 2017, in the form of NVIDIA's
// pytorch-quantization, calib/histogram.py: levels of equal width, and bin 0, where a ReLU's zeros
// are, counted like bin 1. Where further values saturate to a bin that had none, the merged
// distribution gets 1e-4 there, as in ONNX Runtime. Thresholds are tried 8 bins apart. As in ONNX
// Runtime, the range is
// [-T, T], cut to what was seen.
ValueRange entropy_range(const HistogramState& histogram, const Grid& grid);

// Leaves out 1 - percentile / 100 of all values: of the largest |x| where the grid is symmetric,
// else half of them at either end; ends are rounded outwards to bins. As ONNX Runtime's
// PercentileCalibrater. 0 < percentile <= 100.
ValueRange percentile_range(const HistogramState& histogram, const Grid& grid, double percentile);

}  // namespace pyquant
