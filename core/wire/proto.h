/* Numbers of the protocol's messages. Every message is a msgpack array [type, fields...].
 *
 * Numbers are never used again; extra trailing fields are ignored; unknown types are skipped and
 * counted; new meaning needs a feature bit. */
#ifndef PH_WIRE_PROTO_H
#define PH_WIRE_PROTO_H

enum { PH_PROTOCOL_MIN = 1, PH_PROTOCOL_MAX = 1 };

enum {
  /* control frames, between cluster machines (fields: see cluster/) */
  PH_M_HELLO = 1, /* the first of each side */
  PH_M_PROOF = 2,
  PH_M_WELCOME = 3,
  PH_M_REJECT = 4,
  PH_M_HEARTBEAT = 5,
  /* 6 was used */
  PH_M_GRANT = 7,
  PH_M_LEAVE = 8,
  PH_M_PROBE = 9,
  PH_M_PROBE_ACK = 10,
  PH_M_DISCONNECT = 11,
  PH_M_STATE = 12,
  PH_M_SUMMARY = 13,
  PH_M_RELAY = 14,

  /* data frames, between process systems: [type, ...] */
  PH_M_SEND = 32,       /* serial, class, value...           to a process */
  PH_M_SEND_NAMED = 33, /* name, class, value...             to a registered name */
  PH_M_CALL = 34,       /* dest serial|name, class, from pid (serial 0: nobody in particular), ref
                           counter, value...   with an implied monitor */
  PH_M_REPLY = 35,      /* ref counter, value...             ends the implied monitor */
  PH_M_MONITOR = 36,    /* dest serial|name, watcher serial, ref counter */
  PH_M_DEMONITOR = 37,  /* ref counter                   also ends a CALL that nobody awaits */
  PH_M_DOWN = 38,       /* ref counter, reason..., serial of what ended (0: unknown)
                           answers MONITOR and CALL */
  PH_M_LINK = 39,       /* to serial, from serial */
  PH_M_UNLINK = 40,     /* to serial, from serial */
  PH_M_XOFF = 42, /* serial|name, on: the process's mailbox is over its mark, or has room again */
  PH_M_EXIT = 41, /* to serial, from serial, is_kill, reason...  an exit signal */

  /* data frames, between hubs: [type, hub id, ...] */
  PH_M_HUB_FIRST = 64,
  PH_M_HUB_LAST = 127
};

#endif
