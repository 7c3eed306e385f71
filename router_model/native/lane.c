/* Passes streams on from socket to socket, as long as their events repeat a template. The caller takes back a
 * stream with anything else in it: other events, an end, an error, or a client that does not read. Nothing is
 * kept of a stream but the beginning of a chunk whose rest has not arrived.
 *
 * Sockets and memory belong to the caller. The layout here and in gateway/upstream/lane.py is the same.
 */
#ifdef __linux__
#define _GNU_SOURCE
#include "events.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

enum {
    BLOCK = 1 << 16, /* bytes that are read of a stream at once */
    BEGINNING = 1024, /* bytes of an incomplete chunk at most */
    BATCH = 16,      /* streams that the system names at once */
    TURN = 1 << 19,  /* bytes that are passed on in one turn of the event loop, and up to a batch more */
};

typedef struct {
    Template *events;
    int64_t from, to;       /* sockets of the backend and the client */
    double latest;          /* when something passed, in seconds of the monotonic clock */
    int64_t blocks;         /* that passed */
    const char *unsent, *rest; /* what the client has not taken, and what no event of it is; when it is taken back */
    int64_t unsent_size, rest_size;
    int64_t begun; /* bytes of `beginning` */
    char beginning[BEGINNING];
} Passage;

typedef struct {
    int64_t epoll;
    int64_t left; /* bytes of this turn */
    int64_t next, named; /* of the batch */
    char *block, *out;
    struct epoll_event batch[BATCH];
} Lane;

EXPORT const int64_t thinkmeter_lane_sizes[3] = {BLOCK, BEGINNING, sizeof(Passage)};

/* Edge-triggered, because the system then does not look at each stream again when it has been read. */
static int watch(const Lane *lane, Passage *p, int operation) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = p};
    return epoll_ctl((int)lane->epoll, operation, (int)p->from, &event);
}

/* Let a stream in. Returns 0, or -1 if it cannot be. */
EXPORT int64_t thinkmeter_lane_enter(Lane *lane, Passage *p) { return watch(lane, p, EPOLL_CTL_ADD); }

/* Take a stream out. */
EXPORT void thinkmeter_lane_leave(Lane *lane, Passage *p) {
    watch(lane, p, EPOLL_CTL_DEL);
    for (int64_t i = lane->next; i < lane->named; i++)
        if (lane->batch[i].data.ptr == p) lane->batch[i].data.ptr = NULL;
}

/* Send what passes. Returns whether the client has taken it. */
static int send_on(Passage *p, const char *data, int64_t size) {
    const ssize_t taken = send((int)p->to, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
    const int64_t sent = taken > 0 ? taken : 0;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    p->latest = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    p->unsent = data + sent;
    p->unsent_size = size - sent;
    return sent == size;
}

/* Pass on what has arrived of a stream. Returns whether it stays in the lane. */
static int pass(Lane *lane, Passage *p, uint32_t happened) {
    memcpy(lane->block, p->beginning, (size_t)p->begun);
    p->rest = lane->block;
    p->rest_size = p->begun;
    p->unsent_size = 0;
    if (happened & ~(uint32_t)EPOLLIN) return 0;
    const ssize_t got = recv((int)p->from, lane->block + p->begun, BLOCK, MSG_DONTWAIT);
    if (got <= 0) return got < 0 && (errno == EAGAIN || errno == EINTR);
    const int64_t size = p->begun + got;
    int64_t passed = thinkmeter_events(p->events, lane->block, size, lane->out);
    if (passed < 0) passed = -passed;
    lane->left -= got;
    p->begun = 0;
    p->rest = lane->block + p->events->used;
    p->rest_size = size - p->events->used;
    if (passed && !send_on(p, p->events->strip ? lane->out : lane->block, passed)) return 0;
    if (p->rest_size > BEGINNING || (p->rest_size && !thinkmeter_begins(p->rest, p->rest_size)))
        return 0;
    memcpy(p->beginning, p->rest, (size_t)p->rest_size);
    p->begun = p->rest_size;
    p->blocks++;
    return got < BLOCK || watch(lane, p, EPOLL_CTL_MOD) == 0; /* which names it again, after the others */
}

/* Pass on what has arrived, at most for a turn. Returns a stream that the caller must take out, and then call
 * again; NULL if there is none. */
EXPORT Passage *thinkmeter_lane_step(Lane *lane) {
    for (;;) {
        while (lane->next < lane->named) {
            const struct epoll_event *event = &lane->batch[lane->next++];
            Passage *p = event->data.ptr;
            if (p && !pass(lane, p, event->events)) return p;
        }
        if (lane->left <= 0) return NULL;
        lane->left -= BLOCK / 16; /* a turn has an end too if each stream brings little */
        const int named = epoll_wait((int)lane->epoll, lane->batch, BATCH, 0);
        lane->next = 0;
        lane->named = named > 0 ? named : 0;
        if (named <= 0) return NULL;
    }
}
#endif
