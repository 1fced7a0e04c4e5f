"""A file system of somebody's own, with one file of a page. Whoever uses it waits as long as its server likes."""

import ctypes
import os
import struct

LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 18, 25, 26
INTERRUPT, BATCH_FORGET = 36, 42
ENOSYS = 38
ROOT, FILE = 1, 2
PAGE = 4096


def attributes(node):
    mode, size = (0o40755, 0) if node == ROOT else (0o100644, PAGE)
    return struct.pack("6Q10I", node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, PAGE, 0)


def body(opcode, node):
    if opcode == INIT:
        return struct.pack("IIIIHHIIHH8I", 7, 31, 0, 0, 16, 12, PAGE, 1, 1, 0, *[0] * 8)
    if opcode == LOOKUP:
        return struct.pack("QQQQII", FILE, 0, 3600, 3600, 0, 0) + attributes(FILE)
    if opcode == GETATTR:
        return struct.pack("QII", 3600, 0, 0) + attributes(node)
    if opcode == OPEN:
        return struct.pack("QII", 0, 0, 0)
    if opcode == READ:
        return bytes(PAGE)
    return b"" if opcode in (RELEASE, FLUSH) else None


def mounted(directory):
    """The device of a file system that is mounted at a directory."""
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"foreign", directory.encode(), b"fuse.foreign", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), "no mount")
    return device


def serve(device, keeps):
    """Answers all but what `keeps(opcode, task)` is true for."""
    while True:
        try:
            request = os.read(device, 1 << 17)
        except OSError:
            # It is mounted no more.
            return
        _, opcode, unique, node, _, _, task, _ = struct.unpack_from("IIQQIIII", request)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            continue
        if keeps(opcode, task):
            print("held", flush=True)
            continue
        found = body(opcode, node)
        error = -ENOSYS if found is None else 0
        os.write(device, struct.pack("IiQ", 16 + len(found or b""), error, unique) + (found or b""))
