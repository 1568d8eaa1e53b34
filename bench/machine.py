"""What a measure ran on."""

import os
import platform
import re
from pathlib import Path


def describe_machine(postgres_version: str) -> str:
    """Return one line: processor, number of processors, system, versions."""
    python = platform.python_version()
    return (
        f"{_processor()}, {os.cpu_count()} processors, {platform.system()} {platform.release()}; "
        f"Python {python}, PostgreSQL {postgres_version} (fsync on)"
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")  # Linux; platform.processor() is mostly empty there
    found = re.search(r"^model name\s*: (.+)$", information.read_text(), re.MULTILINE) if information.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
