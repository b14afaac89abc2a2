/* The inner loops of generation on a CPU: products with packed weights, attention over paged keys and values, norms.
 *
 * One rule holds in all of them: every number that comes out is made by the same operations in the same order,
 * however many rows are computed together and by however many threads. So a row's result does not depend, not by a
 * bit, on what else is in the batch, on whether it was computed alone or as part of a prompt, or on where its keys lie.
 *
 * Plain C with GCC's vector types (16 floats: one AVX-512 register, two of AVX2, four of SSE or NEON). Each function
 * has a reference in PyTorch beside it (reference.py), and a test that compares the two.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#define LANES 16
#define GROUP 32 /* weights that share a scale */
#define ALWAYS static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

typedef float f32 __attribute__((vector_size(64), aligned(4)));
typedef int32_t i32 __attribute__((vector_size(64), aligned(4)));
typedef uint32_t u32 __attribute__((vector_size(64), aligned(4)));
typedef uint16_t u16 __attribute__((vector_size(32), aligned(2)));
typedef int8_t i8 __attribute__((vector_size(16), aligned(1)));
typedef uint8_t u8 __attribute__((vector_size(16), aligned(1)));

enum format { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2, INT4 = 3, WIDENED = 4 /* INT8 or INT4 as float32 */ };

static const long BITS[] = {32, 16, 8, 4, 32};

ALWAYS f32 splat(float x) { return x - (f32){0}; }

ALWAYS f32 from_bfloat16(const uint16_t *from) {
    return (f32)(__builtin_convertvector(*(const u16 *)from, u32) << 16);
}

ALWAYS uint16_t to_bfloat16(float x) { /* to the nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40); /* NaN stays NaN */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Sixteen bytes, signed or not, as whole numbers (GCC's own conversion goes number by number). */
ALWAYS i32 widen(const void *from, int sign) {
#if defined(__AVX512F__)
    const __m128i bytes = _mm_loadu_si128(from);
    return (i32)(sign ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
#elif defined(__AVX2__)
    const __m128i low = _mm_loadu_si64(from), high = _mm_loadu_si64((const char *)from + 8);
    union { __m256i half[2]; i32 whole; } both = {{sign ? _mm256_cvtepi8_epi32(low) : _mm256_cvtepu8_epi32(low),
                                                  sign ? _mm256_cvtepi8_epi32(high) : _mm256_cvtepu8_epi32(high)}};
    return both.whole;
#else
    return sign ? __builtin_convertvector(*(const i8 *)from, i32) : __builtin_convertvector(*(const u8 *)from, i32);
#endif
}

/* Sixteen numbers in `format` at element `at`; integers without their scale. `half` picks a nibble of INT4. */
ALWAYS f32 load(enum format format, const void *from, long at, int half) {
    switch (format) {
    case FLOAT32:
    case WIDENED: return *(const f32 *)((const float *)from + at);
    case BFLOAT16: return from_bfloat16((const uint16_t *)from + at);
    case INT8: return __builtin_convertvector(widen((const char *)from + at, 1), f32);
    default: {
        const i32 both = widen((const char *)from + at, 0);
#ifdef __clang__
        return __builtin_convertvector(((half ? both >> 4 : both) & 15) - 8, f32);
#else
        static const f32 numbers = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
        return __builtin_shuffle(numbers, half ? both >> 4 : both); /* the index counts modulo 16 */
#endif
    }
    }
}

/* ---------------------------------------------------------------------------------------------- products
 *
 * y (M, N) = x (M, K) Wᵀ + bias. W is packed in panels of 16 outputs: panel p holds, for k = 0, 1, …, the weights of
 * outputs 16p … 16p+15 (INT4: two k to a byte). Scales of INT8 and INT4 are bfloat16, (panels, K / 32, 16).
 * An output is one chain of fused multiply-adds over k, whatever the tile it is computed in. For many rows
 * panels are widened to float32 once for all of them: the same numbers, the same chain.
 */
typedef struct {
    const float *x, *bias;
    const void *weight;
    const uint16_t *scales;
    float *y;
    long rows, inner, outputs, first; /* `weight` begins with panel `first` */
} product;

ALWAYS void tile(enum format format, const product *job, long row, long panel, const int R, const int P) {
    const int scaled = format >= INT8, pair = format == INT4 ? 2 : 1;
    const long inner = job->inner, step = inner * LANES * BITS[format] / 8, stride = scaled ? GROUP : inner;
    const char *weight = (const char *)job->weight + (panel - job->first) * step;
    const float *x = job->x + row * inner;
    f32 sum[8][8];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) sum[r][p] = splat(0);
    for (long start = 0; start < inner; start += stride) { /* the weights that share a scale are summed without it */
        f32 part[8][8];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int p = 0; p < P; p++) part[r][p] = splat(0);
        for (long k = start; k < start + stride; k += pair)
#pragma GCC unroll 2
            for (int half = 0; half < pair; half++) {
                f32 w[8];
#pragma GCC unroll 8
                for (int p = 0; p < P; p++) w[p] = load(format, weight + p * step, k / pair * LANES, half);
#pragma GCC unroll 8
                for (int r = 0; r < R; r++)
#pragma GCC unroll 8
                    for (int p = 0; p < P; p++) part[r][p] += w[p] * x[r * inner + k + half];
            }
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            f32 scale = splat(1);
            if (scaled) scale = from_bfloat16(job->scales + ((panel + p) * (inner / GROUP) + start / GROUP) * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) sum[r][p] += scaled ? part[r][p] * scale : part[r][p];
        }
    }
    for (int r = 0; r < R; r++)
        for (int p = 0; p < P; p++) {
            long at = (panel + p) * LANES, left = job->outputs - at;
            float *y = job->y + (row + r) * job->outputs + at;
            if (left >= LANES)
                *(f32 *)y = sum[r][p] + (job->bias ? *(const f32 *)(job->bias + at) : splat(0));
            else
                for (int lane = 0; lane < left; lane++) y[lane] = sum[r][p][lane] + (job->bias ? job->bias[at + lane] : 0);
        }
}

