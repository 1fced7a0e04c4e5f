"""A process that cannot be looked at to the end, because of a file system whose server does not answer.

    unseen.py DIRECTORY memory|name

Mounts a file system at the directory and prints the number of a process that waits, and that

- memory: has its memory locked: another reads it where the file system's file is, and one more waits to change something about it;
- name: works in a directory whose name looks like that of one that is deleted, and whoever looks it up waits.

To be run in a mount namespace of its own. All of it ends with the input.
"""

import ctypes
import os
import signal
import struct
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "clients"))
import foreign

INNER = 3
NAME = "x (deleted)"

directory, manner = sys.argv[1:]
device = foreign.mounted(directory)
held = threading.Event()
is_over = threading.Event()
children = []


def child(act, *arguments):
    pid = os.fork()
    if pid:
        children.append(pid)
        return pid
    # The file system is there as long as anybody has this.
    os.close(device)
    try:
        act(*arguments)
    finally:
        os._exit(1)


def map_the_file(tell):
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    file = os.open(directory + "/file", os.O_RDONLY)
    at = libc.mmap(None, ctypes.c_size_t(4096), 1, 2, file, ctypes.c_long(0))
    os.write(tell, struct.pack("Q", at))
    time.sleep(600)


def read_memory(of, hear):
    at = struct.unpack("Q", os.read(hear, 8))[0]
    os.pread(os.open(f"/proc/{of}/mem", os.O_RDONLY), 1, at)


def change_memory(of, hear):
    os.read(hear, 1)
    os.write(os.open(f"/proc/{of}/clear_refs", os.O_WRONLY), b"1")


def work_in(name, tell):
    os.chdir(f"{directory}/{name}")
    os.write(tell, b".")
    time.sleep(600)


def body(opcode, node):
    if manner == "memory":
        return plain(opcode, node)
    attributes = struct.pack("6Q10I", INNER, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 1, 0, 0, 0, 4096, 0)
    if opcode == foreign.LOOKUP:
        return struct.pack("QQQQII", INNER, 0, 0, 3600, 0, 0) + attributes
    if opcode == foreign.GETATTR and node == INNER:
        return struct.pack("QII", 3600, 0, 0) + attributes
    return plain(opcode, node)


def keeps(opcode, _):
    kept = opcode == foreign.READ or opcode == foreign.LOOKUP and is_over.is_set()
    if kept:
        held.set()
    return kept


plain, foreign.body = foreign.body, body
sys_stdout, sys.stdout = sys.stdout, open(os.devnull, "w")
tell, hear = os.pipe(), os.pipe()
go = os.pipe()
if manner == "memory":
    seen = child(map_the_file, tell[1])
    child(read_memory, seen, hear[0])
    changing = child(change_memory, seen, go[0])
else:
    seen = child(work_in, NAME, tell[1])
threading.Thread(target=foreign.serve, args=(device, keeps), daemon=True).start()
said = os.read(tell[0], 8)
is_over.set()
if manner == "memory":
    os.write(hear[1], said)
    held.wait()
    os.write(go[1], b".")
    while f") D " not in open(f"/proc/{changing}/stat").read():
        time.sleep(0.01)
print(seen, file=sys_stdout, flush=True)
sys.stdin.read()
for pid in children:
    os.kill(pid, signal.SIGKILL)
os._exit(0)
