"""Files to import."""

from pathlib import Path


def write(folder: Path, content: str | bytes, name: str = "tasks.csv") -> Path:
    """Writes a file, text as UTF-8 with its line ends as they are; returns its path."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
