// What lets one header compile with nvcc, NVRTC and g++: integer types, and arithmetic that rounds alike everywhere.
//
// A compiler may join a product and a sum into one rounding (FMA) or keep two. Where a result is compared between
// machines, neither is left to it: fused() is always one rounding, plus() and times() are always two. The host build
// is compiled with -ffp-contract=off, the device has intrinsics for both.
//
// For all kernels: arrays are row-major and begin at addresses that are multiples of 16; null stands for what is left out.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef long long s64;

#ifdef __CUDACC__

#define FUNCTION static __device__ __forceinline__
#define FUNCTION_IN_CLASS __device__ __forceinline__
#define UNROLLED _Pragma("unroll")
#define DYNAMIC_SHARED(TYPE, NAME) extern __shared__ TYPE NAME[]

FUNCTION float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
FUNCTION float plus(float a, float b) { return __fadd_rn(a, b); }
FUNCTION float times(float a, float b) { return __fmul_rn(a, b); }
FUNCTION float over(float a, float b) { return __fdiv_rn(a, b); }
FUNCTION double fused(double a, double b, double c) { return __fma_rn(a, b, c); }
FUNCTION double plus(double a, double b) { return __dadd_rn(a, b); }
FUNCTION double times(double a, double b) { return __dmul_rn(a, b); }
FUNCTION double over(double a, double b) { return __ddiv_rn(a, b); }
FUNCTION float root(float a) { return __fsqrt_rn(a); }
FUNCTION double root(double a) { return __dsqrt_rn(a); }
FUNCTION int nearest(float a) { return __float2int_rn(a); }     // ties to even
FUNCTION s64 nearest(double a) { return __double2ll_rn(a); }    // likewise
FUNCTION int below(float a) { return __float2int_rd(a); }
FUNCTION u64 bits_of(double a) { return (u64)__double_as_longlong(a); }
FUNCTION double double_of(u64 bits) { return __longlong_as_double((s64)bits); }
FUNCTION float float_of(u32 bits) { return __uint_as_float(bits); }
FUNCTION u32 bits_of(float a) { return __float_as_uint(a); }
FUNCTION float from_half(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

#else

#define FUNCTION static inline
#define FUNCTION_IN_CLASS inline
#define UNROLLED _Pragma("GCC unroll 16")

template <class To, class From>
FUNCTION To same_bits(From from) {
    To to;
    static_assert(sizeof to == sizeof from, "a change of type keeps the size");
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}

FUNCTION float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FUNCTION float plus(float a, float b) { return a + b; }
FUNCTION float times(float a, float b) { return a * b; }
FUNCTION float over(float a, float b) { return a / b; }
FUNCTION double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
FUNCTION double plus(double a, double b) { return a + b; }
FUNCTION double times(double a, double b) { return a * b; }
FUNCTION double over(double a, double b) { return a / b; }
FUNCTION float root(float a) { return __builtin_sqrtf(a); }
FUNCTION double root(double a) { return __builtin_sqrt(a); }
FUNCTION int nearest(float a) { return (int)__builtin_rintf(a); }
FUNCTION s64 nearest(double a) { return (s64)__builtin_rint(a); }
FUNCTION int below(float a) { return (int)__builtin_floorf(a); }
FUNCTION u64 bits_of(double a) { return same_bits<u64>(a); }
FUNCTION double double_of(u64 bits) { return same_bits<double>(bits); }
FUNCTION float float_of(u32 bits) { return same_bits<float>(bits); }
FUNCTION u32 bits_of(float a) { return same_bits<u32>(a); }

// IEEE 754 binary16 to binary32; every half has an exact float. g++ knows _Float16 in C++ from version 13 only.
FUNCTION float from_half(u16 bits) {
    const u32 sign = (u32)(bits & 0x8000u) << 16, exponent = (bits >> 10) & 31u, fraction = bits & 0x3FFu;
    if (exponent == 31u) return float_of(sign | 0x7F800000u | fraction << 13);
    if (exponent != 0u) return float_of(sign | (exponent + 112u) << 23 | fraction << 13);
    const float small = (float)fraction * 5.9604644775390625e-8f;  // 2^-24
    return float_of(sign | bits_of(small));
}

#endif

FUNCTION int least(int a, int b) { return a < b ? a : b; }
FUNCTION int most(int a, int b) { return a > b ? a : b; }
FUNCTION int within(int value, int low, int high) { return least(most(value, low), high); }
