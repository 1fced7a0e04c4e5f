"""A process that executes a program and does not get there: it has a file of somebody's own open, which does not close.

    executing.py DIRECTORY

Mounts at the directory. Prints the number of a process and of an eventfd that it has; then `held`, when that process executes
a program, which it does until the input ends. To be run in a mount namespace of its own.
"""

import os
import sys
import threading

sys.dont_write_bytecode = True
import foreign

directory = sys.argv[1]
device = foreign.mounted(directory)
process = os.fork()
if process == 0:
    ear = os.eventfd(0, 0)
    os.open(directory + "/file", os.O_RDONLY)
    print(os.getpid(), ear, flush=True)
    os.execv("/bin/true", ["true"])
serving = threading.Thread(
    target=foreign.serve, args=(device, lambda opcode, task: opcode == foreign.FLUSH), daemon=True
)
serving.start()
sys.stdin.read()
os._exit(0)
