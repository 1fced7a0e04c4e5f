"""A file system of somebody's own, of whose one file a descriptor is passed to the daemon, and whoever closes that waits.

    holding.py DIRECTORY SOCKET

Mounts at the directory, passes a descriptor with a call of Ping over the socket and closes its own. Prints `held` when
somebody else closes it: that one waits until the input ends. To be run in a mount namespace of its own.
"""

import array
import os
import socket
import struct
import sys
import threading

sys.dont_write_bytecode = True
import foreign


def is_somebody_elses(opcode, task):
    return opcode == foreign.FLUSH and str(task) not in os.listdir("/proc/self/task")


def ping():
    fields = b""
    for code, kind, value in [(1, b"o", b"/"), (2, b"s", b"org.freedesktop.DBus.Peer"), (3, b"s", b"Ping")]:
        fields += b"\0" * (-len(fields) % 8) + struct.pack("BB", code, 1) + kind + b"\0"
        fields += struct.pack("<I", len(value)) + value + b"\0"
    fields += b"\0" * (-len(fields) % 8) + struct.pack("BB", 9, 1) + b"u\0" + struct.pack("<I", 1)
    header = struct.pack("<cBBBIII", b"l", 1, 0, 1, 0, 1, len(fields)) + fields
    return header + b"\0" * (-len(header) % 8)


directory = sys.argv[1]
device = foreign.mounted(directory)
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[2])
line.sendall(b"\0AUTH EXTERNAL 30\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n")
said = b""
while not said.endswith(b"AGREE_UNIX_FD\r\n"):
    said += line.recv(1)
serving = threading.Thread(target=foreign.serve, args=(device, is_somebody_elses), daemon=True)
serving.start()
passed = os.open(directory + "/file", os.O_RDONLY)
line.sendmsg([ping()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [passed]))])
os.close(passed)
sys.stdin.read()
os._exit(0)