#define ROWS(F, R, P)                                                                                                  \
    case R: tile(F, job, row, panel, R, P); break;
#define TILES(NAME, F)                                                                                                 \
    static void NAME(const product *job, long row, int rows, long panel, int panels) {                                 \
        if (panels == 8)                                                                                               \
            switch (rows) { ROWS(F, 1, 8) ROWS(F, 2, 8) }                                                              \
        else if (panels == 4)                                                                                          \
            switch (rows) { ROWS(F, 1, 4) ROWS(F, 2, 4) ROWS(F, 3, 4) ROWS(F, 4, 4) }                                  \
        else if (panels == 3)                                                                                          \
            switch (rows) { ROWS(F, 5, 3) ROWS(F, 6, 3) ROWS(F, 7, 3) ROWS(F, 8, 3) }                                  \
        else                                                                                                           \
            switch (rows) {                                                                                            \
                ROWS(F, 1, 1) ROWS(F, 2, 1) ROWS(F, 3, 1) ROWS(F, 4, 1)                                                \
                ROWS(F, 5, 1) ROWS(F, 6, 1) ROWS(F, 7, 1) ROWS(F, 8, 1)                                                \
            }                                                                                                          \
    }
TILES(tiles_float32, FLOAT32)
TILES(tiles_bfloat16, BFLOAT16)
TILES(tiles_int8, INT8)
TILES(tiles_int4, INT4)
TILES(tiles_widened, WIDENED)

/* The panels from `first` to `end` as float32, without their scales. */
ALWAYS void widen_panels(enum format format, const product *job, long first, long end, float *to) {
    const long inner = job->inner, step = inner * LANES * BITS[format] / 8, pair = format == INT4 ? 2 : 1;
    for (long panel = first; panel < end; panel++) {
        const char *weight = (const char *)job->weight + panel * step;
        for (long k = 0; k < inner; k += pair)
            for (int half = 0; half < pair; half++, to += LANES) *(f32 *)to = load(format, weight, k / pair * LANES, half);
    }
}

static void widen_as(int format, const product *job, long first, long end, float *to) {
    switch (format) {
    case BFLOAT16: widen_panels(BFLOAT16, job, first, end, to); break;
    case INT8: widen_panels(INT8, job, first, end, to); break;
    default: widen_panels(INT4, job, first, end, to);
    }
}

