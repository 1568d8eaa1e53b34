"""Time is Redis's and the database's, never a worker's: clocks of machines differ, and jump."""

import ast
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
WALL_CLOCKS = {("datetime", "now"), ("datetime", "utcnow"), ("time", "time"), ("time", "time_ns"), ("date", "today")}
MAY_READ = {
    "worker/cli/enqueue.py": "a command's --in is reckoned where it is typed",
    "worker/embedded/front.py": "the embedded queue is its own Redis",
    "worker/ends.py": "a result tells when it was written, which decides nothing",
    "worker/queue/execution.py": "results, durations and the log, which decide nothing",
}


def reads_wall_clock(file: Path) -> bool:
    calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    named = [
        (call.value.id, call.attr)
        for call in calls
        if isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name)
    ]
    return any(name in WALL_CLOCKS for name in named)


def test_no_worker_decides_by_its_own_clock() -> None:
    files = (CHECKOUT / "worker").rglob("*.py")
    assert {file.relative_to(CHECKOUT).as_posix() for file in files if reads_wall_clock(file)} == set(MAY_READ)
