/* The estimates of a head for one prompt in one pass. What it computes is defined by the NumPy code of
 * encoders/ngrams.py, head_parts.py and prior.py. The tests compare the two on any text.
 *
 * Arrays belong to the caller. Constants and layouts here and in library.py are the same. A library is
 * loaded only if its name holds the digest of this file.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    BLOCK = 1 << 15,  /* buckets of words and pairs, and as many of character 4-grams */
    MOST = 4104,      /* characters read at most */
    KINDS = 30, LOWER = 2, UPPER = 3, LETTER = 5,
    WORD = 1, NUMBER = 2, SINGLE = 3,
    CLASSES = 28,     /* of the size of a number */
    CUES = 12,
    LEADING = 10,
    DENSE = LEADING + KINDS + CLASSES / 2 + CUES,
    GRID = 64,
    PLACES = 300,     /* digits of a number that count by their place */
    WIDEST = 512,     /* latents, hidden units or tiers */
    LANES = 16,
    AHEAD = 8,        /* rows of latents fetched before they are needed */
    CACHE_LINE = 16,  /* floats */
};

/* For the test that Python's are the same. */
EXPORT const int64_t thinkmeter_sizes[] = {BLOCK, MOST, KINDS, CLASSES, CUES, DENSE, GRID, WIDEST, LANES};

static const uint64_t RADIX = 0x9E3779B97F4A7C15u, PAIRING = 0xD6E8FEB86659FD93u, EDGE = 0xA0761D6478BD642Fu;
static const int SHIFT = 64 - 15;
static const double Z95 = 1.645, LN_ODDS95 = 2.9444389791664403;

/* How text is read. Tables by code point have 65,536 entries; code points above share the last one. */
typedef struct {
    const uint8_t *kind;
    const uint64_t *hashed;
    const uint8_t *token;       /* [KINDS] */
    const uint64_t *magnitudes; /* [CLASSES] the hash of a number of each class */
    const double *classes;      /* [CLASSES] the smallest number of each class */
    const uint8_t *cues;        /* [BLOCK] 0, or 1 + the group of a cue word */
    const uint64_t *powers, *inverses; /* [MOST] of RADIX */
    const double *logs;         /* [MOST] ln(1 + n) */
    const float *weights;       /* [n] 1 + ln(n), the value of an n-gram that occurs n times */
} Reading;

typedef struct { /* router_model.prior.PriorLadder, thinking rungs in ascending order */
    const double *mean, *scale, *weights, *bias, *low, *high, *grid, *lengths, *losses, *budgets, *limit;
    double steepness, repaired, cut, forced, scatter, top;
    int64_t rungs, thinking;
} Ladder;

typedef struct { /* router_model.head_parts.Trunk */
    const float *rarity, *mean, *scale, *latents, *counts, *shift, *hidden, *hidden_bias;
    const float *examples; /* [DENSE, places]: transposed, padded to LANES with copies */
    const float *squares;  /* [places] */
    double strange, reach, unseen;
    int64_t rank, units, places;
} Trunk;

typedef struct { /* router_model.head_parts.TierMapping and Curves */
    const float *weights, *bias, *low, *high, *offset, *average, *by_length; /* of `tiers` */
    const int64_t *columns;               /* [used] */
    const int64_t *above;                 /* [rungs], or NULL without rungs between known tiers */
    const double *gained, *spent;         /* [rungs] */
    const double *blend;                  /* [rungs, used], or NULL */
    const double *limit, *spread;         /* [rungs] */
    double shrink, believed, ramp;
    int64_t tiers, used, rungs;
} Mapping;

typedef struct {
    uint16_t *seen, *key; /* of this thread; see below */
    int words, numbers, kinds[KINDS], classes[CLASSES / 2], cues[CUES + 1];
    double sum, last, top[3];
    int word_keys, keys; /* distinct ones */
    float dense[DENSE];
} Scan;

/* Occurrences by bucket, all 0 between calls, and the distinct buckets of a prompt: words first. */
static _Thread_local uint16_t seen[2 * BLOCK], key[3 * MOST + 1];

