"""Keeps a directory busy: lists it into memory whose page nobody gives (userfaultfd(2)), until its input ends.

    busy.py DIRECTORY

Prints `busy` when the kernel waits for the page, and so has the directory locked.
"""

import ctypes
import fcntl
import os
import select
import struct
import sys
import threading

NUMBERS = {"x86_64": (323, 217), "aarch64": (282, 61)}  # userfaultfd, getdents64
USERFAULTFD, GETDENTS64 = NUMBERS[os.uname().machine]
UFFDIO_API, UFFDIO_REGISTER, MISSING = 0xC018AA3F, 0xC020AA00, 1
PAGE = os.sysconf("SC_PAGESIZE")

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
faults = libc.syscall(USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
if faults < 0:
    sys.exit("no userfaultfd")
fcntl.ioctl(faults, UFFDIO_API, struct.pack("QQQ", 0xAA, 0, 0))
# Readable and writable, private and anonymous.
page = libc.mmap(None, ctypes.c_size_t(PAGE), 3, 0x22, -1, ctypes.c_long(0))
fcntl.ioctl(faults, UFFDIO_REGISTER, struct.pack("QQQQ", page, PAGE, MISSING, 0))
directory = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
arguments = (GETDENTS64, directory, ctypes.c_void_p(page), ctypes.c_size_t(PAGE))
threading.Thread(target=libc.syscall, args=arguments, daemon=True).start()
select.select([faults], [], [])
print("busy", flush=True)
sys.stdin.read()
os._exit(0)
