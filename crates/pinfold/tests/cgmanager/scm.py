"""A client of cgmanager's calls by credentials: what its proxy does, one call at a time.

    scm.py SOCKET METHOD [ARGUMENT...] [OPTION=VALUE...]

Arguments as `i:7` are numbers, the others text. Options: `who=PID:UID:GID`, the credentials of who asks, and
`about=PID:UID:GID`, those of whom it is about (without these the kernel adds those of this process); `type=stream`, the kind of
socket; `fd=PATH`, a file or a Unix socket to connect to and pass instead; `do=...`, what to do instead of answering:
`stall`, `close`, `rubbish`. Prints the answer, or `error: ...` for a call that is refused at once. Exits with 0, or with 1
if the kernel does not let credentials pass.
"""

import array
import os
import select
import socket
import struct
import sys

ABOUT = {"GetPidCgroupScm", "GetPidCgroupAbsScm", "MovePidScm", "MovePidAbsScm", "ChownScm"}
TEXT = {"GetPidCgroupScm", "GetPidCgroupAbsScm", "GetValueScm"}
NAMES = {"ListChildrenScm", "ListKeysScm"}
TASKS = {"GetTasksScm", "GetTasksRecursiveScm"}
PATIENCE = 60


def connect(path):
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.settimeout(PATIENCE)
    line.connect(path)
    line.sendall(b"\0AUTH EXTERNAL 30\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n")
    said = b""
    while not said.endswith(b"AGREE_UNIX_FD\r\n"):
        said += line.recv(1)
    return line


def align(data, to):
    return data + b"\0" * (-len(data) % to)


def text(data, value):
    value = value.encode()
    return align(data, 4) + struct.pack("<I", len(value)) + value + b"\0"


def message(method, arguments):
    """A method call with these arguments and one descriptor."""
    body, signature = b"", ""
    for argument in arguments:
        if argument.startswith("i:"):
            body, signature = align(body, 4) + struct.pack("<i", int(argument[2:])), signature + "i"
        else:
            body, signature = text(body, argument), signature + "s"
    body, signature = align(body, 4) + struct.pack("<I", 0), signature + "h"
    fields = b""
    for code, kind, value in [
        (1, "o", "/org/linuxcontainers/cgmanager"),
        (2, "s", "org.linuxcontainers.cgmanager0_0"),
        (3, "s", method),
        (8, "g", signature),
        (9, "u", 1),
    ]:
        fields = align(fields, 8) + struct.pack("<BB", code, 1) + kind.encode() + b"\0"
        if kind == "u":
            fields = align(fields, 4) + struct.pack("<I", value)
        elif kind == "g":
            fields += struct.pack("<B", len(value)) + value.encode() + b"\0"
        else:
            fields = text(fields, value)
    header = struct.pack("<cBBBII", b"l", 1, 0, 1, len(body), 1) + struct.pack("<I", len(fields))
    return align(header + fields, 8) + body


def reply(line):
    """None for a return, the whole message for an error."""
    head = line.recv(16, socket.MSG_WAITALL)
    _, kind, _, _, body, _, fields = struct.unpack("<cBBBIII", head)
    rest = line.recv((fields + 7) // 8 * 8 + body, socket.MSG_WAITALL)
    return None if kind == 2 else rest


def send_credentials(end, option):
    ancillary = []
    if option:
        who = struct.pack("iII", *(int(number) for number in option.split(":")))
        ancillary = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, who)]
    try:
        end.sendmsg([b"p"], ancillary)
    except OSError as error:
        print("not sent:", error.strerror)
        sys.exit(1)


def number(end):
    return struct.unpack("i", end.recv(4))[0]


def tasks(end):
    count = number(end)
    found = []
    for _ in range(count):
        try:
            end.send(b"1")
        except BrokenPipeError:
            pass  # All that there is has been sent.
        _, ancillary, _, _ = end.recvmsg(1, 64)
        found.append(struct.unpack("iII", ancillary[0][2])[0])
    return "refused" if count < 0 else " ".join(str(task) for task in found)


def answer(end, method):
    if method in TEXT:
        said = end.recv(65536)
        return said[:-1].decode() if said else "refused"
    if method in TASKS:
        return tasks(end)
    if method in NAMES:
        count = number(end)
        if count <= 0:
            return "refused" if count < 0 else ""
        length = number(end)
        said = end.recv(length, socket.MSG_WAITALL).decode()
        if method == "ListChildrenScm":
            return " ".join(said.split("\0")[:-1])
        lines = said.splitlines()
        return "\n".join(" ".join(lines[at : at + 4]) for at in range(0, 4 * count, 4))
    return end.recv(1).decode()


def call(line, method, arguments, passed):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [passed]))]
    line.sendmsg([message(method, arguments)], rights)


def passed_instead(path):
    if path == "udp":
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.connect(path)
        return end
    except ConnectionRefusedError:
        return open(path)


def main():
    words = [word for word in sys.argv[3:] if "=" not in word or word.split("=")[0] not in OPTIONS]
    options = dict(word.split("=", 1) for word in sys.argv[3:] if word not in words)
    method = sys.argv[2]
    line = connect(sys.argv[1])
    if "fd" in options:
        end = passed_instead(options["fd"])
        call(line, method, words, end.fileno())
        refused = reply(line)
        if refused:
            print("error: " + refused.decode(errors="replace"))
            return
        # Calls are carried out one after the other: when the next one begins, this is over.
        next_end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        next_end.settimeout(PATIENCE)
        call(line, method, words, theirs.fileno())
        assert next_end.recv(1) == b"1"
        print("over")
        return
    kind = socket.SOCK_STREAM if options.get("type") == "stream" else socket.SOCK_DGRAM
    end, theirs = socket.socketpair(socket.AF_UNIX, kind)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    end.settimeout(PATIENCE)
    calls = int(options.get("calls", "1"))
    for _ in range(calls):
        call(line, method, words, theirs.fileno())
    if kind == socket.SOCK_STREAM:
        theirs.close()
    # As the proxy does: the answer to the call is not waited for.
    select.select([end, line], [], [], PATIENCE)
    refused = None if options.get("do") else reply(line)
    if refused:
        print("error: " + refused.decode(errors="replace"))
        return
    assert end.recv(1) == b"1"
    if options.get("do") == "stall":
        refusals = sum(reply(line) is not None for _ in range(calls))
        print("stalls", refusals, flush=True)
        sys.stdin.read()
        return
    if options.get("do") == "close":
        end.close()
        print("closed")
        return
    if options.get("do") == "rubbish":
        fds = array.array("i", [line.fileno()] * 20)
        end.sendmsg([b"rubbish" * 100], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        try:
            print("answered" if end.recv(1) else "over")
        except ConnectionResetError:
            print("over")
        return
    send_credentials(end, options.get("who"))
    if method in ABOUT:
        assert end.recv(1) == b"1"
        send_credentials(end, options.get("about"))
    print(answer(end, method))


OPTIONS = {"who", "about", "type", "fd", "do", "calls"}
main()