EXPORT void linear(int format, const float *x, const void *weight, const uint16_t *scales, const float *bias, float *y,
                   long rows, long inner, long outputs, int threads) {
    static void (*const NAMES[])(const product *, long, int, long, int) = {tiles_float32, tiles_bfloat16, tiles_int8,
                                                                          tiles_int4, tiles_widened};
    const product whole = {x, bias, weight, scales, y, rows, inner, outputs, 0};
    const long panels = (outputs + LANES - 1) / LANES;
    const int wide = rows > 4 ? 3 : rows > 2 || panels < 16 * threads ? 4 : 8;
    const long groups = (panels + wide - 1) / wide;
#pragma omp parallel num_threads(threads) if (rows * inner * outputs > 60000)
    {
        /* Without memory for it the weights are widened for each tile anew. */
        float *widened = format != FLOAT32 && rows > 24 ? malloc(wide * LANES * inner * sizeof(float)) : 0;
#pragma omp for schedule(static)
        for (long group = 0; group < groups; group++) {
            const long first = group * wide, end = first + wide < panels ? first + wide : panels;
            product job = whole;
            int kind = format;
            if (widened) {
                widen_as(format, &whole, first, end, widened);
                job.weight = widened, job.first = first, kind = format == BFLOAT16 ? FLOAT32 : WIDENED;
            }
            for (long row = 0; row < rows; row += 8) {
                const int count = rows - row < 8 ? (int)(rows - row) : 8;
                const int fits = wide == 3 ? count > 4 : wide == 4 ? count <= 4 : count <= 2;
                if (end - first == wide && fits)
                    NAMES[kind](&job, row, count, first, wide);
                else
                    for (long panel = first; panel < end; panel++) NAMES[kind](&job, row, count, panel, 1);
            }
        }
        free(widened);
    }
}

/* ---------------------------------------------------------------------------------------------- attention
 *
 * Keys and values lie in blocks of 16 tokens: keys (block, kv_head, d, 16) so that one vector holds a channel of 16
 * tokens, values (block, kv_head, 16, width) where width is d rounded up to 16. INT8 has a scale per token and head,
 * (block, kv_head, 16). A sequence's table names its blocks in order. A query at position p sees the keys
 * max(0, p - window + 1) … p of its sequence: scores, softmax and weighted sum run over them in order.
 */
typedef struct {
    const float *query; /* (tokens, heads, d) */
    float *out;
    const void *keys, *values;
    const float *key_scales, *value_scales;
    const int32_t *table;
    const float *slopes; /* (heads), or null */
    long heads, kv_heads, dim, first_token, tokens, position, window;
    float scale, cap;
} sequence;

ALWAYS f32 where(i32 mask, f32 yes, f32 no) { return (f32)(((i32)yes & mask) | ((i32)no & ~mask)); }

ALWAYS f32 exponential(f32 x) { /* Cephes' expf; 0 below -87, and no more than e^88 */
    const i32 tiny = x < splat(-87.0f);
    x = where(tiny, splat(-87.0f), x);
    x = where(x > splat(88.0f), splat(88.0f), x);
    f32 n = x * 1.44269504088896341f + 12582912.0f; /* 1.5 · 2²³: rounds to the nearest whole number */
    n -= 12582912.0f;
    f32 r = x - n * 0.693359375f + n * 2.12194440e-4f;
    f32 y = splat(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    i32 power = (__builtin_convertvector(n, i32) + 127) << 23;
    return (f32)((i32)(y * (f32)power) & ~tiny);
}

ALWAYS float largest(f32 x) {
    float m = x[0];
    for (int lane = 1; lane < LANES; lane++) m = x[lane] > m ? x[lane] : m;
    return m;
}

ALWAYS float total(f32 x) {
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += x[lane];
    return sum;
}

/* Raw products of R queries with the keys of B blocks, written to scores[r][place …]. */
ALWAYS void dots(enum format format, const sequence *job, long kv, const int32_t *blocks, const float *query,
                 float *const *scores, long place, const int R, const int B) {
    const long d = job->dim, bytes = BITS[format] / 8;
    const char *keys[4];
    f32 sum[8][4];
    for (int b = 0; b < B; b++) keys[b] = (const char *)job->keys + (blocks[b] * job->kv_heads + kv) * d * LANES * bytes;
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int b = 0; b < B; b++) sum[r][b] = splat(0);
    for (long i = 0; i < d; i++) {
        f32 key[4];
#pragma GCC unroll 4
        for (int b = 0; b < B; b++) key[b] = load(format, keys[b], i * LANES, 0);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int b = 0; b < B; b++) sum[r][b] += key[b] * query[r * d + i];
    }
    for (int b = 0; b < B; b++) {
        f32 scale = splat(job->scale);
        if (format == INT8) scale *= *(const f32 *)(job->key_scales + (blocks[b] * job->kv_heads + kv) * LANES);
        for (int r = 0; r < R; r++) *(f32 *)(scores[r] + place + b * LANES) = sum[r][b] * scale;
    }
}

