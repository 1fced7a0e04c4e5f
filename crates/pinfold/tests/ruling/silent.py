"""A file system (FUSE) with one program in it, which at some time answers nobody any more.

    silent.py DIRECTORY PROGRAM

Mounts itself at DIRECTORY with a copy of PROGRAM as `silent`, of which the kernel remembers nothing, and prints `ready`. On a line of input
it prints `silent`: whoever asks from then on waits, and cannot be killed, until its input ends and it with it.
"""

import ctypes
import os
import select
import struct
import sys

LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, OPENDIR, INTERRUPT, BATCH_FORGET = (
    1, 2, 3, 14, 15, 18, 25, 26, 27, 36, 42)
ENOENT, ENOSYS = 2, 38
ROOT, FILE = 1, 2
IN = struct.Struct("IIQQIIII")  # fuse_in_header
OUT = struct.Struct("IiQ")  # fuse_out_header
ATTR = struct.Struct("QQQQQQIIIIIIIIII")  # fuse_attr

directory = sys.argv[1]
with open(sys.argv[2], "rb") as program:
    content = program.read()
device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"silent", directory.encode(), b"fuse", 0, options.encode()) != 0:
    sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")


def attributes(node):
    mode, size = (0o40755, 0) if node == ROOT else (0o100755, len(content))
    return ATTR.pack(node, size, (size + 511) // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer_to(opcode, node, body):
    """The error and what follows it; None: nobody waits for an answer."""
    if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
        return None
    if opcode == INIT:
        major, minor = struct.unpack_from("II", body)
        return 0, struct.pack("IIIIHHIIHHI28x", major, minor, 65536, 0, 16, 12, 65536, 1, 0, 0, 0)
    if opcode == LOOKUP:
        if body.rstrip(b"\0") != b"silent":
            return ENOENT, b""
        return 0, struct.pack("QQQQII", FILE, 0, 0, 0, 0, 0) + attributes(FILE)
    if opcode == GETATTR:
        return 0, struct.pack("QII", 0, 0, 0) + attributes(node)
    if opcode in (OPEN, OPENDIR):
        return 0, struct.pack("QII", 0, 0, 0)
    if opcode == READ:
        _, offset, size = struct.unpack_from("QQI", body)
        return 0, content[offset : offset + size]
    if opcode in (RELEASE, FLUSH):
        return 0, b""
    return ENOSYS, b""


is_silent = False
print("ready", flush=True)
while True:
    come, _, _ = select.select([device, sys.stdin], [], [])
    if sys.stdin in come:
        if not sys.stdin.readline():
            break
        is_silent = True
        print("silent", flush=True)
    if device in come:
        try:
            request = os.read(device, 1 << 20)
        except OSError:
            break  # unmounted
        _, opcode, unique, node, *_ = IN.unpack_from(request)
        answer = None if is_silent else answer_to(opcode, node, request[IN.size :])
        if answer is not None:
            error, rest = answer
            os.write(device, OUT.pack(OUT.size + len(rest), -error, unique) + rest)
