// Matrix products in register tiles. Compiled once on a machine and linked to every graph.
typedef long long i64;

#if defined(__AVX512F__)
#define W 16
#elif defined(__AVX__)
#define W 8
#else
#define W 4
#endif
typedef float V __attribute__((vector_size(4 * W)));
typedef float VU __attribute__((vector_size(4 * W), aligned(4), may_alias));

// R rows by C vectors of C = A B, kept in registers; n: columns that are wanted of the last vectors
template <int R, int C>
static inline void tile(i64 K, const float* a, i64 ar, i64 ak, const float* b, i64 bk, const float* init, i64 ir, float* c, i64 cr, i64 cn, i64 n) {
    V acc[R][C];
#pragma GCC unroll 16
    for (int j = 0; j < C; j++) {
        V z = {};
        if (init && !ir) z = *(const VU*)(init + j * W);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) acc[r][j] = ir ? z + init[r] : z;
    }
    for (i64 k = 0; k < K; k++) {
        V bv[C];
#pragma GCC unroll 16
        for (int j = 0; j < C; j++) bv[j] = *(const VU*)(b + k * bk + j * W);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            float s = a[r * ar + k * ak];
#pragma GCC unroll 16
            for (int j = 0; j < C; j++) acc[r][j] += s * bv[j];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
        for (int j = 0; j < C; j++) {
            if (cn == 1 && (j + 1) * W <= n) *(VU*)(c + r * cr + j * W) = acc[r][j];
            else for (int l = 0; l < W && j * W + l < n; l++) c[r * cr + (j * W + l) * cn] = acc[r][j][l];
        }
}
template <int C>
static void rows(i64 M, i64 K, const float* a, i64 ar, i64 ak, const float* b, i64 bk, const float* init, i64 ir, float* c, i64 cr, i64 cn, i64 n) {
    i64 m = 0;
    for (; m + 6 <= M; m += 6) tile<6, C>(K, a + m * ar, ar, ak, b, bk, init + m * ir, ir, c + m * cr, cr, cn, n);
    for (; m + 4 <= M; m += 4) tile<4, C>(K, a + m * ar, ar, ak, b, bk, init + m * ir, ir, c + m * cr, cr, cn, n);
    for (; m < M; m++) tile<1, C>(K, a + m * ar, ar, ak, b, bk, init + m * ir, ir, c + m * cr, cr, cn, n);
}
// C[m, n] = init[n] (ir 0) or init[m] (ir 1) + sum_k A[m, k] B[k, n]; rows of B have unit stride and are filled up to a multiple of W
extern "C" void product(i64 M, i64 N, i64 K, const float* a, i64 ar, i64 ak, const float* b, i64 bk, const float* init, i64 ir, float* c, i64 cr, i64 cn) {
    i64 j = 0;
    for (; j + 3 * W < N; j += 4 * W) rows<4>(M, K, a, ar, ak, b + j, bk, init && !ir ? init + j : init, ir, c + j * cn, cr, cn, N - j);
    for (; j + W < N; j += 2 * W) rows<2>(M, K, a, ar, ak, b + j, bk, init && !ir ? init + j : init, ir, c + j * cn, cr, cn, N - j);
    for (; j < N; j += W) rows<1>(M, K, a, ar, ak, b + j, bk, init && !ir ? init + j : init, ir, c + j * cn, cr, cn, N - j);
}
// B with any strides as rows of P columns, zeros behind the last
extern "C" void pack(i64 K, i64 N, i64 P, const float* b, i64 bk, i64 bn, float* to) {
    for (i64 k = 0; k < K; k++) for (i64 j = N; j < P; j++) to[k * P + j] = 0.0f;
    if (bn == 1) {
        for (i64 k = 0; k < K; k++) for (i64 j = 0; j < N; j++) to[k * P + j] = b[k * bk + j];
        return;
    }
    for (i64 k = 0; k < K; k += 8)
        for (i64 j = 0; j < N; j++)
            for (i64 l = k; l < K && l < k + 8; l++) to[l * P + j] = b[l * bk + j * bn];
}
