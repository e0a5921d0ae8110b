// The end of a tile of accumulators: scaled, rounded, packed and stored. Everything here has
// internal linkage; see rounding.h in avx2.
#pragma once

#include <immintrin.h>

#include <utility>

#include "kernels/avx512_vnni/kernels.h"

#define PYQUANT_INLINE inline __attribute__((always_inline))

namespace pyquant::avx512_vnni {
namespace {

// 16 int32 lanes each; packed to bytes in the order a, b, c, d within each quarter.
struct Quad {
  __m512i a, b, c, d;
};

// Whether the saturation of the packs is all the clamping that a range needs.
PYQUANT_INLINE bool fills_bytes(const OutputRange& range) {
  return range.zero_point == 0 && range.low == 0 && range.high == 255;
}

PYQUANT_INLINE __m512i pack(const Quad& values) {
  return _mm512_packus_epi16(_mm512_packs_epi32(values.a, values.b),
                             _mm512_packs_epi32(values.c, values.d));
}

PYQUANT_INLINE __m512i pack(const Quad& values, __m512i zero_point, __m512i low, __m512i high) {
  const __m512i first = _mm512_adds_epi16(_mm512_packs_epi32(values.a, values.b), zero_point);
  const __m512i second = _mm512_adds_epi16(_mm512_packs_epi32(values.c, values.d), zero_point);
  return _mm512_min_epu8(_mm512_max_epu8(_mm512_packus_epi16(first, second), low), high);
}

// 16 floats each, as in Quad.
struct Scaled {
  __m512 a, b, c, d;
};

PYQUANT_INLINE Quad round(const Scaled& values) {
  return {_mm512_cvtps_epi32(values.a), _mm512_cvtps_epi32(values.b), _mm512_cvtps_epi32(values.c),
          _mm512_cvtps_epi32(values.d)};
}

// ResidualAdd on values that are scaled but not rounded yet. Bytes become floats without
// conversions: the last bits of the mantissa of 2^23 + n are n.
struct ResidualAdder {
  __m512 own_low, own_high, other_zero_point;
  __m512 own_multiplier, other_multiplier;
  __m512i places[4];  // of the bytes of a, b, c and d in each quarter
  __m512i zero_point, low, high;
  std::ptrdiff_t distance;
  bool plain;  // as in Packer

  PYQUANT_INLINE explicit ResidualAdder(const OutputStage& output)
      : own_low(to_float(output.range.low - output.range.zero_point)),
        own_high(to_float(output.range.high - output.range.zero_point)),
        other_zero_point(to_float(kByte + output.add.other.zero_point)),
        own_multiplier(_mm512_set1_ps(output.add.own.multiplier)),
        other_multiplier(_mm512_set1_ps(output.add.other.multiplier)),
        zero_point(_mm512_set1_epi16(static_cast<short>(output.add.range.zero_point))),
        low(_mm512_set1_epi8(static_cast<char>(output.add.range.low))),
        high(_mm512_set1_epi8(static_cast<char>(output.add.range.high))),
        distance(output.add.distance),
        plain(fills_bytes(output.add.range)) {
    for (int i = 0; i < 4; ++i) {
      places[i] = _mm512_set4_epi32(4 * i + 3, 4 * i + 2, 4 * i + 1, 4 * i);
    }
  }

  PYQUANT_INLINE __m512i sum(const Scaled& own, __m512i other) const {
    const Quad sums = round({sum(own.a, other, places[0]), sum(own.b, other, places[1]),
                             sum(own.c, other, places[2]), sum(own.d, other, places[3])});
    return plain ? pack(sums) : pack(sums, zero_point, low, high);
  }

 private:
  static constexpr int kByte = 1 << 23;

  PYQUANT_INLINE static __m512 to_float(int value) {
    return _mm512_set1_ps(static_cast<float>(value));
  }

  PYQUANT_INLINE __m512 sum(__m512 own, __m512i other_bytes, __m512i place) const {
    // Clamped to integers first, the same is left as by clamping what is rounded.
    const __m512 clamped = _mm512_min_ps(_mm512_max_ps(own, own_low), own_high);
    const __m512 rounded =
        _mm512_roundscale_ps(clamped, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512i exponent = _mm512_castps_si512(to_float(kByte));
    const __m512 other = _mm512_castsi512_ps(
        _mm512_mask_shuffle_epi8(exponent, 0x1111111111111111, other_bytes, place));
    return _mm512_add_ps(_mm512_mul_ps(rounded, own_multiplier),
                         _mm512_mul_ps(_mm512_sub_ps(other, other_zero_point), other_multiplier));
  }
};

// 256 bytes looked up with VBMI. As inline assembly because this folder is compiled for CPUs
// without it, too; those are not asked for tables.
struct Table {
  __m512i parts[4];