static inline void count(Scan *s, uint32_t bucket) {
    s->key[s->keys] = (uint16_t)bucket;
    s->keys += !s->seen[bucket]++;
}

/* The value of `n` digits. */
static double number(const uint16_t *codes, int n) {
    double value = 0, high = 0;
    for (int at = 0; at < n; at++) {
        uint32_t digit = codes[at] - (uint32_t)'0';
        double worth = digit < 9 ? digit : 9; /* digits of other scripts count as 9 */
        if (at <= n - PLACES) high += worth;
        else value = value * 10 + worth;
    }
    return high > 0 ? value + high * 1e299 : value;
}

/* Count a number, and return the hash of its class. */
static uint64_t read_number(const Reading *r, Scan *s, const uint16_t *codes, const uint8_t *tokens, int most) {
    int length = 1, class = 0;
    while (length < most && tokens[length] == NUMBER) length++;
    double value = number(codes, length), size = value < MOST ? r->logs[(int)value] : log1p(value), *top = s->top;
    while (class < CLASSES - 1 && value >= r->classes[class + 1]) class++;
    s->numbers++;
    s->sum += size;
    s->last = size;
    s->classes[class >> 1]++;
    if (size > top[0]) { top[2] = top[1]; top[1] = top[0]; top[0] = size; }
    else if (size > top[1]) { top[2] = top[1]; top[1] = size; }
    else if (size > top[2]) top[2] = size;
    return r->magnitudes[class];
}

static inline void end_word(const Reading *r, Scan *s, uint64_t word, uint64_t before) {
    uint32_t bucket = (uint32_t)(word >> SHIFT);
    s->cues[r->cues[bucket]]++;
    count(s, bucket);
    if (s->words++) count(s, (uint32_t)((before * PAIRING + word) >> SHIFT));
}

/* The code point beyond ASCII at `*at`, which it moves on. The text is UTF-8 that Python wrote, lone surrogates included. */
static inline uint32_t decode(const uint8_t **at) {
    const uint8_t *p = *at;
    if (p[0] < 0xE0) { *at = p + 2; return (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu); }
    if (p[0] < 0xF0) { *at = p + 3; return (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu); }
    *at = p + 4;
    return 0xFFFF;
}

/* Code points, and what each one is. Returns how many there are. */
static int classify(const Reading *r, Scan *s, const uint8_t *text, int64_t bytes, uint16_t *codes, uint8_t *tokens) {
    const uint8_t *end = text + bytes;
    int n = 0, kinds[4][KINDS] = {{0}}; /* four, so that an increment seldom waits for the one before */
    while (text < end && n < MOST) {
        uint16_t code = (uint16_t)(*text < 0x80 ? *text++ : decode(&text));
        uint8_t kind = r->kind[code];
        kinds[n & 3][kind]++;
        codes[n] = code;
        tokens[n++] = r->token[kind];
    }
    for (int i = 0; i < KINDS; i++) s->kinds[i] = kinds[0][i] + kinds[1][i] + kinds[2][i] + kinds[3][i];
    return n;
}

/* Count words, pairs of neighbours and numbers. Nothing branches on where words end, which no processor can guess:
 * a word's hash is a difference of sums. */
static void read_words(const Reading *r, Scan *s, const uint16_t *codes, const uint8_t *tokens, int n) {
    uint16_t starts[MOST + 1];
    uint64_t sums[MOST + 1], before = 0;
    static const uint8_t begins[4][4] = {{0, 1, 1, 1}, {0, 0, 1, 1}, {0, 1, 0, 1}, {0, 1, 1, 1}}; /* [before][now] */
    const uint64_t *hashed = r->hashed, *powers = r->powers;
    int words = 0;
    sums[0] = 0;
    for (int at = 0; at < n; at++) sums[at + 1] = hashed[codes[at]] * powers[at];
    for (int at = 0; at < n; at++) sums[at + 1] += sums[at];
    for (int at = 0, last = 0; at < n; at++) {
        int token = tokens[at];
        starts[words] = (uint16_t)at;
        words += begins[last][token];
        last = token;
    }
    starts[words] = (uint16_t)n;
    for (int i = 0; i < words; i++) {
        int first = starts[i];
        uint64_t word = (sums[starts[i + 1]] - sums[first]) * r->inverses[first];
        if (tokens[first] == NUMBER) word = read_number(r, s, codes + first, tokens + first, n - first);
        end_word(r, s, word, before);
        before = word;
    }
    s->word_keys = s->keys;
}

