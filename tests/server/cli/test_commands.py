"""The command line against a running daemon: text, --json, exit codes, one sentence for mistakes."""

from __future__ import annotations

import json
import subprocess

import pytest

from server.errors import Exit
from tests.server.conftest import clean_environment, run_trefoil


def answer(ended: subprocess.CompletedProcess[str]):
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_buckets(daemon):
    assert daemon.trefoil("bucket", "create", "cli-one").stdout == "created bucket cli-one, owned by root\n"
    assert answer(daemon.trefoil("bucket", "show", "cli-one", "--json"))["owner"] == "root"
    assert "cli-one" in daemon.trefoil("bucket", "list").stdout
    daemon.trefoil("bucket", "create", "cli-two", "--keys", "posix")
    assert "owned by root, posix keys" in daemon.trefoil("bucket", "show", "cli-two").stdout
    assert "cli-two shows snapshots as keys" in daemon.trefoil("bucket", "set", "cli-two", "--snapshots").stdout
    assert "posix keys, snapshots as keys" in daemon.trefoil("bucket", "show", "cli-two").stdout
    assert answer(daemon.trefoil("bucket", "set", "cli-two", "--no-snapshots", "--json"))["snapshots"] is False
    daemon.trefoil("bucket", "delete", "cli-two")
    assert answer(daemon.trefoil("bucket", "delete", "cli-one", "--json")) == {"deleted": "cli-one"}
    assert answer(daemon.trefoil("bucket", "list", "--json")) == []


def test_snapshots_and_clones(daemon):
    daemon.trefoil("bucket", "create", "cli-snap")
    took = daemon.trefoil("snapshot", "create", "/cli-snap", "one", "--protect", "1d").stdout
    assert took == "took one of /cli-snap; files find it in /cli-snap/.snapshot/one\n"
    assert "snapshot one already" in daemon.trefoil("snapshot", "create", "/cli-snap", "one").stderr
    assert daemon.trefoil("snapshot", "create", "/cli-snap", "x", "--protect", "long").returncode == Exit.USAGE
    assert daemon.trefoil("snapshot", "create", "/nothing", "one").stderr == "trefoil: there is no /nothing\n"
    assert daemon.trefoil("clone", "/cli-snap@one", "/cli-clone").stdout == "/cli-clone is a clone of /cli-snap@one\n"
    assert daemon.trefoil("clone", "/cli-snap@two", "/cli-other").returncode == Exit.FAILED
    assert "protected" in daemon.trefoil("snapshot", "delete", "/cli-snap", "one").stderr
    restored = daemon.trefoil("snapshot", "restore", "/cli-snap", "one", "--undo", "before").stdout
    assert restored == "/cli-snap is as in one; undo: trefoil snapshot restore /cli-snap before\n"
    listed = answer(daemon.trefoil("snapshot", "list", "/cli-snap", "--json"))
    assert [(one["name"], one["automatic"], one["clones"]) for one in listed] == [("before", True, []), ("one", False, ["/cli-clone"])]
    assert "protected until" in daemon.trefoil("snapshot", "list").stdout
    assert "protected until" in daemon.trefoil("snapshot", "protect", "/cli-snap", "before", "1h").stdout
    assert "before alone holds" in daemon.trefoil("snapshot", "space", "/cli-snap", "before").stdout
    assert "/cli-clone gets rows of its own" in daemon.trefoil("clone", "split", "/cli-clone").stdout
    assert "a clone that shares something" in daemon.trefoil("clone", "split", "/cli-snap").stderr
    assert daemon.trefoil("snapshot", "backlog").stdout == "nothing is left to be done\n"
    daemon.trefoil("snapshot", "create", "/cli-snap", "gone")
    assert daemon.trefoil("snapshot", "delete", "/cli-snap", "gone").stdout == "deleted gone of /cli-snap\n"
    assert daemon.trefoil("snapshot", "delete", "/cli-snap", "gone").stderr == "trefoil: /cli-snap has no snapshot gone\n"