  PYQUANT_INLINE explicit Table(const std::uint8_t* values)
      : parts{_mm512_loadu_si512(values), _mm512_loadu_si512(values + 64),
              _mm512_loadu_si512(values + 128), _mm512_loadu_si512(values + 192)} {}

  PYQUANT_INLINE __m512i operator[](__m512i indices) const {
    __m512i low = indices;
    __m512i high = indices;
    asm("vpermi2b %2, %1, %0" : "+v"(low) : "v"(parts[0]), "v"(parts[1]));
    asm("vpermi2b %2, %1, %0" : "+v"(high) : "v"(parts[2]), "v"(parts[3]));
    return _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(indices), high);
  }
};

using PostOp = OutputStage::PostOp;

// Pixels of kVectors vectors that fill 64 bytes.
template <int kVectors>
constexpr int kPixelsInStore = kVectors >= 3 ? 1 : 4 / kVectors;

// What a Packer needs for its post-op; nothing for most layers.
template <PostOp kPostOp>
struct PostOpConstants {
  PYQUANT_INLINE explicit PostOpConstants(const OutputStage& /*output*/) {}
};
template <>
struct PostOpConstants<PostOp::kTable> {
  Table table;
  PYQUANT_INLINE explicit PostOpConstants(const OutputStage& output) : table(output.table) {}
};
template <>
struct PostOpConstants<PostOp::kAdd> {
  ResidualAdder adder;
  PYQUANT_INLINE explicit PostOpConstants(const OutputStage& output) : adder(output) {}
};

// Calls function.operator()<post-op of the layer>().
template <typename Function>
PYQUANT_INLINE void with_post_op(const OutputStage& output, Function function) {
  switch (output.post_op) {
    case PostOp::kNone:
      return function.template operator()<PostOp::kNone>();
    case PostOp::kTable:
      return function.template operator()<PostOp::kTable>();
    case PostOp::kAdd:
      return function.template operator()<PostOp::kAdd>();
  }
}

// What accumulators are multiplied by; see OutputStage::float_sums.
struct ScalesInMemory {
  const float *multipliers, *shifts;
  PYQUANT_INLINE bool float_sums() const { return shifts != nullptr; }
  PYQUANT_INLINE __m512 multiplier(int vector) const {
    return _mm512_load_ps(multipliers + 16 * vector);
  }
  PYQUANT_INLINE __m512 shift(int vector) const { return _mm512_load_ps(shifts + 16 * vector); }
};

// Calls function.operator()<0>() … <kCount - 1>(). GCC unrolls a loop too late to keep the elements
// of an array in registers.
template <int kCount, typename Function>
PYQUANT_INLINE void unrolled(Function function) {
  [&]<int... kIndices>(std::integer_sequence<int, kIndices...>) __attribute__((always_inline)) {
    (function.template operator()<kIndices>(), ...);
  }(std::make_integer_sequence<int, kCount>());
}

// The same in registers, and the offsets.
template <int kVectors>
struct ScalesInRegisters {
  __m512i offsets[kVectors];
  __m512 multipliers[kVectors], shifts[kVectors];
  bool floats;

  PYQUANT_INLINE ScalesInRegisters(const std::int32_t* block_offsets,
                                   const float* block_multipliers, const float* block_shifts)
      : floats(block_shifts != nullptr) {
    unrolled<kVectors>([&]<int i>() __attribute__((always_inline)) {
      offsets[i] = _mm512_load_si512(block_offsets + 16 * i);
      multipliers[i] = _mm512_load_ps(block_multipliers + 16 * i);
      shifts[i] = floats ? _mm512_load_ps(block_shifts + 16 * i) : _mm512_setzero_ps();
    });
  }