/* Count the character 4-grams whose two middle characters lie within words or numbers. */
static void read_grams(const Reading *r, Scan *s, const uint16_t *codes, const uint8_t *tokens, int n) {
    uint16_t grams[MOST + 1];
    uint64_t a = EDGE, b = EDGE, c = EDGE;
    int b_inside = 0, c_inside = 0, found = 0;
    for (int at = 0; at <= n; at++) {
        int inside = at < n && (tokens[at] == WORD || tokens[at] == NUMBER);
        uint64_t d = inside ? r->hashed[codes[at]] : EDGE;
        grams[found] = (uint16_t)(((a * RADIX + b) * (RADIX * RADIX) + (c * RADIX + d)) >> SHIFT) | BLOCK;
        found += b_inside & c_inside;
        a = b; b = c; c = d;
        b_inside = c_inside; c_inside = inside;
    }
    for (int i = 0; i < found; i++) count(s, grams[i]);
}

static void condense(const Reading *r, Scan *s, int64_t length) {
    int words = s->words ? s->words : 1, letters = s->kinds[LOWER] + s->kinds[UPPER] + s->kinds[LETTER], at = LEADING;
    double leading[LEADING] = {
        log1p((double)length), r->logs[s->words], (double)s->word_keys / (s->words ? 2 * s->words : 1),
        (double)letters / words / 10, r->logs[s->numbers], s->top[0], s->top[1], s->top[2],
        s->numbers ? s->sum / s->numbers : 0, s->last,
    };
    for (int i = 0; i < LEADING; i++) s->dense[i] = (float)leading[i];
    for (int i = 0; i < KINDS; i++) s->dense[at++] = (float)r->logs[s->kinds[i]];
    for (int i = 0; i < CLASSES / 2; i++) s->dense[at++] = (float)r->logs[s->classes[i]];
    for (int i = 0; i < CUES; i++) s->dense[at++] = (float)r->logs[s->cues[i + 1]];
    for (int i = 0; i < DENSE; i++) if (s->dense[i] > 100) s->dense[i] = 100;
}

/* Read a prompt of `length` characters, of which the text has those that are read. */
static void scan(const Reading *r, Scan *s, const uint8_t *text, int64_t bytes, int64_t length, int grams) {
    uint16_t codes[MOST];
    uint8_t tokens[MOST];
    memset(s, 0, sizeof *s);
    s->seen = seen; /* looking them up costs a call */
    s->key = key;
    int n = bytes ? classify(r, s, text, bytes, codes, tokens) : classify(r, s, (const uint8_t *)" ", 1, codes, tokens);
    read_words(r, s, codes, tokens, n);
    if (grams) read_grams(r, s, codes, tokens, n);
    condense(r, s, length);
}

static void forget(const Scan *s) {
    for (int i = 0; i < s->keys; i++) s->seen[s->key[i]] = 0;
}

static inline double within(double value, double low, double high) {
    return value < low ? low : value > high ? high : value;
}

static inline float withinf(float value, float low, float high) {
    return value < low ? low : value > high ? high : value;
}

/* The dense features, [DENSE]. */
EXPORT void thinkmeter_counts(const Reading *r, const uint8_t *text, int64_t bytes, int64_t length, float *dense) {
    Scan s;
    scan(r, &s, text, bytes, length, 0);
    forget(&s);
    memcpy(dense, s.dense, sizeof s.dense);
}

/* Sort buckets by their low byte, then by their high one. */
static void sort(uint16_t *buckets, int n) {
    uint16_t other[3 * MOST], *from = buckets, *to = other;
    for (int shift = 0; shift <= 8; shift += 8) {
        int place[257] = {0};
        for (int i = 0; i < n; i++) place[(from[i] >> shift & 255) + 1]++;
        for (int i = 0; i < 256; i++) place[i + 1] += place[i];
        for (int i = 0; i < n; i++) to[place[from[i] >> shift & 255]++] = from[i];
        uint16_t *swap = from; from = to; to = swap;
    }
}