/* Weighted sums of D vectors of the values' channels, from channel `at` on. */
ALWAYS void sums(enum format format, const sequence *job, long kv, const int32_t *blocks, long tokens,
                 float *const *weights, long at, float *const *out, const int R, const int D) {
    const long width = (job->dim + LANES - 1) / LANES * LANES, bytes = BITS[format] / 8;
    f32 sum[8][8];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int i = 0; i < D; i++) sum[r][i] = splat(0);
    for (long token = 0; token < tokens; token++) {
        const long row = ((blocks[token / LANES] * job->kv_heads + kv) * LANES + token % LANES) * width + at;
        f32 value[8];
#pragma GCC unroll 8
        for (int i = 0; i < D; i++) value[i] = load(format, (const char *)job->values + row * bytes, i * LANES, 0);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int i = 0; i < D; i++) sum[r][i] += value[i] * weights[r][token];
    }
    for (int r = 0; r < R; r++)
        for (int i = 0; i < D; i++) *(f32 *)(out[r] + at + i * LANES) = sum[r][i];
}

/* Scores to weights that are not yet divided by their sum; returns 1 / sum. */
ALWAYS float soften(const sequence *job, float *scores, long tokens, long low, long position, long head) {
    f32 top = splat(-INFINITY), sum = splat(0);
    i32 lanes;
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = lane;
    for (long at = 0; at < tokens; at += LANES) {
        f32 x = *(f32 *)(scores + at);
        const i32 place = lanes + (int32_t)(low + at);
        if (job->cap > 0) { /* cap · tanh(x / cap) */
            f32 y = exponential(x * (-2.0f / job->cap));
            x = job->cap * ((1.0f - y) / (1.0f + y));
        }
        if (job->slopes) x += __builtin_convertvector(place - (int32_t)position, f32) * job->slopes[head];
        const long from = job->window ? position - job->window + 1 : 0;
        const i32 seen = (place <= (int32_t)position) & (place >= (int32_t)from);
        x = where(seen, x, splat(-INFINITY));
        top = where(x > top, x, top);
        *(f32 *)(scores + at) = x;
    }
    const float m = largest(top);
    for (long at = 0; at < tokens; at += LANES) {
        f32 x = exponential(*(f32 *)(scores + at) - m);
        sum += x;
        *(f32 *)(scores + at) = x;
    }
    return 1.0f / total(sum);
}

