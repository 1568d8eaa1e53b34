"""Encryption between the pool and its server, told alike to every driver."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from db.errors import DatabaseUnavailable
from db.settings import DatabaseSettings
from db.urls import engine_family


def tls_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the arguments of the driver's ``connect`` for ``DATABASE_TLS``; SQLite has no network and needs none.

    Raises:
        DatabaseUnavailable: a file with a certificate or key cannot be read, or holds none.
    """
    family = engine_family(settings.url)
    if settings.database_tls is None or family == "sqlite":
        return {}
    if settings.database_tls == "disable":
        return {"ssl": False if family == "postgresql" else None}
    return {"ssl": _context(settings)}


def requires_tls(settings: DatabaseSettings) -> bool:
    """Whether a connection without encryption must be refused."""
    return settings.database_tls not in {None, "disable"}


def _context(settings: DatabaseSettings) -> ssl.SSLContext:
    with _named("DATABASE_TLS_CA", settings.database_tls_ca):
        context = ssl.create_default_context(cafile=settings.database_tls_ca)
    context.check_hostname = settings.database_tls == "verify-full"
    if settings.database_tls == "require":
        context.verify_mode = ssl.CERT_NONE
    if settings.database_tls_cert is not None:
        with _named("DATABASE_TLS_CERT", settings.database_tls_cert):
            context.load_cert_chain(settings.database_tls_cert, settings.database_tls_key)
    return context


@contextmanager
def _named(setting: str, file: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # ssl.SSLError is one
        cause = error.strerror or str(error)
        raise DatabaseUnavailable(
            f"{setting} {file}: no certificate can be read ({cause}); correct the path"
        ) from error