def test_schedules(daemon):
    assert daemon.trefoil("snapshot", "schedule", "set", "cli-sched/", "--hour", "24").stdout == "/cli-sched keeps 24 hourly\n"
    assert "at least one" in daemon.trefoil("snapshot", "schedule", "set", "/cli-sched").stderr
    listed = answer(daemon.trefoil("snapshot", "schedule", "list", "--json"))
    assert listed == [{"path": "/cli-sched", "keep": {"hour": 24, "day": 0, "week": 0, "month": 0}}]
    refused = daemon.trefoil("snapshot", "schedule", "set", "/cli-sched", "--day", "7", "--before", "freeze").stderr
    assert "snapshot.hooks" in refused and refused.count("\n") == 1
    assert "snapshot.hooks" in daemon.trefoil("snapshot", "create", "/cli-sched", "one", "--after", "thaw").stderr
    assert "no schedule any more" in daemon.trefoil("snapshot", "schedule", "delete", "/cli-sched").stdout
    assert daemon.trefoil("snapshot", "schedule", "delete", "/cli-sched").returncode == Exit.FAILED


def test_users_and_keys(daemon):
    assert answer(daemon.trefoil("user", "create", "ann", "--name", "Ann", "--json"))["display_name"] == "Ann"
    key = answer(daemon.trefoil("key", "create", "ann", "--json"))
    listed = daemon.trefoil("key", "list", "--user", "ann").stdout
    assert key["access_key"] in listed and key["secret_key"] not in listed
    assert daemon.trefoil("key", "delete", key["access_key"]).returncode == 0
    changed = daemon.trefoil("user", "set", "ann", "--uid", "7", "--file-mode", "0640")
    assert changed.stdout == "user ann: uid 7, gid 2000, files 0640, directories as configured\n"
    assert daemon.trefoil("user", "set", "ann", "--file-mode", "rw").returncode == Exit.USAGE
    assert "lets the owner read" in daemon.trefoil("user", "set", "ann", "--file-mode", "0044").stderr
    assert "deleted user ann" in daemon.trefoil("user", "delete", "ann").stdout
    assert [user["id"] for user in answer(daemon.trefoil("user", "list", "--json"))] == ["root"]


def test_status_ends_with_the_next_useful_command(daemon):
    ended = daemon.trefoil("status")
    assert ended.returncode == 0
    assert ended.stdout.splitlines()[-1].startswith("Next: trefoil bucket")
    assert answer(daemon.trefoil("status", "--json"))["phase"] == "ready"


def test_doctor_has_findings_with_levels(daemon):
    findings = answer(daemon.trefoil("doctor", "--json"))
    assert {"ok"} <= {finding["level"] for finding in findings} <= {"ok", "warning"}


def test_reduction_and_why(daemon):
    assert "mode balanced" in daemon.trefoil("reduction").stdout
    found = answer(daemon.trefoil("reduction", "--json"))
    gains = ("zero_bytes", "dedupe_gain_bytes", "similarity_gain_bytes", "compression_gain_bytes")
    assert found["logical_bytes"] - sum(found[gain] for gain in gains) == found["stored_bytes"]
    assert "no bucket nowhere" in daemon.trefoil("reduction", "/nowhere/x").stderr
    refused = daemon.trefoil("reduction", "/nowhere", "--set", "off")
    assert (refused.returncode, refused.stderr) == (Exit.FAILED, "trefoil: there is no /nowhere\n")
    assert "is no mode" in daemon.trefoil("reduction", "/nowhere", "--set", "best").stderr
    assert "reduction.mode" in daemon.trefoil("reduction", "--set", "off").stderr
    refused = daemon.trefoil("why", "/nowhere/x")
    assert (refused.returncode, refused.stderr) == (Exit.FAILED, "trefoil: there is no /nowhere/x\n")


def test_check_recounts_what_the_pool_holds(daemon):
    assert daemon.trefoil("check").stdout == "the metadata are whole\n"
    assert "0 payloads read" in daemon.trefoil("check", "--content").stdout
    found = answer(daemon.trefoil("check", "--content", "--json"))
    assert (found["faults"], found["sentences"]) == (0, [])


def test_root_key_can_be_sourced_by_a_shell(daemon):
    text = daemon.trefoil("key", "root", "--env").stdout
    shell = subprocess.run(["sh", "-c", f'{text}\necho "$AWS_ACCESS_KEY_ID $AWS_ENDPOINT_URL"'], capture_output=True, text=True)
    assert shell.stdout == f"{daemon.credentials()['access_key']} http://{daemon.s3}\n"


