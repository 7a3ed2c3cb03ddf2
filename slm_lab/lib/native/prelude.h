// What every generated file begins with: elementary functions that the compiler vectorizes, written without branches.
typedef unsigned char u8;
typedef long long i64;

static inline float as_float(int i) { float f; __builtin_memcpy(&f, &i, 4); return f; }
static inline int as_int(float f) { int i; __builtin_memcpy(&i, &f, 4); return i; }

// exp(x) = 2^n exp(r), |r| <= ln(2)/2, exp(r) - 1 by its Taylor polynomial
static inline float small_expm1(float r) {
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720; p = p * r + 1.0f / 120; p = p * r + 1.0f / 24; p = p * r + 1.0f / 6; p = p * r + 0.5f;
    return p * (r * r) + r;
}
static inline float reduced(float x, float n) { return (x - n * 0.693359375f) + n * 2.12194440e-4f; }
static inline float f_exp(float x) {
    x = x > 89.0f ? 89.0f : x; x = x < -104.0f ? -104.0f : x;
    float n = __builtin_rintf(x * 1.44269504f);
    int k = (int)n, h = k >> 1;
    // in two halves: 2^n itself may be out of range where the result is not
    return (small_expm1(reduced(x, n)) + 1.0f) * as_float((h + 127) << 23) * as_float((k - h + 127) << 23);
}
static inline float f_tanh(float x) {
    // t = expm1(-2|x|), tanh|x| = -t / (2 + t)
    float y = __builtin_fabsf(x); y = y > 10.0f ? 10.0f : y;
    float z = -2.0f * y, n = __builtin_rintf(z * 1.44269504f), two_n = as_float(((int)n + 127) << 23);
    float t = two_n * small_expm1(reduced(z, n)) + (two_n - 1.0f);
    return __builtin_copysignf(-t / (2.0f + t), x);
}
static inline float f_log(float x) {
    bool tiny = x < 1.17549435e-38f;
    float y = tiny ? x * 8388608.0f : x;
    int i = as_int(y), k = (i - 0x3f3504f3) >> 23;
    float m = as_float(i - (k << 23)), e = (float)k - (tiny ? 23.0f : 0.0f);
    // m is near 1: log m = 2 atanh(s)
    float s = (m - 1.0f) / (m + 1.0f), q = s * s;
    float p = 1.0f / 9; p = p * q + 1.0f / 7; p = p * q + 0.2f; p = p * q + 1.0f / 3;
    float r = e * 0.693359375f + (2.0f * s + (2.0f * s * q * p - e * 2.12194440e-4f));
    r = x == __builtin_inff() ? x : r; r = x == 0.0f ? -__builtin_inff() : r;
    return x < 0.0f || x != x ? __builtin_nanf("") : r;
}
static inline float f_log1p(float x) {
    float u = 1.0f + x, d = u == 0.0f ? 1.0f : u;
    float r = f_log(u) + (x - (u - 1.0f)) / d;
    return u == __builtin_inff() ? u : r;
}
static inline float f_expm1(float x) { return __builtin_fabsf(x) < 0.34f ? small_expm1(x) : f_exp(x) - 1.0f; }
static inline float f_sigmoid(float x) { return 1.0f / (1.0f + f_exp(-x)); }
static inline double d_exp(double x) { return __builtin_exp(x); }
static inline double d_log(double x) { return __builtin_log(x); }
static inline double d_tanh(double x) { return __builtin_tanh(x); }
static inline double d_log1p(double x) { return __builtin_log1p(x); }
static inline double d_expm1(double x) { return __builtin_expm1(x); }
static inline double d_sigmoid(double x) { return 1.0 / (1.0 + __builtin_exp(-x)); }

extern "C" void product(i64 M, i64 N, i64 K, const float* a, i64 ar, i64 ak, const float* b, i64 bk, const float* init, i64 ir, float* c, i64 cr, i64 cn);
extern "C" void pack(i64 K, i64 N, i64 P, const float* b, i64 bk, i64 bn, float* to);