/* Numbers in a byte each, then those of 255 and more in two. */
static uint8_t *put_short(uint8_t *to, const uint16_t *numbers, int n) {
    for (int i = 0; i < n; i++) *to++ = numbers[i] < 255 ? (uint8_t)numbers[i] : 255;
    for (int i = 0; i < n; i++) if (numbers[i] >= 255) { *to++ = numbers[i] & 255; *to++ = numbers[i] >> 8; }
    return to;
}

/* The counts, as encoders/packing.py lays them out; returns how many bytes they take. */
EXPORT int64_t thinkmeter_packed(const Reading *r, const uint8_t *text, int64_t bytes, int64_t length, uint8_t *out) {
    Scan s;
    uint16_t gaps[3 * MOST], often[3 * MOST];
    scan(r, &s, text, bytes, length, 1);
    sort(s.key, s.keys);
    *out++ = s.keys & 255;
    *out++ = (uint8_t)(s.keys >> 8);
    uint8_t *first = out - 2, *present = out, *to = out + (DENSE + 7) / 8;
    memset(present, 0, (DENSE + 7) / 8);
    for (int i = 0; i < DENSE; i++) {
        if (s.dense[i] == 0) continue;
        present[i >> 3] |= 128 >> (i & 7);
        memcpy(to, &s.dense[i], 4);
        to += 4;
    }
    int repeated = 0, last = 0;
    memset(to, 0, (size_t)(s.keys + 7) / 8);
    for (int i = 0; i < s.keys; i++) {
        int bucket = s.key[i], times = s.seen[bucket];
        gaps[i] = (uint16_t)(bucket - last);
        last = bucket;
        if (times == 1) continue;
        to[i >> 3] |= 128 >> (i & 7);
        often[repeated++] = (uint16_t)times;
    }
    to = put_short(to + (s.keys + 7) / 8, gaps, s.keys);
    to = put_short(to, often, repeated);
    forget(&s);
    return to - first;
}

/* P(right), E[tokens] and their 95th percentile: [3, rungs]. */
EXPORT void thinkmeter_prior(
    const Reading *r, const Ladder *p, const uint8_t *text, int64_t bytes, int64_t length, double *out
) {
    Scan s;
    double seen_[3] = {p->bias[0], p->bias[1], p->bias[2]}, longer[GRID];
    double *correct = out, *tokens = out + p->rungs, *p95 = out + 2 * p->rungs;
    scan(r, &s, text, bytes, length, 0);
    forget(&s);
    for (int i = 0; i < DENSE; i++) {
        double standard = within((s.dense[i] - p->mean[i]) / p->scale[i], -4, 4);
        for (int j = 0; j < 3; j++) seen_[j] += standard * p->weights[3 * i + j];
    }
    for (int j = 0; j < 3; j++) seen_[j] = within(seen_[j], p->low[j], p->high[j]);
    double thought = seen_[0], short_ = exp(seen_[1]), right = 1 / (1 + exp(-seen_[2]));
    double most = exp(seen_[1] + Z95 * p->scatter), thinks = exp(thought + LN_ODDS95 / p->steepness);
    double full = right + p->repaired * (1 - right), longest = full;
    if (p->thinking) {
        for (int g = 0; g < GRID; g++)
            longer[g] = 1 / (1 + exp(within(p->steepness * (p->grid[g] - thought), -60, 60)));
        if (full > p->cut)
            longest -= (full - p->cut) / (1 + exp(within(p->steepness * (p->top - thought), -60, 60)));
    }
    for (int64_t t = 0, j = 0; t < p->rungs; t++) {
        double most_ = most, lost = 0, thinking = 0;
        correct[t] = right;
        tokens[t] = short_;
        if (p->budgets[t] > 0) {
            for (int g = 0; g < GRID; g++) {
                lost += longer[g] * p->losses[j * GRID + g];
                thinking += longer[g] * p->lengths[j * GRID + g];
            }
            j++;
            correct[t] = longest - lost;
            tokens[t] = thinking + p->forced * short_;
            most_ = fmin(p->budgets[t], thinks) + p->forced * most;
        }
        correct[t] = within(correct[t], 0, 1);
        tokens[t] = fmin(tokens[t], p->limit[t]);
        p95[t] = fmin(ceil(most_), p->limit[t]);
    }
}