/* R rows (a row is a query head at a token) that share a key head; `row` counts through (token, head of the group). */
ALWAYS void attend_rows(enum format format, const sequence *job, long kv, long row, float *scratch, const int R) {
    const long d = job->dim, group = job->heads / job->kv_heads, width = (d + LANES - 1) / LANES * LANES;
    const long last = job->position + (row + R - 1) / group, first = job->position + row / group;
    long low = job->window && first - job->window + 1 > 0 ? first - job->window + 1 : 0;
    low -= low % LANES;
    const int32_t *blocks = job->table + low / LANES;
    const long tokens = last + 1 - low, padded = (tokens + LANES - 1) / LANES * LANES, count = padded / LANES;
    float *scores[8], *out[8], *query = scratch + 8 * padded, norm[8];
    for (int r = 0; r < R; r++) {
        const long token = job->first_token + (row + r) / group, head = kv * group + (row + r) % group;
        scores[r] = scratch + r * padded;
        out[r] = query + 8 * d + r * width;
        memcpy(query + r * d, job->query + (token * job->heads + head) * d, d * sizeof(float));
    }
    long b = 0;
    if (R <= 4)
        for (; b + 4 <= count; b += 4) dots(format, job, kv, blocks + b, query, scores, b * LANES, R, 4);
    else
        for (; b + 2 <= count; b += 2) dots(format, job, kv, blocks + b, query, scores, b * LANES, R, 2);
    for (; b < count; b++) dots(format, job, kv, blocks + b, query, scores, b * LANES, R, 1);
    for (int r = 0; r < R; r++) {
        norm[r] = soften(job, scores[r], padded, low, job->position + (row + r) / group, kv * group + (row + r) % group);
        if (format == INT8)
            for (b = 0; b < count; b++)
                *(f32 *)(scores[r] + b * LANES) *=
                    *(const f32 *)(job->value_scales + (blocks[b] * job->kv_heads + kv) * LANES);
    }
    long at = 0;
    if (R <= 2)
        for (; at + 8 * LANES <= width; at += 8 * LANES) sums(format, job, kv, blocks, tokens, scores, at, out, R, 8);
    if (R <= 4)
        for (; at + 4 * LANES <= width; at += 4 * LANES) sums(format, job, kv, blocks, tokens, scores, at, out, R, 4);
    for (; at + 2 * LANES <= width; at += 2 * LANES) sums(format, job, kv, blocks, tokens, scores, at, out, R, 2);
    for (; at < width; at += LANES) sums(format, job, kv, blocks, tokens, scores, at, out, R, 1);
    for (int r = 0; r < R; r++) {
        const long token = job->first_token + (row + r) / group, head = kv * group + (row + r) % group;
        float *to = job->out + (token * job->heads + head) * d;
        for (long i = 0; i < d; i++) to[i] = out[r][i] * norm[r];
    }
}

#define CASE(F, R)                                                                                                     \
    case R: attend_rows(F, job, kv, row, scratch, R); break;
#define ATTEND(NAME, F)                                                                                                \
    static void NAME(const sequence *job, long kv, long row, int rows, float *scratch) {                               \
        switch (rows) { CASE(F, 1) CASE(F, 2) CASE(F, 3) CASE(F, 4) CASE(F, 5) CASE(F, 6) CASE(F, 7) CASE(F, 8) }      \
    }
ATTEND(attend_float32, FLOAT32)
ATTEND(attend_bfloat16, BFLOAT16)
ATTEND(attend_int8, INT8)

/* Attention of all sequences of a step. `spans` has (first token, tokens, position of the first) per sequence, `tables`
 * (sequences, table_width) block numbers. Returns 0, or 1 if there is no memory for the scores. */
EXPORT int attention(int format, const float *query, float *out, const void *keys, const void *values,
                     const float *key_scales, const float *value_scales, const int32_t *tables, long table_width,
                     const int32_t *spans, long sequences, long heads, long kv_heads, long dim, long window, float scale,
                     float cap, const float *slopes, int threads) {
    static void (*const NAMES[])(const sequence *, long, long, int, float *) = {attend_float32, attend_bfloat16,
                                                                               attend_int8};
    const long group = heads / kv_heads;
    long *first = malloc((sequences + 1) * sizeof(long)), longest = 0, work = 0;
    if (!first) return 1;
    first[0] = 0;
    for (long s = 0; s < sequences; s++) { /* pieces of up to 8 rows, per key head */
        const long tokens = spans[3 * s + 1], end = spans[3 * s + 2] + tokens;
        first[s + 1] = first[s] + (tokens * group + 7) / 8 * kv_heads;
        longest = end > longest ? end : longest;
        work += end * tokens * heads * dim;
    }
    int failed = 0;
#pragma omp parallel num_threads(threads) if (work > 30000)
    {
        /* of 8 rows: scores, queries, sums */
        float *scratch = malloc(8 * (longest + 2 * LANES + 2 * dim + LANES) * sizeof(float));
        long s = 0;
        if (!scratch) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic, 1)
        for (long piece = 0; piece < first[sequences]; piece++) {
            if (!scratch) continue;
            if (piece < first[s]) s = 0;
            while (piece >= first[s + 1]) s++;
            const int32_t *span = spans + 3 * s;
            const long rows = span[1] * group, per_head = (rows + 7) / 8, kv = (piece - first[s]) / per_head,
                       row = (piece - first[s]) % per_head * 8;
            const sequence job = {query, out, keys, values, key_scales, value_scales, tables + s * table_width, slopes,
                                  heads, kv_heads, dim, span[0], span[1], span[2], window, scale, cap};
            NAMES[format](&job, kv, row, rows - row < 8 ? (int)(rows - row) : 8, scratch);
        }
        free(scratch);
    }
    free(first);
    return failed;
}

