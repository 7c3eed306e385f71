/* Passes on the events of a stream that repeat a template, as they come in chunks of HTTP. What is a
 * repetition is defined by gateway/openai_api/repeated_events.py. This takes the same or fewer, and the tests
 * compare the two. Whatever is left is read by Python.
 *
 * All memory belongs to the caller.
 */
#include "events.h"

#include <string.h>

enum {
    SIZE_DIGITS = 7, /* of the size of a chunk at most */
    FRAMING = 16,    /* bytes in front of and behind a chunk at most */
};

typedef struct { /* an event that repeats the template */
    const char *text, *close, *numbers, *numbers_end, *end;
} Event;

static int starts(const char *at, const char *end, const char *part, int64_t size) {
    return end - at >= size && memcmp(at, part, (size_t)size) == 0;
}

/* Where the text ends, which is the inside of one JSON string with the middle behind it; NULL if it is not. */
static const char *end_of_text(const Template *t, const char *text, const char *end) {
    int escaped = 0;
    for (const char *at = text; (at = memchr(at, '"', (size_t)(end - at))); at++) {
        const int ends = starts(at, end, t->middle, t->middle_size);
        if (at == text || at[-1] != '\\') {
            if (!ends) return NULL;
            if (escaped)
                for (const char *c = text; c + 1 < at; c++)
                    if (c[0] == '\\' && c[1] == '\\') return NULL;
            return at;
        }
        if (ends) return NULL;
        escaped = 1;
    }
    return NULL;
}

static int may_hold_mark(const char *at, const char *end) {
    for (; at < end; at++)
        if (*at == '<' || *at == '\\' || (unsigned char)*at == 0xE2) return 1;
    return 0;
}

/* Read the event at the beginning of a chunk. Returns whether it repeats the template. */
static int read_event(const Template *t, const char *at, const char *end, int watch, Event *found) {
    if (!starts(at, end, t->prefix, t->prefix_size)) return 0;
    const char *text = at + t->prefix_size;
    const char *line = memchr(text, '\n', (size_t)(end - text)); /* must be that of the event */
    if (!line || end - line < 2) return 0;
    const char *event_end = line + 2;
    if (event_end - text < t->tail_size + t->middle_size) return 0;
    const char *numbers_end = event_end - t->tail_size;
    if (memcmp(numbers_end, t->tail, (size_t)t->tail_size) != 0) return 0;
    const char *close = end_of_text(t, text, numbers_end);
    if (!close || memchr(text, '\r', (size_t)(close - text))) return 0;
    const char *numbers = close + t->middle_size;
    if (t->inner < 0) {
        if (numbers != numbers_end) return 0;
    } else {
        int64_t inner = 0;
        for (const char *c = numbers; c < numbers_end; c++) {
            if (*c == '\r' || *c == '}') return 0;
            inner += *c == '{';
        }
        if (inner != t->inner || event_end - t->closing_size - numbers + 1 > COUNT) return 0;
    }
    if (watch && may_hold_mark(text, close)) return 0;
    *found = (Event){text, close, numbers, numbers_end, event_end};
    return 1;
}

/* Read the digits of a size. Returns where they end. */
static const char *read_digits(const char *at, const char *end, int64_t *size) {
    const char *c = at;
    for (*size = 0; c < end && c - at < SIZE_DIGITS; c++) {
        const int low = *c | 0x20;
        if (*c >= '0' && *c <= '9') *size = *size * 16 + (*c - '0');
        else if (low >= 'a' && low <= 'f') *size = *size * 16 + (low - 'a' + 10);
        else break;
    }
    return c;
}

/* Whether these bytes, which are not a whole chunk, may be the beginning of one. */
EXPORT int64_t thinkmeter_begins(const char *data, int64_t length) {
    int64_t size;
    const char *end = data + length, *c = read_digits(data, end, &size);
    if (c == end) return 1;
    if (c == data || !size || *c != '\r') return 0;
    return end - c < 2 || (c[1] == '\n' && end - c - 2 < size + 2);
}

/* Read a line with the size of a chunk. Returns the size, or 0 for what is not plainly one. */
static int64_t read_size(const char **at, const char *end) {
    int64_t size;
    const char *c = read_digits(*at, end, &size);
    if (end - c < 2 || c[0] != '\r' || c[1] != '\n' || end - c - 2 < size + 2) return 0;
    *at = c + 2;
    return (*at)[size] == '\r' && (*at)[size + 1] == '\n' ? size : 0;
}

