"""A certificate for servers of the tests, made with `openssl`."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.servers.binaries import OPENSSL, find_server

ALTERNATIVE_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Certificate:
    """One that vouches for itself: servers show it, and clients trust it as their CA's."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        """Makes it in a folder; it is for 127.0.0.1 and valid for two days.

        Raises:
            MissingBinaryError: when `openssl` is not on this machine.
        """
        made = cls(folder)
        words = [str(find_server(*OPENSSL)), "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        words += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-addext", ALTERNATIVE_NAMES]
        words += ["-keyout", str(made.key), "-out", str(made.certificate)]
        subprocess.run(words, check=True, capture_output=True)
        return made

    @property
    def certificate(self) -> Path:
        """The file with the certificate."""
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        """The file with its key."""
        return self.folder / "key.pem"