/* Put keys and values (tokens, kv_heads, d) into their places: slot = block · 16 + place in the block. */
EXPORT void store(int format, const float *key, const float *value, void *keys, void *values, float *key_scales,
                  float *value_scales, const int64_t *slots, long tokens, long kv_heads, long dim) {
    const long width = (dim + LANES - 1) / LANES * LANES;
    for (long token = 0; token < tokens; token++)
        for (long kv = 0; kv < kv_heads; kv++) {
            const long block = slots[token] / LANES, place = slots[token] % LANES, head = block * kv_heads + kv;
            const float *from[2] = {key + (token * kv_heads + kv) * dim, value + (token * kv_heads + kv) * dim};
            float inverse[2];
            for (int part = 0; part < 2 && format == INT8; part++) {
                float most = 0;
                for (long i = 0; i < dim; i++) most = fabsf(from[part][i]) > most ? fabsf(from[part][i]) : most;
                (part ? value_scales : key_scales)[head * LANES + place] = most / 127;
                inverse[part] = most > 1e-36f ? 127 / most : 0; /* what is smaller has no inverse in float32 */
            }
            for (int part = 0; part < 2; part++)
                for (long i = 0; i < dim; i++) {
                    void *to = part ? values : keys;
                    const long at = part ? (head * LANES + place) * width + i : (head * dim + i) * LANES + place;
                    const float x = from[part][i];
                    if (format == FLOAT32) ((float *)to)[at] = x;
                    else if (format == BFLOAT16) ((uint16_t *)to)[at] = to_bfloat16(x);
                    else ((int8_t *)to)[at] = (int8_t)lrintf(x * inverse[part]);
                }
        }
}

/* ---------------------------------------------------------------------------------------------- small things */

/* x / sqrt(mean(x²) + eps) · (offset + weight), row by row. */
EXPORT void rms_norm(const float *x, const float *weight, float *y, long rows, long size, float eps, float offset) {
    for (long row = 0; row < rows; row++) {
        const float *from = x + row * size;
        float *to = y + row * size, rest = 0;
        f32 sum = splat(0);
        long i = 0;
        for (; i + LANES <= size; i += LANES) sum += *(const f32 *)(from + i) * *(const f32 *)(from + i);
        for (; i < size; i++) rest += from[i] * from[i];
        const float factor = 1.0f / sqrtf((total(sum) + rest) / (float)size + eps);
        for (i = 0; i < size; i++) to[i] = from[i] * factor * (offset + weight[i]);
    }
}

enum activation { SILU = 0, GELU = 1, GELU_TANH = 2, GELU_BLOOM = 3, SIGMOID = 4 };

ALWAYS f32 error_function(f32 x) { /* Eigen's rational approximation: a few units in the last place */
    static const float above[] = {-2.72614225801306e-10f, 2.77068142495902e-08f,  -2.10102402082508e-06f,
                                  -5.69250639462346e-05f, -7.34990630326855e-04f, -2.95459980854025e-03f,
                                  -1.60960333262415e-02f};
    static const float below[] = {-1.45660718464996e-05f, -2.13374055278905e-04f, -1.68282697438203e-03f,
                                  -7.37332916720468e-03f, -1.42647390514189e-02f};
    x = where(x > splat(4.0f), splat(4.0f), x);
    x = where(x < splat(-4.0f), splat(-4.0f), x);
    const f32 square = x * x;
    f32 p = splat(above[0]), q = splat(below[0]);
    for (int i = 1; i < 7; i++) p = p * square + above[i];
    for (int i = 1; i < 5; i++) q = q * square + below[i];
    return x * p / q;
}

