/* Frames on a byte stream: 4 bytes length (big-endian, of what follows it), 1 byte kind, payload.
 *
 * A message larger than PH_FRAGMENT travels as several data frames, all but the last with
 * PH_FRAME_MORE; control frames may come between them. The splitter keeps at most one frame and
 * one message under assembly, and grows with the bytes received. Whole frames are handed out
 * straight from the bytes fed; only what is incomplete is copied. */
#ifndef PH_WIRE_FRAME_H
#define PH_WIRE_FRAME_H

#include "base/buf.h"

enum { PH_FRAME_CONTROL = 0, PH_FRAME_DATA = 1, PH_FRAME_MORE = 0x80 };
enum { PH_FRAME_HEADER = 5, PH_FRAGMENT = 64 * 1024 }; /* PH_FRAGMENT: payload bytes */

/* appends one frame, or nothing when it fails; kind may carry PH_FRAME_MORE */
int ph_frame_write(ph_buf *out, int kind, const void *p, size_t n) PH_MUST_CHECK;

typedef struct ph_splitter {
  ph_buf in;          /* bytes not yet split */
  ph_buf message;     /* a fragmented data message under assembly */
  size_t fragments;   /* bytes on the wire of its fragments so far; 0: no message under assembly */
  size_t max_frame;   /* largest payload of one frame */
  size_t max_message; /* largest assembled message */
} ph_splitter;

void ph_splitter_init(ph_splitter *s, const ph_env *env, size_t max_frame, size_t max_message);
void ph_splitter_deinit(ph_splitter *s);
/* Feeds received bytes. For each whole control frame and each whole data message calls
 * on_message(ctx, kind, payload, n); a negative result of it stops and is returned. `kind` is
 * PH_FRAME_CONTROL or PH_FRAME_DATA. on_message must not free the splitter: it returns a negative
 * code to have its caller do that. Errors: PH_EMALFORMED (unknown kind, length 0, a control
 * frame or an empty one with PH_FRAME_MORE), PH_ETOOLARGE, PH_ENOMEM; after any of them the stream
 * is lost. The limits may be changed between two calls. `wire_bytes` passed to on_message counts
 * the header and fragments that the message took on the wire. */
typedef int (*ph_on_message)(void *ctx, int kind, const uint8_t *p, size_t n, size_t wire_bytes);
int ph_splitter_feed(ph_splitter *s, const void *p, size_t n, ph_on_message fn,
                     void *ctx) PH_MUST_CHECK;

#endif