/* y[m] += x[n] @ w[n, m] */
static inline void multiply(const float *restrict x, int64_t n, const float *restrict w, int64_t m, float *restrict y) {
    int64_t at = 0;
    for (; at + LANES <= m; at += LANES) {
        float sum[LANES];
        memcpy(sum, y + at, sizeof sum);
        for (int64_t i = 0; i < n; i++)
            for (int j = 0; j < LANES; j++) sum[j] += x[i] * w[i * m + at + j];
        memcpy(y + at, sum, sizeof sum);
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = at; j < m; j++) y[j] += x[i] * w[i * m + j];
}

/* Adds the latents of the n-grams to z[rank], and returns how rare they are on average. */
static double read_latents(const Reading *r, const Trunk *t, const Scan *s, float *z) {
    float blocks[2][WIDEST] = {{0}};
    double rare = 0, norm[2] = {0, 0}, weighed[2] = {0, 0}, scale[2], length;
    for (int i = 0; i < s->keys; i++) {
        int block = i >= s->word_keys;
        if (i + AHEAD < s->keys) { /* rows lie far apart, and the processor cannot guess where */
            const float *next = t->latents + s->key[i + AHEAD] * t->rank;
            for (int64_t j = 0; j < t->rank; j += CACHE_LINE) __builtin_prefetch(next + j);
            __builtin_prefetch(t->rarity + s->key[i + AHEAD]);
        }
        float value = r->weights[s->seen[s->key[i]]], rarity = t->rarity[s->key[i]];
        s->seen[s->key[i]] = 0;
        norm[block] += value * value;
        rare += rarity ? rarity : t->unseen;
        if (!rarity) continue;
        value *= rarity;
        weighed[block] += value * value;
        multiply(&value, 1, t->latents + s->key[i] * t->rank, t->rank, blocks[block]);
    }
    for (int b = 0; b < 2; b++) scale[b] = norm[b] > 0 ? 1 / sqrt(norm[b]) : 0;
    length = sqrt(weighed[0] * scale[0] * scale[0] + weighed[1] * scale[1] * scale[1]);
    for (int b = 0; b < 2 && length > 0; b++)
        for (int64_t j = 0; j < t->rank; j++) z[j] += blocks[b][j] * (float)(scale[b] / length);
    return s->keys ? rare / s->keys : INFINITY;
}

/* Distance to the nearest example; any one within reach is as good as the nearest. */
static double distance(const Trunk *t, const float *counts) {
    float own = 0, nearest = INFINITY;
    for (int d = 0; d < DENSE; d++) own += counts[d] * counts[d];
    for (int64_t at = 0; at < t->places && nearest + own > t->reach * t->reach; at += LANES) {
        float dot[LANES] = {0};
        for (int d = 0; d < DENSE; d++)
            for (int j = 0; j < LANES; j++) dot[j] += counts[d] * t->examples[d * t->places + at + j];
        for (int j = 0; j < LANES; j++) nearest = fminf(nearest, t->squares[at + j] - 2 * dot[j]);
    }
    return sqrt(fmax(nearest + own, 0));
}

/* P(right) and E[tokens] of all measured tiers; see Curves.outcomes. `first` is the standardised length. */
static void read_curves(const Mapping *m, const float *raw, float first, double unknown, double *right, double *used) {
    double centre = 0;
    for (int64_t i = 0; i < m->tiers; i++) {
        right[i] = 1 / (1 + exp(-within(raw[i], -30, 30)));
        centre += right[i] / (double)m->tiers;
    }
    for (int64_t i = 0; i < m->tiers; i++) {
        double log = raw[m->tiers + i];
        if (m->shrink < 1) {
            double gain = m->shrink * (right[i] - centre) + (1 - m->shrink) * m->offset[i];
            right[i] = within(centre + gain, 0, 1);
        }
        if (unknown > 0) {
            right[i] += unknown * (1 - m->believed) * (m->average[i] - right[i]);
            log += unknown * (m->by_length[i] + first * m->by_length[m->tiers + i] - log);
        }
        used[i] = within(exp(fmin(log, 20)), m->low[i], m->high[i]);
    }
}

