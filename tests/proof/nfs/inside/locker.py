"""A program that locks one file as it is told: a command of JSON a line on standard input, an answer a line on standard output.

`locker.py FILE`; {"do": "try" | "wait" | "unlock" | "read", "start": 0, "length": 10, "seconds": 60}
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import sys
import time


def interrupted(*_: object) -> None:
    raise InterruptedError(errno.EINTR, "too long")


def obey(file: int, command: dict[str, object]) -> str:
    start, length = int(str(command.get("start", 0))), int(str(command.get("length", 0)))
    if command["do"] == "read":
        return os.pread(file, length, start).decode()
    if command["do"] == "unlock":
        fcntl.lockf(file, fcntl.LOCK_UN, length, start)
        return ""
    signal.alarm(int(str(command.get("seconds", 120))))
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if command["do"] == "try" else 0), length, start)
    finally:
        signal.alarm(0)
    return ""


def main() -> None:
    signal.signal(signal.SIGALRM, interrupted)
    file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o666)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        began = time.monotonic()
        try:
            answer = {"errno": 0, "text": obey(file, json.loads(line))}
        except OSError as error:
            answer = {"errno": error.errno or 0, "text": str(error)}
        print(json.dumps({**answer, "seconds": round(time.monotonic() - began, 2)}), flush=True)


if __name__ == "__main__":
    main()
