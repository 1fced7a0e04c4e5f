"""Becomes a program that finds what Linux has before 6.5: no descriptors of processes from sockets.

    before-6.5.py PROGRAM [ARGUMENT...]
"""

import ctypes
import os
import struct
import sys

# getsockopt(2) and setsockopt(2), by the machine's numbers.
GETSOCKOPT, SETSOCKOPT = {"x86_64": (55, 54), "aarch64": (209, 208)}[os.uname().machine]
SO_PASSPIDFD, SO_PEERPIDFD, ENOPROTOOPT = 76, 77, 92
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER, OPTION = 0, 32
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | ENOPROTOOPT

PROGRAM = [
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 1, 0, GETSOCKOPT),
    (EQUAL, 2, 4, SETSOCKOPT),
    (LOAD, 0, 0, OPTION),
    (EQUAL, 3, 2, SO_PEERPIDFD),
    (LOAD, 0, 0, OPTION),
    (EQUAL, 1, 0, SO_PASSPIDFD),
    (RETURN, 0, 0, ALLOW),
    (RETURN, 0, 0, REFUSE),
]

code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in PROGRAM))
program = struct.pack("HxxxxxxP", len(PROGRAM), ctypes.addressof(code))
PR_SET_SECCOMP, MODE_FILTER = 22, 2
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_SECCOMP, MODE_FILTER, program, 0, 0) != 0:
    sys.exit("no filter")
os.execvp(sys.argv[1], sys.argv[1:])
