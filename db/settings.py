"""How the database is reached. The environment (and ``.env``) is read here and in no other place of ``db``."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL

from db.urls import engine_family, has_usable_options, is_in_memory, normalise_url

Tls = Literal["disable", "require", "verify-ca", "verify-full"]


class DatabaseSettings(BaseSettings):
    """Settings of the connection pool; each name in capitals is the environment variable."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: SecretStr | None = None
    """``postgresql://``, ``mysql://``, ``mariadb://`` or ``sqlite://``; wins over ``POSTGRES_*``.
    Default: ``holdfast.db`` (SQLite) under ``HOLDFAST_DATA_DIR``, which serves one machine."""

    postgres_host: str | None = None
    """Makes a PostgreSQL URL together with the four below; for platforms that hand out the parts."""
    postgres_port: Annotated[int, Field(ge=1, le=65535)] = 5432
    postgres_user: str = "postgres"
    postgres_password: SecretStr | None = None
    postgres_db: str = "postgres"

    database_replica_url: SecretStr | None = None
    """A copy of the database that lags a little; ``get_async_session(read_only=True)`` reads there."""
    database_direct_url: SecretStr | None = None
    """The server itself, where ``DATABASE_URL`` names a pooler; migrations go there."""
    database_pooler: Literal["none", "transaction"] = "none"
    """``transaction``: PgBouncer in transaction mode, or its like, stands before PostgreSQL."""

    database_pool_size: Annotated[int, Field(ge=1, le=1000)] = 5
    """Connections kept open in each process. Fewer than ``MAX_JOBS`` means that jobs wait for one."""
    database_max_overflow: Annotated[int, Field(ge=0, le=1000)] = 10
    """Connections opened beyond the pool in a rush and closed after it; each costs a connect."""
    database_pool_timeout: Annotated[float, Field(gt=0)] = 30.0
    """Seconds to wait for a free connection before the job fails and is retried."""
    database_pool_recycle: Annotated[int, Field(ge=-1)] = 3600
    """Seconds after which a connection is replaced; keep it below the server's or a proxy's idle limit. -1: never."""
    database_deadline_s: Annotated[float, Field(gt=0)] = 20.0
    """Seconds after which Holdfast gives up one of its own short transactions on a database that does not answer, and
    tries again on another connection. What a job does has its kind's timeout. SQLite: has no meaning there."""
    database_statement_timeout_s: Annotated[float, Field(ge=0)] = 900.0
    """Seconds after which the server ends a statement, 0: never. MySQL: SELECT only. SQLite and migrations: never."""
    database_idle_transaction_timeout_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds after which the server ends a transaction whose client does nothing, 0: never. Not on MySQL and SQLite;
    on MySQL whoever takes a run over ends the session by its named lock."""
    database_slow_query_s: Annotated[float, Field(ge=0)] = 1.0
    """Seconds after which a statement is logged, with its duration and the run that asked. 0: none is."""

    database_tls: Tls | None = None
    """``require`` encrypts, ``verify-ca`` also asks for a certificate of ``DATABASE_TLS_CA`` and ``verify-full`` for
    one of this host. Unset: asyncpg encrypts where the server offers it, the other drivers do not."""
    database_tls_ca: Path | None = None
    """The file with the authorities' certificates; the system's without it."""
    database_tls_cert: Path | None = None
    """The file with a certificate to show to the server, for servers that ask for one."""
    database_tls_key: Path | None = None
    """The file with the key of that certificate; not needed where both stand in one file."""

    sql_echo: bool = False
    """Log every statement; slow, and parameters may hold personal data."""
    debug: bool = False
    """Tracebacks instead of one-line errors on the command line, and debug logs."""

    holdfast_data_dir: Path = Path("data")
    """Where the embedded database and queue, the spool and the reject files live; made with mode 0700."""
    holdfast_plugins: Annotated[tuple[str, ...], NoDecode] = ()
    """Modules on PYTHONPATH, separated by commas, that bring kinds, models and migrations of their own (``JOBS``,
    ``MODELS``, ``MIGRATIONS``)."""

    @field_validator("holdfast_plugins", mode="before")
    @classmethod
    def _split_plugins(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Not env_ignore_empty: with it an empty variable would let the value in .env through.
        return {name: value for name, value in values.items() if value != ""}

    @field_validator("database_url", "database_replica_url", "database_direct_url")
    @classmethod
    def _is_supported(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        url = normalise_url(value.get_secret_value())
        if not has_usable_options(url):
            # Which one is not said: behind a ? there may be the rest of a password.
            raise ValueError(
                f"has an option behind its ? that {url.get_driver_name()} does not know or cannot read: "
                "correct or remove it (special characters of the password are written as %3F and the like)"
            )
        return value

    @field_validator("database_replica_url", "database_direct_url")
    @classmethod
    def _is_of_the_same_engine(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        family = _family(info.data)
        if value and family and engine_family(normalise_url(value.get_secret_value())) != family:
            raise ValueError(f"must be of the same engine as DATABASE_URL ({family}): name the same database")
        return value

    @field_validator("database_pooler")
    @classmethod
    def _is_for_postgresql(cls, value: str, info: ValidationInfo) -> str:
        if value != "none" and (family := _family(info.data)) not in {None, "postgresql"}:
            raise ValueError(f"is for PostgreSQL but DATABASE_URL is {family}: remove it")
        return value

    @field_validator("database_tls_ca", "database_tls_cert", "database_tls_key")
    @classmethod
    def _is_for_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None:
            return None
        if info.data.get("database_tls") in {None, "disable"}:
            raise ValueError("does nothing without encryption: set DATABASE_TLS, best to verify-full")
        if info.field_name == "database_tls_key" and info.data.get("database_tls_cert") is None:
            raise ValueError("needs its certificate: name that in DATABASE_TLS_CERT")
        return value

    @property
    def url(self) -> URL:
        """The URL with its async driver; the password stays masked when it is printed."""
        if self.database_url is not None:
            return normalise_url(self.database_url.get_secret_value())
        if self.postgres_host is not None:
            password = self.postgres_password.get_secret_value() if self.postgres_password else None
            return URL.create(
                "postgresql+asyncpg",
                username=self.postgres_user,
                password=password,
                host=self.postgres_host,
                port=self.postgres_port,
                database=self.postgres_db,
            )
        return URL.create("sqlite+aiosqlite", database=str(self.holdfast_data_dir.absolute() / "holdfast.db"))

    @property
    def replica_url(self) -> URL | None:
        """The replica's URL with its async driver, if there is one."""
        return normalise_url(self.database_replica_url.get_secret_value()) if self.database_replica_url else None

    @property
    def direct_url(self) -> URL:
        """The URL for migrations."""
        return normalise_url(self.database_direct_url.get_secret_value()) if self.database_direct_url else self.url

    @property
    def database_is_embedded(self) -> bool:
        """Whether nothing was configured, so that the SQLite file in the data folder serves."""
        return self.database_url is None and self.postgres_host is None

    @property
    def database_migrates_itself(self) -> bool:
        """Whether whoever opens the database also brings it up to date, because it is this process's or machine's."""
        return self.database_is_embedded or is_in_memory(self.url)


def _family(data: dict[str, Any]) -> str | None:
    """Return the engine that the settings read so far name; None where the URL is wrong."""
    if "database_url" not in data:
        return None
    url: SecretStr | None = data["database_url"]
    if url is not None:
        return engine_family(normalise_url(url.get_secret_value()))
    return "sqlite" if data.get("postgres_host") is None else "postgresql"
