"""Holds whoever opens a file: fanotify(7), by permission events.

    gate.py FILE COUNT

Prints `ready`. Lets the file be opened COUNT times, then prints `held` and lets whoever opens it next wait for a line of
input. From then on it lets everybody pass, until its input ends.
"""

import ctypes
import os
import select
import struct
import sys

FAN_CLOEXEC, FAN_CLASS_CONTENT, FAN_MARK_ADD, FAN_OPEN_PERM, FAN_ALLOW, AT_FDCWD = 1, 4, 1, 0x10000, 1, -100
EVENT = struct.Struct("IBBHQii")

libc = ctypes.CDLL(None, use_errno=True)
gate = libc.fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, os.O_RDONLY | os.O_CLOEXEC)
mask, path = ctypes.c_uint64(FAN_OPEN_PERM), sys.argv[1].encode()
if gate < 0 or libc.fanotify_mark(gate, FAN_MARK_ADD, mask, AT_FDCWD, path) != 0:
    sys.exit("no fanotify")
left = int(sys.argv[2])
print("ready", flush=True)
while True:
    come, _, _ = select.select([gate, sys.stdin], [], [])
    if sys.stdin in come:
        break
    events = os.read(gate, 4096)
    for at in range(0, len(events), EVENT.size):
        fd = EVENT.unpack_from(events, at)[5]
        if left == 0:
            print("held", flush=True)
            sys.stdin.readline()
        left -= 1
        os.write(gate, struct.pack("iI", fd, FAN_ALLOW))
        os.close(fd)
