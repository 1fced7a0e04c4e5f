"""Keeps a directory busy: lists it into memory whose page comes from a file system of its own, which does not give it.

    busy.py DIRECTORY LISTED

Mounts at the first directory. Prints `held` when it is listing the other, which it does until the input ends. To be run in a
mount namespace of its own.
"""

import ctypes
import mmap
import os
import sys
import threading

sys.dont_write_bytecode = True
import foreign

directory, listed = sys.argv[1:]
device = foreign.mounted(directory)
serving = threading.Thread(
    target=foreign.serve, args=(device, lambda opcode, task: opcode == foreign.READ), daemon=True
)
serving.start()
file = os.open(directory + "/file", os.O_RDONLY)
page = mmap.mmap(file, foreign.PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
busy = os.open(listed, os.O_RDONLY | os.O_DIRECTORY)
libc = ctypes.CDLL(None, use_errno=True)
listing = threading.Thread(
    target=lambda: libc.getdents64(busy, ctypes.c_void_p(address), ctypes.c_size_t(foreign.PAGE)), daemon=True
)
listing.start()
sys.stdin.read()
# The page is given up, and whoever waits for it goes on.
libc.umount2(directory.encode(), 1)
os._exit(0)
