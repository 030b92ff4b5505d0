"""The daemon's configuration: one typed model filled from TOML < environment (`TREFOIL_…`) < flags.

Owns the names, defaults, bounds and explanations of all settings; `config_text` prints them. Unknown keys are refused wherever they come from.
Never opens anything but the TOML file, and never holds a secret: credentials come from the environment or from the state directory.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from protocols.auth import AccountError
from protocols.auth.accounts import UID_MAX, check_modes
from protocols.auth.identity import ORDINARY_ID, IdentityMap
from protocols.s3.config import KeyPolicy
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


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        if "host bits" in str(error):
            raise ValueError(f"{value!r} has bits beyond its length: write {ipaddress.ip_network(value, strict=False)}") from None
        raise ValueError(f"{value!r} is no address and no network such as 10.1.0.0/16") from None


def _export_path(value: object) -> str:
    """Without what does not count in a path."""
    text = str(value)
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not text.startswith("/") or ".." in parts or "\0" in text:
        raise ValueError(f"{text!r} is no path of a directory: /bucket or /bucket/directory, or / for all buckets")
    return "/" + "/".join(parts)


def _exports(value: object) -> object:
    """The environment can name paths, with commas; all else about them is as by default."""
    return [{"path": path} for path in words] if isinstance(words := _words(value), list) and isinstance(value, str) else value


Address = Annotated[str, BeforeValidator(_address)]
Words = Annotated[list[str], BeforeValidator(_words)]
Addresses = Annotated[list[Address], BeforeValidator(_words)]
NumberedId = Annotated[int, Field(ge=0, le=2**32 - 2)]
"""A uid or gid; the highest number means "none" to system calls."""


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


class ReductionSection(Section):
    mode: Literal["off", "fast", "balanced", "deep"] = Field(
        "balanced",
        description="How hard the daemon looks for duplicates, similar chunks and patterns after it acknowledged a write. off: content is kept "
        "as it is. deep: a tenth smaller than balanced, at about a third of its speed. Holds for what is written from now on, where no bucket, "
        "folder or volume has a mode of its own.",
    )
    cold_days: int = Field(
        30,
        ge=0,
        le=36_500,
        description="What was written so many days ago is encoded again as deep does, in a quarter of one processor while nobody works. 0: never.",
    )
    index_bytes: int = Field(
        256 << 20,
        ge=1 << 20,
        le=1 << 40,
        description="Memory of the index of chunks at most: about 0.35 GB for each TB of unique content finds nearly all that is alike; with less, "
        "what was not seen for longest is forgotten.",
    )


class S3Section(TlsSection):
    listen: Address = Field("127.0.0.1:9000", description="Where S3 listens. Anything but loopback should have TLS.")
    region: str = Field("us-east-1", pattern=r"^[a-z0-9-]{1,32}$", description="Region that clients sign for.")
    domains: Words = Field([], description="Domains whose subdomains are buckets (virtual-host style); path style always works.")
    key_policy: KeyPolicy = Field(
        KeyPolicy.S3,
        description='Of new buckets made by S3. "s3": every legal key. "posix": only keys that are paths of files; docs/NAMESPACE.md.',
    )
    connections_max: int = Field(4096, ge=1, le=1_000_000, description="Connections beyond this are answered 503.")


class FileSection(Section):
    mount: Path | None = Field(None, description="Directory on which all buckets are mounted as files, by FUSE. Empty: nowhere.")
    read_only: bool = Field(False, description="Mount for reading only.")
    strict: bool = Field(False, description="Changes by files are durable when they return, not within a second or with fsync.")
    engine: Literal["native", "pyfuse3"] = Field(
        "native", description="What speaks FUSE. pyfuse3: by libfuse and in Python, one mount at a time, slower."
    )


def _own(own: int) -> int:
    """The daemon's own, unless it is root's."""
    return own or ORDINARY_ID


def _mode(value: object) -> object:
    """Octal digits, as chmod takes them."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-7]{3,4}", value):
        raise ValueError(f'{value!r} is no mode: write its octal digits as text, such as "0644"')
    return value


Mode = Annotated[str, BeforeValidator(_mode)]


class IdentitySection(Section):
    uid: int = Field(
        default_factory=lambda: _own(os.geteuid()),
        ge=1,
        le=UID_MAX,
        description="Owner of files that S3 writes make, for users with uid 0 such as root. Empty: the daemon's own uid, 1000 if that is root's.",
    )
    gid: int = Field(
        default_factory=lambda: _own(os.getegid()),
        ge=1,
        le=UID_MAX,
        description="Their group, for users with gid 0. Empty: the daemon's own gid, 1000 if that is root's.",
    )
    file_mode: Mode = Field("0644", description="Permissions of files that S3 writes make, unless the user has others (trefoil user set).")
    directory_mode: Mode = Field("0755", description="Permissions of the directories that their keys imply, and of buckets.")

    @model_validator(mode="after")
    def _readable(self) -> IdentitySection:
        try:
            check_modes(int(self.file_mode, 8), int(self.directory_mode, 8))
        except AccountError as error:
            raise ValueError(str(error)) from None
        return self

    def map(self) -> IdentityMap:
        return IdentityMap(self.uid, self.gid, int(self.file_mode, 8), int(self.directory_mode, 8))


