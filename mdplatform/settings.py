"""Settings: what can be set, its unit and its default. Read from `MDPLATFORM_*` variables, or given in code."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from mdplatform.errors import InvalidSetting

_SECRET = ("redis_url", "rabbitmq_url", "fred_api_key")
"""What may hold a password, and is not shown when it is refused."""


class Settings(BaseSettings):
    """All settings of the platform. `Settings.load()` reads the environment and gives one clear error."""

    model_config = SettingsConfigDict(env_prefix="MDPLATFORM_", env_ignore_empty=True, frozen=True, extra="forbid")

    home: Path = Field(
        default=Path("~/.mdplatform"),
        description="Folder that holds everything: the lake, Dagster's home, the embedded Valkey.",
    )
    redis_url: str | None = Field(
        default=None,
        description="Redis to use instead of the embedded Valkey: redis://, rediss:// or unix://, with password.",
    )
    redis_timeout_seconds: float = Field(
        default=0.25, gt=0, le=60, description="How long one answer of Redis is waited for, in seconds."
    )
    redis_retry_seconds: float = Field(
        default=1.0, gt=0, le=600, description="How long a reader leaves a Redis alone that did not answer, in seconds."
    )
    valkey_memory_mb: int = Field(
        default=512, ge=16, le=1_000_000, description="Memory bound of the embedded Valkey, in MB."
    )
    near_cache_mb: int = Field(
        default=64,
        ge=0,
        le=100_000,
        description="Memory of a process for what its readers keep of Redis, in MB; 0 to ask Redis each time.",
    )
    window_rows: int = Field(
        default=500, ge=1, le=100_000, description="Newest rows of a feature that are kept in Redis, in bars."
    )
    cache_days: float = Field(
        default=7.0, gt=0, le=365, description="How long a feature is kept in Redis after it was published, in days."
    )
    first_month: str = Field(
        default="2017-01",
        pattern=r"^20(0[5-9]|[1-9]\d)-(0[1-9]|1[0-2])$",
        description="First month of the partitions, as YYYY-MM.",
    )
    archive_url: str = Field(default="https://data.binance.vision", description="Base URL of Binance's public dumps.")
    archive_retries: int = Field(default=5, ge=0, le=50, description="Tries again after a failed download, a count.")
    archive_timeout_seconds: float = Field(
        default=30.0, gt=0, le=600, description="How long one answer of the archive is waited for, in seconds."
    )
    fred_url: str = Field(
        default="https://api.stlouisfed.org/fred", description="Base URL of the API of FRED and ALFRED (macro series)."
    )
    fred_api_key: SecretStr | None = Field(
        default=None, description="Key of FRED's API, 32 letters and digits; it is free, and shown nowhere."
    )
    fred_retries: int = Field(default=5, ge=0, le=50, description="Tries again after a failed question, a count.")
    fred_timeout_seconds: float = Field(
        default=30.0, gt=0, le=600, description="How long one answer of FRED is waited for, in seconds."
    )
    fred_deadline_seconds: float = Field(
        default=300.0, gt=0, le=86_400, description="How long one series of FRED may take in all, in seconds."
    )
    fred_requests_per_minute: int = Field(
        default=100, ge=1, le=120, description="Questions that a process asks FRED in a minute; FRED allows 120."
    )
    fear_greed_url: str = Field(
        default="https://api.alternative.me", description="Base URL of the API of the Crypto Fear & Greed Index."
    )
    max_file_mb: int = Field(
        default=2048, ge=1, le=100_000, description="Largest file that is taken in, unpacked, in MB."
    )
    data_source: str | None = Field(
        default=None,
        description="Source asked for bars that strategies request and nobody took in, such as binance or simulated; "
        "without one only symbols that have a source are fetched.",
    )
    transport: str = Field(
        default="redis",
        pattern=r"^(redis|rabbitmq)$",
        description="What carries strategies' requests: redis, or rabbitmq.",
    )
    rabbitmq_url: SecretStr = Field(
        default=SecretStr("amqp://guest:guest@127.0.0.1:5672/"),
        description="RabbitMQ for the transport rabbitmq: amqp:// or amqps://, with password.",
    )
    feed_source: str | None = Field(
        default=None, description="Feed that `mdplatform feed` follows where none is named: binance or simulated."
    )
    binance_stream_url: str = Field(
        default="wss://stream.binance.com:9443", description="Base URL of Binance's websocket streams."
    )
    binance_api_url: str = Field(
        default="https://api.binance.com", description="Base URL of Binance's REST API, by which a feed fills holes."
    )
    close_grace_seconds: float = Field(
        default=0.5,
        ge=0,
        le=60,
        description="How long after its close a bar waits for trades that come late, in seconds of the venue's clock.",
    )
    frame_grace_seconds: float = Field(
        default=2.0,
        ge=0,
        le=600,
        description="How long a frame waits for cells that are due before it is sent without them, in seconds.",
    )
    feed_silence_seconds: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="After what silence of a venue a feed connects anew, in seconds; later where it answers pings and "
        "was quiet lately.",
    )
    live_kept: int = Field(
        default=10_000,
        ge=10,
        le=10_000_000,
        description="Posts of a symbol that are kept for consumers which come back, a count.",
    )
    live_kept_mb: int = Field(
        default=128,
        ge=1,
        le=1_000_000,
        description="Memory of the posts that are kept, of all symbols, in MB; fewer are kept where it is short.",
    )
    seal_seconds: float = Field(
        default=30.0,
        ge=0.1,
        le=3600,
        description="How often closed bars of a feed are merged into the month of the lake, in seconds.",
    )
    request_capacity: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="Requests in flight above which LOW ones are rejected, a count; NORMAL at 1.1, HIGH at 1.25 and "
        "CRITICAL at 1.5 times as many.",
    )
    request_deadline_seconds: float = Field(
        default=120.0, ge=0.05, le=86_400, description="How long a request lives that names no deadline, in seconds."
    )
    request_claim_seconds: float = Field(
        default=3.0,
        ge=0.1,
        le=600,
        description="After what silence of a worker others take over its requests, in seconds.",
    )
    answers_kept: int = Field(
        default=10_000, ge=1, le=10_000_000, description="Final answers that are kept to be looked up, a count."
    )
    answers_kept_mb: int = Field(
        default=64, ge=1, le=100_000, description="Memory of the final answers that are kept, in MB."
    )
    answers_kept_seconds: float = Field(
        default=600.0, ge=1, le=86_400, description="How long a final answer can be looked up, in seconds."
    )
    gateway_host: str = Field(default="127.0.0.1", description="Address on which the gateway listens.")
    gateway_port: int = Field(default=8080, ge=0, le=65535, description="Port of the gateway; 0 for any free one.")
    gateway_keys: bool = Field(
        default=True, description="Whether the gateway wants an API key of everybody (`mdplatform keys`)."
    )
    ui_host: str = Field(default="127.0.0.1", description="Address on which Dagster's UI listens; it has no login.")
    ui_port: int = Field(default=3000, ge=1, le=65535, description="Port of Dagster's UI.")

    @classmethod
    def load(cls, **given: object) -> Settings:
        """Read the settings; what is `given` wins over the environment. Raises `InvalidSetting`."""
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        except ValidationError as refused:
            first = refused.errors()[0]
            name = "_".join(str(part) for part in first["loc"]) or "settings"
            raise InvalidSetting(
                f"MDPLATFORM_{name.upper()} is refused ({first['msg']})",
                value=None if name in _SECRET else first.get("input"),
                remedy="`mdplatform doctor` lists the settings with their units and defaults",
            ) from None

    def export(self) -> None:
        """Put the settings into this process's environment, from where Dagster's resources and child processes read."""
        for variable, value in self.variables().items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value

    def variables(self) -> dict[str, str | None]:
        """Give the settings as environment variables, secrets in plain text; None for what is not set."""
        found = {}
        for name, value in self:
            text = value.get_secret_value() if isinstance(value, SecretStr) else value
            found[f"MDPLATFORM_{name.upper()}"] = None if text is None else str(text)
        return found

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, url: str | None) -> str | None:
        if url == "":
            return None
        if url is not None and not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("a URL starts with redis://, rediss:// or unix://")
        return url

    @property
    def max_file_bytes(self) -> int:
        """The largest file that is taken in, unpacked, in bytes."""
        return self.max_file_mb * 1_000_000

    @property
    def lake_dir(self) -> Path:
        """Where the Parquet files are."""
        return self.home / "lake"

    @property
    def dagster_dir(self) -> Path:
        """Dagster's home."""
        return self.home / "dagster"

    @property
    def valkey_dir(self) -> Path:
        """Where the embedded Valkey keeps its data and locks."""
        return self.home / "valkey"