/* Interpolate by length between measured tiers, never falling, rounded so that equal estimates stay equal. */
static void blend(const Mapping *m, const double *right, const double *used, double *correct, double *tokens) {
    double rising[WIDEST], longer[WIDEST];
    for (int64_t i = 0; i < m->used; i++) {
        double now = right[m->columns[i]], length = used[m->columns[i]];
        rising[i] = i ? fmax(rising[i - 1], now) : now;
        longer[i] = i ? fmax(longer[i - 1], log(length)) : log(length);
    }
    for (int64_t t = 0; t < m->rungs; t++) {
        double p = 0, l = 0;
        for (int64_t i = 0; i < m->used; i++) {
            p += rising[i] * m->blend[t * m->used + i];
            l += longer[i] * m->blend[t * m->used + i];
        }
        correct[t] = fmin(rint(p * 1e9) / 1e9, 1);
        tokens[t] = rint(exp(l) * 1e6) / 1e6;
    }
}

static void map_rungs(const Mapping *m, const double *right, const double *used, double *correct, double *tokens) {
    for (int64_t t = 0; t < m->rungs; t++) {
        correct[t] = right[m->columns[t]];
        tokens[t] = used[m->columns[t]];
        if (!m->above || m->above[t] == m->columns[t]) continue;
        correct[t] += m->gained[t] * (right[m->above[t]] - correct[t]);
        tokens[t] *= pow(used[m->above[t]] / tokens[t], m->spent[t]);
    }
}

/* P(right), E[tokens] and their 95th percentile: [3, rungs], then how unknown the prompt is. */
EXPORT void thinkmeter_measured(
    const Reading *r, const Trunk *t, const Mapping *m, const uint8_t *text, int64_t bytes, int64_t length, double *out
) {
    Scan s;
    float counts[DENSE], z[WIDEST], hidden[WIDEST], raw[2 * WIDEST];
    double right[WIDEST], used[WIDEST], *correct = out, *tokens = out + m->rungs, *p95 = out + 2 * m->rungs;
    scan(r, &s, text, bytes, length, 1);
    for (int i = 0; i < DENSE; i++) counts[i] = withinf((s.dense[i] - t->mean[i]) / t->scale[i], -4, 4);
    memcpy(z, t->shift, (size_t)t->rank * sizeof *z);
    double strangeness = read_latents(r, t, &s, z) / t->strange;
    multiply(counts, DENSE, t->counts, t->rank, z);
    if (t->places && strangeness < 1 + m->ramp) strangeness = fmax(strangeness, distance(t, counts) / t->reach);
    double unknown = within((strangeness - 1) / m->ramp, 0, 1);
    memcpy(hidden, t->hidden_bias, (size_t)t->units * sizeof *hidden);
    multiply(z, t->rank, t->hidden, t->units, hidden);
    multiply(counts, DENSE, t->hidden + t->rank * t->units, t->units, hidden);
    for (int64_t i = 0; i < t->units; i++) hidden[i] = tanhf(hidden[i]);
    memcpy(raw, m->bias, 2 * (size_t)m->tiers * sizeof *raw);
    multiply(hidden, t->units, m->weights, 2 * m->tiers, raw);
    multiply(z, t->rank, m->weights + t->units * 2 * m->tiers, 2 * m->tiers, raw);
    multiply(counts, DENSE, m->weights + (t->units + t->rank) * 2 * m->tiers, 2 * m->tiers, raw);
    read_curves(m, raw, counts[0], unknown, right, used);
    (m->blend ? blend : map_rungs)(m, right, used, correct, tokens);
    for (int64_t i = 0; i < m->rungs; i++) {
        tokens[i] = fmin(tokens[i], m->limit[i]);
        p95[i] = fmin(ceil(tokens[i] * m->spread[i]), m->limit[i]);
    }
    out[3 * m->rungs] = unknown;
}
