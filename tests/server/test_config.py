from __future__ import annotations

from pathlib import Path

import pytest

from server import config
from server.config import Settings, address_parts, load, setting_names
from server.errors import UserError


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in ("CONFIG", "STATE", "DATA"):
        monkeypatch.delenv(f"TREFOIL_{name}", raising=False)
    monkeypatch.setattr(config, "CONFIG_PATH_DEFAULT", tmp_path / "absent.toml")


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trefoil.toml"
    path.write_text(text)
    return path


def test_flags_beat_environment_beats_toml(tmp_path, monkeypatch):
    path = toml(tmp_path, 'data = ["a", "b"]\n[s3]\nlisten = "127.0.0.1:1"\nregion = "toml"\n[log]\nlevel = "debug"\n')
    monkeypatch.setenv("TREFOIL_S3__LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("TREFOIL_S3__REGION", "env")
    settings = load(path, {"s3": {"region": "flag", "listen": None}, "admin": {"listen": None}})
    assert (settings.s3.region, settings.s3.listen, settings.log.level, settings.data) == ("flag", "127.0.0.1:2", "debug", ["a", "b"])


def test_lists_in_the_environment_have_commas(monkeypatch):
    monkeypatch.setenv("TREFOIL_DATA", "/a, /b,")
    monkeypatch.setenv("TREFOIL_S3__DOMAINS", "s3.example.org")
    settings = load()
    assert settings.data == ["/a", "/b"]
    assert settings.s3.domains == ["s3.example.org"]


def test_exports_are_named_in_the_environment_and_ruled_in_the_file(tmp_path, monkeypatch):
    path = toml(tmp_path, '[[nfs.export]]\npath = "/a/./b/"\nclients = ["10.0.0.0/8", "::1"]\nsquash = "all"\n')
    (export,) = load(path).nfs.export
    assert (export.path, export.clients, export.squash, export.access) == ("/a/b", ["10.0.0.0/8", "::1/128"], "all", "rw")
    monkeypatch.setenv("TREFOIL_NFS__EXPORT", "/, /photos")
    exports = load(path).nfs.export
    assert [export.path for export in exports] == ["/", "/photos"]
    assert exports[1].clients == ["127.0.0.0/8", "::1/128"]


def test_without_exports_the_mount_keeps_its_locks_to_itself():
    assert not load().nfs.shares_locks
    assert load(None, {"nfs": {"export": [{"path": "/"}]}}).nfs.shares_locks
    assert not load(None, {"nfs": {"export": [{"path": "/"}], "locks": False}}).nfs.shares_locks


def test_config_is_found_by_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TREFOIL_CONFIG", str(toml(tmp_path, '[s3]\nregion = "here"\n')))
    assert load().s3.region == "here"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[s3]\nlistne = "x"', "s3.listne is no setting; did you mean s3.listen?"),
        ("dta = []", "dta is no setting; did you mean data?"),
        ('[s3]\nlisten = "9000"', "s3.listen: '9000' is not HOST:PORT"),
        ('[s3]\nlisten = "a:70000"', "is not HOST:PORT"),
        ('[pool]\ncode = "four"', "pool.code"),
        ('[log]\nformat = "xml"', "log.format"),
        ('[s3]\ncertificate = "/x"', "certificate and private_key go together"),
        ("[limits]\ndrain_seconds = -1", "limits.drain_seconds"),
        ("[[nfs.export]]", "nfs.export.1.path: field required"),
        ('[[nfs.export]]\npath = "bucket"', "nfs.export.1.path: 'bucket' is no path of a directory"),
        ('[[nfs.export]]\npath = "/a/../b"', "is no path of a directory"),
        ('[[nfs.export]]\npath = "/a"\naccess = "rx"', "nfs.export.1.access: input should be 'rw' or 'ro'"),
        ('[[nfs.export]]\npath = "/a"\nsqash = "all"', "nfs.export.1.sqash is no setting; did you mean nfs.export.squash?"),
        ('[[nfs.export]]\npath = "/a"\nclients = ["host"]', "'host' is no address and no network such as 10.1.0.0/16"),
        ('[[nfs.export]]\npath = "/a"\nclients = ["10.1.2.3/16"]', "'10.1.2.3/16' has bits beyond its length: write 10.1.0.0/16"),
        ('[[nfs.export]]\npath = "/a"\nclients = []', "nfs.export.1.clients"),
        ('[[nfs.export]]\npath = "/a"\nanonymous_uid = 4294967295', "nfs.export.1.anonymous_uid"),
        ('[[nfs.export]]\npath = "/a"\n[[nfs.export]]\npath = "//a/"', "nfs: /a is exported twice to 127.0.0.0/8"),
        ('[nfs]\nlisten = "2049"', "nfs.listen: '2049' is not HOST:PORT"),
        ("= 1", "is not valid TOML"),
        ("x = 1\n" * 60_000, "is larger than"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, sentence):
    with pytest.raises(UserError) as caught:
        load(toml(tmp_path, text))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the configuration .*No such file"):
        load(tmp_path / "none.toml")


def test_unknown_environment_is_refused(monkeypatch):
    monkeypatch.setenv("TREFOIL_S3__LISTNE", "127.0.0.1:2")
    with pytest.raises(UserError, match="TREFOIL_S3__LISTNE, which is no setting; did you mean TREFOIL_S3__LISTEN"):
        load()


def test_credentials_are_no_settings(monkeypatch):
    monkeypatch.setenv("TREFOIL_ROOT_SECRET_KEY", "secret-secret")
    assert "secret-secret" not in load().model_dump_json()


def test_every_setting_is_explained():
    for section in (Settings, *(info.annotation for info in Settings.model_fields.values())):
        for name, info in getattr(section, "model_fields", {}).items():
            is_section = isinstance(info.annotation, type) and hasattr(info.annotation, "model_fields")
            assert is_section or info.description, name


def test_setting_names_reach_into_sections():
    names = set(setting_names())
    assert {("data",), ("s3", "listen"), ("limits", "drain_seconds")} <= names


@pytest.mark.parametrize(("address", "parts"), [("127.0.0.1:9000", ("127.0.0.1", 9000)), ("[::1]:1", ("::1", 1)), ("host:0", ("host", 0))])
def test_address_parts(address, parts):
    assert address_parts(address) == parts


def test_code_is_read_as_two_numbers():
    assert load(None, {"pool": {"code": "4+2"}}).pool.km() == (4, 2)
    assert load().pool.km() is None
