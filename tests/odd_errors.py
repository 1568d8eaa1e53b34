"""What jobs may raise, and few expect."""


class Panic(BaseException):
    """As a library in Rust raises it (pyo3)."""


class UnspeakableError(Exception):
    """Cannot be written down."""

    def __str__(self) -> str:
        raise RuntimeError("no words")