class ExportSection(Section):
    path: Annotated[str, BeforeValidator(_export_path)] = Field(
        description="Directory that clients mount: / with all buckets in it, /bucket, or /bucket/directory."
    )
    clients: Words = Field(
        ["127.0.0.0/8", "::1/128"],
        min_length=1,
        description="Addresses and networks that may. NFS takes a client's word for who its users are: name only networks that you trust.",
    )
    access: Literal["rw", "ro"] = Field("rw", description="rw: reading and writing. ro: reading only.")
    squash: Literal["root", "all", "none"] = Field(
        "root", description="Who acts as the anonymous user: root of the clients, all users, or none (their root is root here)."
    )
    anonymous_uid: NumberedId = Field(65534, description="Uid of the anonymous user.")
    anonymous_gid: NumberedId = Field(65534, description="Gid of the anonymous user.")
    privileged_ports: bool = Field(
        False, description="Serve only calls from ports below 1024, which only root of a client can use (`secure` of exports(5))."
    )

    @field_validator("clients")
    @classmethod
    def _networks(cls, clients: list[str]) -> list[str]:
        return [_network(client) for client in clients]


class NfsSection(Section):
    listen: Address = Field(
        "127.0.0.1:2049", description="Where NFS version 3 and MOUNT listen, by TCP. Without an export nothing listens."
    )
    portmapper: Address | None = Field(
        None,
        description="Where the port mapper answers besides, such as 0.0.0.0:111: clients look there for locks, and nowhere else. "
        "Empty: nowhere, and clients mount with nolock.",
    )
    locks: bool = Field(True, description="Serve locks (NLM), together with those of the mount.")
    connections_max: int = Field(256, ge=1, le=65536, description="Connections beyond this are closed.")
    export: Annotated[list[ExportSection], BeforeValidator(_exports)] = Field(
        [], description="What is exported. Several exports of one path are several rules: the first that names the client counts."
    )

    @model_validator(mode="after")
    def _each_once(self) -> NfsSection:
        seen: set[tuple[str, str]] = set()
        for export in self.export:
            for client in export.clients:
                if (export.path, client) in seen:
                    raise ValueError(f"{export.path} is exported twice to {client}; the second would never count")
                seen.add((export.path, client))
        return self

    @property
    def shares_locks(self) -> bool:
        """With the mount."""
        return self.locks and bool(self.export)


class BlockSection(Section):
    listen: Addresses = Field(
        ["127.0.0.1:4420"],
        min_length=1,
        description="Where NVMe/TCP listens, once there is a volume. Hosts are known by their word unless they have keys: mind who reaches it.",
    )
    advertise: Addresses = Field([], description="Addresses that discovery tells hosts. Empty: the one at which it is asked.")
    target: Literal["embedded", "nvmet"] = Field(
        "embedded",
        description="What serves volumes. embedded: the daemon, which hosts find again after it was restarted. "
        "nvmet: the kernel, by configfs and a mount of its own; hosts get I/O errors if the daemon is killed.",
    )
    allow_any_host: bool = Field(False, description="Let hosts attach every volume that `trefoil host allow` does not name.")
    connections_max: int = Field(256, ge=1, le=65536, description="Connections beyond this are closed; each queue of a host is one.")


class SnapshotSection(Section):
    hooks: Path | None = Field(
        None,
        description="Directory of the commands that snapshots and schedules may name to run before and after. Empty: they run none. "
        "Only root and the daemon's user may be able to change it and what is in it.",
    )


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
    reduction: ReductionSection = ReductionSection()
    s3: S3Section = S3Section()
    file: FileSection = FileSection()
    nfs: NfsSection = NfsSection()
    block: BlockSection = BlockSection()
    snapshot: SnapshotSection = SnapshotSection()
    identity: IdentitySection = Field(default_factory=IdentitySection)
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


def item_section(annotation: object) -> type[Section] | None:
    """What a list of sections (`[[nfs.export]]`) has for items; None for any other setting."""
    return next((kind for kind in get_args(annotation) if isinstance(kind, type) and issubclass(kind, Section)), None)


def _names_in_files() -> Iterator[str]:
    """Of all settings, those in lists of sections included: "nfs.export.path"."""
    for names in setting_names():
        yield ".".join(names)
        section: type[BaseModel] = Settings
        for name in names[:-1]:
            annotation = section.model_fields[name].annotation
            assert isinstance(annotation, type)
            section = annotation
        if item := item_section(section.model_fields[names[-1]].annotation):
            yield from (f"{'.'.join(names)}.{name}" for name in item.model_fields)


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
    name = ".".join(f"{part + 1}" if isinstance(part, int) else part for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        plain = ".".join(part for part in problem["loc"] if isinstance(part, str))
        return f"{name} is no setting{_suggestion(plain, list(_names_in_files()))} (in {path})"
    reason = re.sub(r"^(Value error|Assertion failed), ", "", problem["msg"])
    return f"configuration: {name}: {reason[:1].lower()}{reason[1:]}"


def _suggestion(name: str, known: Collection[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