def test_a_daemon_elsewhere_is_reached_with_its_token(daemon):
    token = (daemon.state / "admin-token").read_text().strip()
    elsewhere = {"TREFOIL_STATE": "/nowhere", "TREFOIL_ADMIN_URL": f"http://{daemon.admin}"}
    assert answer(run_trefoil("status", "--json", **elsewhere, TREFOIL_ADMIN_TOKEN=token))["phase"] == "ready"
    refused = run_trefoil("status", **elsewhere, TREFOIL_ADMIN_TOKEN="wrong")
    assert refused.returncode == Exit.UNREACHABLE and "needs its token" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("bucket", "show", "absent"), Exit.FAILED, "there is no bucket absent"),
        (("bucket", "show", "../users"), Exit.FAILED, "the daemon has nothing there"),
        (("bucket", "create", "UP"), Exit.FAILED, "is not a bucket name"),
        (("user", "create", "root"), Exit.FAILED, "user root exists already"),
        (("status", "--url", "ftp://x"), Exit.USAGE, "is not an admin URL"),
        (("status", "--url", "http://127.0.0.1:1"), Exit.UNREACHABLE, "Connection refused"),
        (("status", "--state", "/nowhere"), Exit.UNREACHABLE, "no daemon answers at /nowhere/admin.sock"),
        (("key", "root", "--state", "/nowhere"), Exit.UNREACHABLE, "has no root key yet"),
        (("export",), Exit.FAILED, "nothing is exported: add an [[nfs.export]]"),
        (("serve", "--config", "/nowhere.toml"), Exit.USAGE, "cannot read the configuration"),
        (("serve", "--log-format", "xml"), Exit.USAGE, "log.format"),
    ],
)
def test_a_mistake_is_one_sentence_and_a_code(daemon, arguments, code, sentence):
    ended = daemon.trefoil(*arguments)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr.startswith("trefoil: ") and ended.stderr.count("\n") == 1
    assert sentence in ended.stderr


def test_with_json_a_mistake_is_json(daemon):
    ended = daemon.trefoil("bucket", "show", "absent", "--json")
    assert json.loads(ended.stderr) == {"error": "there is no bucket absent", "kind": "not_found"}


def test_a_misspelt_option_is_no_traceback(daemon):
    ended = daemon.trefoil("bucket", "list", "--jsno")
    assert ended.returncode == Exit.USAGE and "Traceback" not in ended.stderr


def test_every_command_takes_json():
    for command in (
        "serve",
        "status",
        "doctor",
        "check",
        *(f"bucket {verb}" for verb in ("create", "list", "show", "delete")),
        "user create",
        "user list",
    ):
        assert "--json" in run_trefoil(*command.split(), "--help", COLUMNS="200").stdout, command


def test_doctor_without_a_daemon_looks_itself(tmp_path):
    ended = run_trefoil("doctor", "--json", "--state", str(tmp_path), TREFOIL_S3__LISTEN="127.0.0.1:0", TREFOIL_DATA="/nowhere/at/all")
    assert ended.returncode == Exit.UNHEALTHY
    findings = {finding["check"]: finding for finding in json.loads(ended.stdout)}
    assert findings["daemon"]["level"] == "warning"
    assert findings["devices"]["level"] == "error" and findings["devices"]["remedy"]


def test_config_init_never_overwrites(tmp_path):
    path = tmp_path / "trefoil.toml"
    assert run_trefoil("config", "init", "-o", str(path)).returncode == 0
    assert path.read_text() == run_trefoil("config", "init").stdout
    again = run_trefoil("config", "init", "-o", str(path))
    assert (again.returncode, again.stderr) == (Exit.FAILED, f"trefoil: {path} exists already\n")


def test_config_show_is_what_is_in_effect():
    assert answer(run_trefoil("config", "show", TREFOIL_S3__REGION="eu-1"))["s3"]["region"] == "eu-1"


def test_the_clean_environment_has_no_daemon_of_the_developer():
    assert not [name for name in clean_environment() if name.startswith("TREFOIL_")]
