"""How the database is reached. The environment (and ``.env``) is read here and in no other place of ``db``."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL

from db.urls import has_usable_options, is_in_memory, normalise_url


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

    database_pool_size: Annotated[int, Field(ge=1, le=1000)] = 5
    """Connections kept open in each process. Fewer than ``MAX_JOBS`` means that jobs wait for one."""
    database_max_overflow: Annotated[int, Field(ge=0, le=1000)] = 10
    """Connections opened beyond the pool in a rush and closed after it; each costs a connect."""
    database_pool_timeout: Annotated[float, Field(gt=0)] = 30.0
    """Seconds to wait for a free connection before the job fails and is retried."""
    database_pool_recycle: Annotated[int, Field(ge=-1)] = 3600
    """Seconds after which a connection is replaced; keep it below the server's or a proxy's idle limit. -1: never."""
    sql_echo: bool = False
    """Log every statement; slow, and parameters may hold personal data."""
    debug: bool = False
    """Tracebacks instead of one-line errors on the command line, and debug logs."""

    holdfast_data_dir: Path = Path("data")
    """Where the embedded database and queue, the spool and the reject files live; made with mode 0700."""

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Not env_ignore_empty: with it an empty variable would let the value in .env through.
        return {name: value for name, value in values.items() if value != ""}

    @field_validator("database_url")
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
    def database_is_embedded(self) -> bool:
        """Whether nothing was configured, so that the SQLite file in the data folder serves."""
        return self.database_url is None and self.postgres_host is None

    @property
    def database_migrates_itself(self) -> bool:
        """Whether whoever opens the database also brings it up to date, because it is this process's or machine's."""
        return self.database_is_embedded or is_in_memory(self.url)
