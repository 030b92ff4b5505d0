"""The daemon's configuration: one typed model filled from TOML < environment (`TREFOIL_…`) < flags.

Owns the names, defaults, bounds and explanations of all settings; `config_text` prints them. Unknown keys are refused wherever they come from.
Never opens anything but the TOML file, and never holds a secret: credentials come from the environment or from the state directory.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from server.errors import UserError

ENV_PREFIX = "TREFOIL_"
ENV_NOT_SETTINGS = frozenset({"CONFIG", "ROOT_ACCESS_KEY", "ROOT_SECRET_KEY", "ADMIN_URL", "ADMIN_TOKEN"})
"""Names after the prefix that are read elsewhere: secrets and where to find things."""
CONFIG_PATH_DEFAULT = Path("/etc/trefoil/trefoil.toml")
CONFIG_BYTES_MAX = 256 * 1024


def _words(value: object) -> object:
    """Lists may be written with commas in the environment."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    return value


def _address(value: object) -> object:
    text = str(value)
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return text


def state_default() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/trefoil")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "trefoil"


Address = Annotated[str, BeforeValidator(_address)]
Words = Annotated[list[str], BeforeValidator(_words)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSection(Section):
    certificate: Path | None = Field(
        None, description="PEM certificate chain; with private_key, this endpoint speaks TLS. Reread on SIGHUP."
    )
    private_key: Path | None = Field(None, description="PEM private key of the certificate.")

    @model_validator(mode="after")
    def _both_or_none(self) -> TlsSection:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key go together")
        return self


class PoolSection(Section):
    code: str = Field(
        "",
        pattern=r"^$|^\d{1,2}\+\d$",
        description='Erasure code "k+m" of a new pool: k data and m parity shards, any m devices may be lost. Empty: by device count.',
    )
    allow_degraded: bool = Field(
        False,
        description="Start although more devices are missing than the code makes up for. Writes them off: only if they are lost for good.",
    )

    def km(self) -> tuple[int, int] | None:
        """(k, m), or None where the device count decides."""
        k, _, m = self.code.partition("+")
        return (int(k), int(m)) if self.code else None


class S3Section(TlsSection):
    listen: Address = Field("127.0.0.1:9000", description="Where S3 listens. Anything but loopback should have TLS.")
    region: str = Field("us-east-1", pattern=r"^[a-z0-9-]{1,32}$", description="Region that clients sign for.")
    domains: Words = Field([], description="Domains whose subdomains are buckets (virtual-host style); path style always works.")
    connections_max: int = Field(4096, ge=1, le=1_000_000, description="Connections beyond this are answered 503.")


class FileSection(Section):
    mount: Path | None = Field(None, description="Directory on which all buckets are mounted as files, by FUSE. Empty: nowhere.")
    read_only: bool = Field(False, description="Mount for reading only.")


class AdminSection(TlsSection):
    listen: Address = Field(
        "127.0.0.1:9001", description="Where the admin API, /metrics, /healthz and /readyz listen (besides the unix socket)."
    )
    metrics_open: bool = Field(True, description="Serve /metrics without the token, as Prometheus usually asks.")


class LogSection(Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severity that is logged.")
    format: Literal["json", "text"] = Field("json", description="json: one object a line. text: for people.")
    access: bool = Field(True, description="Log one line for every S3 request.")


class LimitsSection(Section):
    drain_seconds: int = Field(30, ge=0, le=3600, description="How long SIGTERM waits for requests in progress before it cuts them off.")
    idle_seconds: int = Field(75, ge=1, le=3600, description="Idle connections are closed after this time.")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__", enable_decoding=False, extra="forbid", frozen=True)

    data: Words = Field([], description="Devices of the pool: block devices, files or directories, each on a drive of its own.")
    state: Path = Field(
        default_factory=state_default, description="The daemon's own directory: metadata tables, lock, admin socket, token."
    )
    pool: PoolSection = PoolSection()
    s3: S3Section = S3Section()
    file: FileSection = FileSection()
    admin: AdminSection = AdminSection()
    log: LogSection = LogSection()
    limits: LimitsSection = LimitsSection()


def address_parts(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of a checked address."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def load(config: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings from all three sources. `flags`: nested like the TOML file, None where not given. Raises UserError."""
    path = _config_path(config)
    toml = _read_toml(path) if path else {}
    _refuse_unknown_environment()

    class Sources(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, toml)

    try:
        return Sources(**_given(flags or {}))
    except ValidationError as error:
        raise UserError(_sentence(error, path)) from None


def setting_names(model: type[BaseModel] = Settings, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all settings: ("data",), ("s3", "listen"), …"""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from setting_names(info.annotation, (*before, name))
        else:
            yield (*before, name)


def _config_path(given: Path | None) -> Path | None:
    named = os.environ.get("TREFOIL_CONFIG")
    if given or named:
        return given or Path(named or "")
    return CONFIG_PATH_DEFAULT if CONFIG_PATH_DEFAULT.exists() else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(CONFIG_BYTES_MAX + 1)
        if len(content) > CONFIG_BYTES_MAX:
            raise UserError(f"{path} is larger than {CONFIG_BYTES_MAX} bytes; that is no configuration")
        return tomllib.loads(content.decode())
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None


def _refuse_unknown_environment() -> None:
    known = {"__".join(path).upper() for path in setting_names()}
    for name in os.environ:
        key = name.removeprefix(ENV_PREFIX)
        if key != name and key not in known and key not in ENV_NOT_SETTINGS:
            raise UserError(f"the environment has {name}, which is no setting{_suggestion(key, known, ENV_PREFIX)}")


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Without the flags that were not given, and without the sections that this empties."""
    nested = {name: _given(value) if isinstance(value, Mapping) else value for name, value in flags.items()}
    return {name: value for name, value in nested.items() if value is not None and value != {}}


def _sentence(error: ValidationError, path: Path | None) -> str:
    """The first problem is enough: the next one shows when it is mended."""
    problem = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in problem["loc"])
    known = [".".join(names) for names in setting_names()]
    if problem["type"] == "extra_forbidden":
        return f"{name} is no setting{_suggestion(name, known)} (in {path})"
    reason = re.sub(r"^(Value error|Assertion failed), ", "", problem["msg"])
    return f"configuration: {name}: {reason[:1].lower()}{reason[1:]}"


def _suggestion(name: str, known: Collection[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