  PYQUANT_INLINE bool float_sums() const { return floats; }
  PYQUANT_INLINE __m512 multiplier(int vector) const { return multipliers[vector]; }
  PYQUANT_INLINE __m512 shift(int vector) const { return shifts[vector]; }
};

// shift: for float_sums only.
template <bool kFloatSums>
PYQUANT_INLINE __m512 scale(__m512i accumulator, __m512 multiplier, __m512 shift) {
  return kFloatSums ? _mm512_fmadd_ps(_mm512_castsi512_ps(accumulator), multiplier, shift)
                    : _mm512_mul_ps(_mm512_cvtepi32_ps(accumulator), multiplier);
}

// Stores pixels of kVectors vectors of accumulators as uint8. Sums that fit int32 after scaling
// saturate in each of the packs, so that only the given bounds are left to clamp to.
template <int kVectors, PostOp kPostOp>
struct Packer : PostOpConstants<kPostOp> {
  __m512i zero_point, low, high;
  __mmask64 channels;
  bool plain;  // the packs' saturation is enough

  PYQUANT_INLINE Packer(const OutputStage& output, std::size_t channel_count)
      : PostOpConstants<kPostOp>(output),
        zero_point(_mm512_set1_epi16(static_cast<short>(output.range.zero_point))),
        low(_mm512_set1_epi8(static_cast<char>(output.range.low))),
        high(_mm512_set1_epi8(static_cast<char>(output.range.high))),
        plain(fills_bytes(output.range)) {
    set_channels(channel_count);
  }

  PYQUANT_INLINE void set_channels(std::size_t count) { channels = ~__mmask64{0} >> (64 - count); }

  // Whether pixels lie one after the other.
  PYQUANT_INLINE bool is_dense(std::size_t stride) const {
    constexpr std::size_t kChannels = 16 * kVectors;
    return stride == kChannels && channels == ~__mmask64{0} >> (64 - kChannels);
  }

  template <bool kFloatSums, typename Scales>
  static PYQUANT_INLINE __m512 scale(__m512i accumulator, const Scales& scales, int vector) {
    const __m512 multiplier = scales.multiplier(vector);
    return pyquant::avx512_vnni::scale<kFloatSums>(accumulator, multiplier,
                                                   kFloatSums ? scales.shift(vector) : multiplier);
  }

  // Accumulators of kPixelsInStore pixels, scaled.
  template <bool kFloatSums, typename Scales>
  static PYQUANT_INLINE Scaled scale(const __m512i* acc, const Scales& scales) {
    return {scale<kFloatSums>(acc[0], scales, 0), scale<kFloatSums>(acc[1], scales, 1 % kVectors),
            scale<kFloatSums>(acc[2], scales, 2 % kVectors),
            kVectors == 3 ? _mm512_setzero_ps()
                          : scale<kFloatSums>(acc[kVectors == 3 ? 0 : 3], scales, 3 % kVectors)};
  }
  template <typename Scales>
  static PYQUANT_INLINE Scaled scale(const __m512i* acc, const Scales& scales) {
    return scales.float_sums() ? scale<true>(acc, scales) : scale<false>(acc, scales);
  }

  // load_other(distance) gives the other operands in the order of the bytes packed.
  template <typename LoadOther>
  PYQUANT_INLINE __m512i finish(const Scaled& values, LoadOther load_other) const {
    if constexpr (kPostOp == PostOp::kAdd) {
      return this->adder.sum(values, load_other(this->adder.distance));
    } else {
      const Quad rounded = round(values);
      const __m512i bytes = plain ? pack(rounded) : pack(rounded, zero_point, low, high);
      if constexpr (kPostOp == PostOp::kTable) {
        return this->table[bytes];
      } else {
        return bytes;
      }
    }
  }

