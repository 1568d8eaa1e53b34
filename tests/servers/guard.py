"""Starts one command and kills it, with all that it started, when the process that asked for it is gone.

`Server` runs this file as a program of its own and keeps the write end of its standard input. The kernel closes that
end however the test process dies, `kill -9` included. Linux's parent-death signal is no alternative: a change of the
user clears it, the end of the starting *thread* fires it, and macOS has none.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path


def signal_tree(pid: int, number: signal.Signals) -> None:
    """Sends a signal to a process and all its descendants; those that are gone already are passed over.

    PostgreSQL's backends are process groups of their own, so a signal to the group would miss them.
    """
    with contextlib.suppress(ProcessLookupError):
        if number is not signal.SIGCONT:
            os.kill(pid, signal.SIGSTOP)  # it starts nothing more while its children are counted
        family = [pid, *_descendants(pid)]
        for member in reversed(family):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, number)


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for child, parent in _process_table():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    pending = [pid]
    while pending:
        born = children.get(pending.pop(), [])
        found.extend(born)
        pending.extend(born)
    return found


def _process_table() -> list[tuple[int, int]]:
    """Process id and parent's id of every process; macOS has `ps` always, Linux has `/proc` always."""
    if not Path("/proc/self/stat").exists():
        listing = subprocess.run(["ps", "-A", "-o", "pid=", "-o", "ppid="], capture_output=True, text=True, check=True)
        return [(int(pid), int(parent)) for pid, parent in map(str.split, listing.stdout.splitlines())]
    table = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in brackets may hold spaces and brackets itself.
            table.append((int(stat.parent.name), int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])))
    return table


def main() -> int:
    """Runs the command that the first argument describes; prints its process id; returns its exit code.

    The argument is JSON: `command` (a list), `folder` (where it runs; removed when the asking process is gone),
    `user` and `group` (ids to run as, or null). Output of the command goes to this program's standard error.
    """
    spec = json.loads(sys.argv[1])
    groups: list[int] | None = None if spec["user"] is None else []
    process = subprocess.Popen(
        spec["command"],
        cwd=spec["folder"],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        user=spec["user"],
        group=spec["group"],
        extra_groups=groups,
    )
    abandoned = threading.Event()

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)
        abandoned.set()
        signal_tree(process.pid, signal.SIGKILL)

    print(process.pid, flush=True)
    threading.Thread(target=watch, daemon=True).start()
    code = process.wait()
    if abandoned.is_set():
        shutil.rmtree(spec["folder"], ignore_errors=True)
    return abs(code)


if __name__ == "__main__":
    sys.exit(main())
