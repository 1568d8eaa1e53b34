"""A certificate for servers of the tests, made with `openssl`."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.servers.binaries import OPENSSL, find_server


@dataclass(frozen=True)
class Certificate:
    """One that vouches for itself: servers show it, and clients trust it as their CA's."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, *, names: str = "DNS:localhost,IP:127.0.0.1") -> Self:
        """Makes it in a folder; it is valid for two days.

        Args:
            folder: exists.
            names: of the hosts that it is for.

        Raises:
            MissingBinaryError: when `openssl` is not on this machine.
        """
        made = cls(folder)
        words = [str(find_server(*OPENSSL)), "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        words += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-addext", f"subjectAltName={names}"]
        words += ["-keyout", str(made.key), "-out", str(made.certificate)]
        subprocess.run(words, check=True, capture_output=True)
        return made

    def copied_to(self, folder: Path, account: pwd.struct_passwd | None) -> Self:
        """Returns a copy in a server's folder, where the server's user can read the key and no other can."""
        copy = type(self)(folder)
        for source, target in ((self.certificate, copy.certificate), (self.key, copy.key)):
            shutil.copy(source, target)
            target.chmod(0o600)
            if account is not None:
                os.chown(target, account.pw_uid, account.pw_gid)
        return copy

    @property
    def certificate(self) -> Path:
        """The file with the certificate."""
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        """The file with its key."""
        return self.folder / "key.pem"