  // acc: kPixelsInStore times kVectors accumulators; the first `count` pixels are stored.
  template <typename Scales>
  PYQUANT_INLINE void store(const __m512i* acc, const Scales& scales, int count, std::uint8_t* y,
                            std::size_t stride) const {
    store(scale(acc, scales), count, y, stride);
  }
  PYQUANT_INLINE void store(const Scaled& values, int count, std::uint8_t* y,
                            std::size_t stride) const {
    if constexpr (kVectors == 4) {
      const auto load_other = [&](std::ptrdiff_t distance) {
        return _mm512_maskz_loadu_epi8(channels, y + distance);
      };
      _mm512_mask_storeu_epi8(y, channels, finish(values, load_other));
    } else if constexpr (kVectors == 3) {
      const __m512i together =
          _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 15, 15, 15);
      const __m512i apart = _mm512_setr_epi32(0, 1, 2, 15, 3, 4, 5, 15, 6, 7, 8, 15, 9, 10, 11, 15);
      const auto load_other = [&](std::ptrdiff_t distance) {
        return _mm512_permutexvar_epi32(apart, _mm512_maskz_loadu_epi8(channels, y + distance));
      };
      const __m512i packed = finish(values, load_other);
      _mm512_mask_storeu_epi8(y, channels, _mm512_permutexvar_epi32(together, packed));
    } else if constexpr (kVectors == 2) {
      const auto mask = static_cast<__mmask32>(channels);
      const bool dense = count == 2 && is_dense(stride);
      const auto load_other = [&](std::ptrdiff_t distance) {
        const std::uint8_t* other = y + distance;
        const auto pixel = [&](int i) {
          return i < count
                     ? _mm256_maskz_loadu_epi8(mask, other + static_cast<std::size_t>(i) * stride)
                     : _mm256_setzero_si256();
        };
        const __m512i both =
            dense ? _mm512_loadu_si512(other)
                  : _mm512_inserti64x4(_mm512_castsi256_si512(pixel(0)), pixel(1), 1);
        return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), both);
      };
      const __m512i packed = finish(values, load_other);
      const __m512i sorted =
          _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), packed);
      if (dense) {
        _mm512_storeu_si512(y, sorted);
        return;
      }
      _mm256_mask_storeu_epi8(y, mask, _mm512_castsi512_si256(sorted));
      if (count > 1) {
        _mm256_mask_storeu_epi8(y + stride, mask, _mm512_extracti64x4_epi64(sorted, 1));
      }
    } else {
      const auto mask = static_cast<__mmask16>(channels);
      const bool dense = count == 4 && is_dense(stride);
      const __m512i transposed =
          _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
      const auto load_other = [&](std::ptrdiff_t distance) {
        const std::uint8_t* other = y + distance;
        const auto pixel = [&](int i) {
          return i < count
                     ? _mm_maskz_loadu_epi8(mask, other + static_cast<std::size_t>(i) * stride)
                     : _mm_setzero_si128();
        };
        __m512i all;
        if (dense) {
          all = _mm512_loadu_si512(other);
        } else {
          all = _mm512_castsi128_si512(pixel(0));
          all = _mm512_inserti32x4(all, pixel(1), 1);
          all = _mm512_inserti32x4(all, pixel(2), 2);
          all = _mm512_inserti32x4(all, pixel(3), 3);
        }
        return _mm512_permutexvar_epi32(transposed, all);
      };
      const __m512i packed = finish(values, load_other);
      const __m512i sorted = _mm512_permutexvar_epi32(transposed, packed);
      if (dense) {
        _mm512_storeu_si512(y, sorted);
        return;
      }
      _mm_mask_storeu_epi8(y, mask, _mm512_castsi512_si128(sorted));
      if (count > 1) {
        _mm_mask_storeu_epi8(y + stride, mask, _mm512_extracti32x4_epi32(sorted, 1));
      }
      if (count > 2) {
        _mm_mask_storeu_epi8(y + 2 * stride, mask, _mm512_extracti32x4_epi32(sorted, 2));
      }
      if (count > 3) {
        _mm_mask_storeu_epi8(y + 3 * stride, mask, _mm512_extracti32x4_epi32(sorted, 3));
      }
    }
  }
};

// acc += sums of four products of unsigned and signed bytes. As inline assembly because GCC 12
// moves the accumulators of large tiles to memory and back around the intrinsic.
PYQUANT_INLINE void multiply_add(__m512i& acc, __m512i unsigned_bytes, __m512i signed_bytes) {
  asm volatile("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(unsigned_bytes), "v"(signed_bytes));
}

// The same with signed bytes at a constant distance from `address`.
template <int kDistance>
PYQUANT_INLINE void multiply_add(__m512i& acc, __m512i unsigned_bytes, const std::int8_t* address) {
  asm volatile("vpdpbusd %c3(%2), %1, %0"
               : "+v"(acc)
               : "v"(unsigned_bytes), "r"(address), "i"(kDistance));
}

template <int kDistance>
PYQUANT_INLINE __m512i load(const void* address) {
  __m512i value;
  asm volatile("vmovdqu64 %c2(%1), %0" : "=v"(value) : "r"(address), "i"(kDistance));
  return value;
}

}  // namespace
}  // namespace pyquant::avx512_vnni