/* All but GELU are x · sigmoid(z); GELU's tanh form is so with z = 2 √(2/π) (x + 0.044715 x³). */
ALWAYS f32 activated(enum activation kind, f32 x) {
    if (kind == GELU) return x * 0.5f * (1.0f + error_function(x * 0.70710678118654752f));
    f32 z = x;
    if (kind == GELU_TANH) z = x * 1.5957691216057308f * (1.0f + 0.044715f * x * x);
    if (kind == GELU_BLOOM) z = x * 1.59576908f * (1.0f + 0.044715f * x * x);
    const f32 y = 1.0f / (1.0f + exponential(-z));
    return kind == SIGMOID ? y : x * y;
}

ALWAYS void activate_rows(enum activation kind, const float *x, float *y, long rows, long size, int gated) {
    for (long row = 0; row < rows; row++) {
        const float *from = x + row * size * (gated ? 2 : 1), *up = from + size;
        float *to = y + row * size;
        long i = 0;
        for (; i + LANES <= size; i += LANES) {
            const f32 said = activated(kind, *(const f32 *)(from + i));
            *(f32 *)(to + i) = gated ? said * *(const f32 *)(up + i) : said;
        }
        for (; i < size; i++) { /* the same operations: where a number stands in its row must not matter either */
            const float said = activated(kind, splat(from[i]))[0];
            to[i] = gated ? said * up[i] : said;
        }
    }
}

/* act(x); gated: act(gate) · up, where a row is gate and up side by side. */
EXPORT void activate(int kind, const float *x, float *y, long rows, long size, int gated) {
    switch (kind) {
    case SILU: activate_rows(SILU, x, y, rows, size, gated); break;
    case GELU: activate_rows(GELU, x, y, rows, size, gated); break;
    case GELU_TANH: activate_rows(GELU_TANH, x, y, rows, size, gated); break;
    case GELU_BLOOM: activate_rows(GELU_BLOOM, x, y, rows, size, gated); break;
    default: activate_rows(SIGMOID, x, y, rows, size, gated);
    }
}

/* A row of query heads, key heads and value heads side by side → the three apart, queries and keys turned: channel i of
 * the first dim / 2 and channel i of the second make a pair, and sin's first half is negative (rope.py). */
EXPORT void split_rotate(const float *joined, const float *cos, const float *sin, float *query, float *key, float *value,
                         long rows, long heads, long kv_heads, long d, long dim) {
    const long half = dim / 2, all = heads + 2 * kv_heads;
    for (long row = 0; row < rows; row++)
        for (long head = 0; head < all; head++) {
            const float *x = joined + (row * all + head) * d, *c = cos + row * dim, *s = sin + row * dim;
            if (head >= heads + kv_heads) {
                memcpy(value + (row * kv_heads + head - heads - kv_heads) * d, x, d * sizeof(float));
                continue;
            }
            float *to = head < heads ? query + (row * heads + head) * d : key + (row * kv_heads + head - heads) * d;
            for (long i = 0; i < half; i++) to[i] = x[i] * c[i] + x[i + half] * s[i];
            for (long i = 0; i < half; i++) to[i + half] = x[i + half] * c[i + half] + x[i] * s[i + half];
            for (long i = dim; i < d; i++) to[i] = x[i];
        }
}

/* What the compiler was told that the processor has: the library is not used where it has less. */
EXPORT const char *instructions(void) {
    return ""
#ifdef __AVX512F__
           "avx512f "
#endif
#ifdef __AVX512BW__
           "avx512bw "
#endif
#ifdef __AVX512DQ__
           "avx512dq "
#endif
#ifdef __AVX512VL__
           "avx512vl "
#endif
#ifdef __AVX512VBMI__
           "avx512vbmi "
#endif
#ifdef __AVX512VBMI2__
           "avx512_vbmi2 "
#endif
#ifdef __AVX512VNNI__
           "avx512_vnni "
#endif
#ifdef __AVX512BF16__
           "avx512_bf16 "
#endif
#ifdef __AVX512FP16__
           "avx512_fp16 "
#endif
#ifdef __BMI2__
           "bmi2 "
#endif
#ifdef __AVX2__
           "avx2 "
#endif
#ifdef __FMA__
           "fma "
#endif
        ;
}
