/* The template of events, and how it is read. The layout here and in gateway/openai_api/compiled_events.py is
 * the same.
 */
#ifndef THINKMETER_EVENTS
#define THINKMETER_EVENTS

#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    COUNT = 192, /* bytes of a running count at most */
    TEXT = 64,   /* bytes that are kept of the latest text */
};

typedef struct {
    const char *prefix, *middle, *tail; /* around the text and the running count */
    int64_t prefix_size, middle_size, tail_size;
    int64_t rest_size;    /* of the middle, up to the comma in front of the count */
    int64_t closing_size; /* of the tail, what follows the count */
    int64_t inner;        /* objects inside the count; -1 for events without one */
    int64_t strip;        /* remove the count */
    int64_t watch;        /* past the reader, take no text that may hold the mark of a thought, and keep it */
    int64_t used;         /* bytes of the input that the latest call took */
    int64_t deltas;       /* events with a text, until the caller sets it to 0 */
    int64_t count_size;   /* of the latest running count, until the caller sets it to 0 */
    int64_t text_size;    /* of the latest text, until the caller sets it to 0 */
    char count[COUNT];
    char text[TEXT];
} Template;

int64_t thinkmeter_events(Template *t, const char *data, int64_t size, char *out);
int64_t thinkmeter_begins(const char *data, int64_t size);

#endif