static char *put(char *out, const char *from, int64_t size) {
    memcpy(out, from, (size_t)size);
    return out + size;
}

/* Frame `size` bytes that stand FRAMING bytes behind `out` as one chunk at `out`. Returns its size. */
static int64_t frame(char *out, int64_t size) {
    char digits[FRAMING];
    int64_t count = 0;
    for (int64_t left = size; left; left >>= 4) digits[count++] = "0123456789abcdef"[left & 15];
    memmove(out + count + 2, out + FRAMING, (size_t)size);
    for (int64_t i = 0; i < count; i++) out[i] = digits[count - 1 - i];
    memcpy(out + count, "\r\n", 2);
    memcpy(out + count + 2 + size, "\r\n", 2);
    return count + 2 + size + 2;
}

/* Read the events at the beginning of a block that repeat the template. `out` gets what is kept of them with
 * `strip`. Returns where they end; `last` and `deltas` are of them. */
static const char *read_events(const Template *t, const char *at, const char *end, int watch, char **out,
                               Event *last, int64_t *deltas) {
    Event event;
    while (at < end && read_event(t, at, end, watch, &event)) {
        *deltas += event.close > event.text;
        if (t->strip) {
            *out = put(*out, at, event.close + t->rest_size - at);
            *out = put(*out, event.end - t->closing_size, t->closing_size);
        }
        at = event.end;
        *last = event;
    }
    return at;
}

/* Keep the end of the latest text that is not empty. */
static void note_text(Template *t, const Event *last) {
    int64_t size = last->close - last->text;
    if (!size) return;
    if (size > TEXT) size = TEXT;
    memcpy(t->text, last->close - size, (size_t)size);
    t->text_size = size;
}

static void note(Template *t, const Event *last, int64_t deltas) {
    t->deltas += deltas;
    if (t->watch) note_text(t, last);
    if (t->inner < 0) return;
    const char *count = last->numbers - 1;
    t->count_size = last->end - t->closing_size - count;
    memcpy(t->count, count, (size_t)t->count_size);
}

/* Read the events at the beginning of a block that repeat the template. With `strip`, `out` gets what is kept
 * of them, for which it needs the size of the block.
 *
 * Returns how many bytes are passed on; `used` tells how many were read. */
EXPORT int64_t thinkmeter_block(Template *t, const char *data, int64_t size, char *out) {
    Event last;
    int64_t deltas = 0;
    char *to = out;
    t->used = read_events(t, data, data + size, 0, &to, &last, &deltas) - data;
    if (t->used) note(t, &last, deltas);
    return t->strip ? to - out : t->used;
}

/* Read whole chunks of whole events that repeat the template. With `strip`, `out` gets one chunk of what is
 * kept of them, for which it needs the size of the input and FRAMING bytes. Otherwise they are passed on as
 * they came.
 *
 * Returns how many bytes are passed on; negative if a part of the input is left, 0 if all of it is. */
EXPORT int64_t thinkmeter_events(Template *t, const char *data, int64_t size, char *out) {
    const char *end = data + size, *used = data;
    char *kept = out + FRAMING;
    while (used < end) {
        const char *at = used;
        const int64_t length = read_size(&at, end);
        if (!length) break;
        const char *chunk_end = at + length;
        char *to = kept;
        int64_t deltas = 0;
        Event last;
        if (read_events(t, at, chunk_end, t->watch != 0, &to, &last, &deltas) < chunk_end) break;
        kept = to;
        note(t, &last, deltas);
        used = chunk_end + 2;
    }
    t->used = used - data;
    if (!t->used) return 0;
    const int64_t passed = t->strip ? frame(out, kept - out - FRAMING) : t->used;
    return used == end ? passed : -passed;
}

/* Read whole chunks. `out` gets what is in them, for which it needs the size of the input. Returns its size;
 * `used` tells how many bytes were read, up to the first chunk that is not whole or not plain. */
EXPORT int64_t thinkmeter_chunks(const char *data, int64_t size, char *out, int64_t *used) {
    const char *end = data + size, *next = data;
    char *to = out;
    while (next < end) {
        const char *chunk = next;
        const int64_t length = read_size(&chunk, end);
        if (!length) break;
        to = put(to, chunk, length);
        next = chunk + length + 2;
    }
    *used = next - data;
    return to - out;
}
