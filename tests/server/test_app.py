"""The daemon as a process: start, credentials, drain, refusals. On the model store, so nothing survives a restart but the state directory."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import httpx
import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from server.config import address_parts
from server.errors import Exit
from tests.server.conftest import RunningDaemon, free_address, run_trefoil


def s3_client(daemon: RunningDaemon, scheme: str = "http", **options):
    keys = daemon.credentials()
    return boto3.client(
        "s3",
        endpoint_url=f"{scheme}://{daemon.s3}",
        aws_access_key_id=keys["access_key"],
        aws_secret_access_key=keys["secret_key"],
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}),
        **options,
    )


def test_boto3_puts_and_gets_and_ids_match_the_log(daemon):
    s3 = s3_client(daemon)
    s3.create_bucket(Bucket="app")
    answer = s3.put_object(Bucket="app", Key="k", Body=b"content")
    assert s3.get_object(Bucket="app", Key="k")["Body"].read() == b"content"
    lines = [line for line in daemon.log_lines() if line.get("request_id") == answer["ResponseMetadata"]["RequestId"]]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [("PUT", "/app/k", 200)]


def test_secrets_are_never_logged(daemon):
    s3_client(daemon).list_buckets()
    token = (daemon.state / "admin-token").read_text().strip()
    for secret in (daemon.credentials()["secret_key"], token, "Signature="):
        assert secret not in daemon.log_text()


def test_admin_tcp_wants_the_token_and_the_socket_does_not(daemon):
    url = f"http://{daemon.admin}/api/v1/status"
    assert httpx.get(url).status_code == 401
    token = (daemon.state / "admin-token").read_text().strip()
    assert httpx.get(url, headers={"Authorization": f"Bearer {token}"}).status_code == 200
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(daemon.state / "admin.sock"))) as local:
        assert local.get("http://admin/api/v1/status").status_code == 200
    assert stat.S_IMODE((daemon.state / "admin.sock").stat().st_mode) == 0o600


STRANGER = """
import os, socket, sys
os.chdir(sys.argv[1])  # as root: the directories above are closed to strangers
os.setuid(65534)
peer = socket.socket(socket.AF_UNIX)
peer.settimeout(10)
peer.connect("admin.sock")
try:
    peer.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    answer = peer.recv(100)
except OSError:
    answer = b""
sys.exit(1 if answer else 0)
"""


@pytest.mark.expects_warnings
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_shut_out_of_the_socket_whatever_its_mode(daemon):
    path = daemon.state / "admin.sock"
    daemon.state.chmod(0o755)
    path.chmod(0o666)
    ended = subprocess.run([sys.executable, "-c", STRANGER, str(daemon.state)], timeout=30)
    path.chmod(0o600)
    assert ended.returncode == 0


def test_root_keys_stay_over_a_restart_and_can_be_given(make_daemon):
    daemon = make_daemon().start()
    first = daemon.credentials()
    assert stat.S_IMODE((daemon.state / "root-credentials.json").stat().st_mode) == 0o600
    assert daemon.stop() == 0
    assert not (daemon.state / "admin.sock").exists()
    daemon.start()
    assert daemon.credentials() == first
    assert daemon.stop() == 0
    daemon.environment = {"TREFOIL_ROOT_ACCESS_KEY": "GIVEN", "TREFOIL_ROOT_SECRET_KEY": "given-secret"}
    daemon.start()
    s3_client(daemon).list_buckets()
    assert daemon.credentials() == {"access_key": "GIVEN", "secret_key": "given-secret"}
    assert daemon.stop() == 0


def begin_put(daemon: RunningDaemon, key: str) -> tuple[socket.socket, bytes]:
    """A presigned PUT whose body is half sent; returns the other half."""
    url = s3_client(daemon).generate_presigned_url("put_object", Params={"Bucket": "drain", "Key": key})
    target = url.split(daemon.s3, 1)[1]
    connection = socket.create_connection(address_parts(daemon.s3), timeout=20)
    connection.sendall(f"PUT {target} HTTP/1.1\r\nHost: {daemon.s3}\r\nContent-Length: 10\r\n\r\nhello".encode())
    return connection, b"world"


def wait_for_phase(daemon: RunningDaemon, phase: str) -> None:
    deadline = time.monotonic() + 20
    while httpx.get(f"http://{daemon.admin}/readyz").text.strip() != phase:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_sigterm_finishes_what_was_begun(make_daemon):
    daemon = make_daemon().start()
    s3_client(daemon).create_bucket(Bucket="drain")
    connection, rest = begin_put(daemon, "k")
    wait_for_in_flight(daemon)
    daemon.signal()
    wait_for_phase(daemon, "draining")
    wait_until_refused(daemon)
    connection.sendall(rest)
    assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    connection.close()
    assert daemon.wait() == 0


def wait_until_refused(daemon: RunningDaemon) -> None:
    """The listener closes within a tick of the server's loop after the signal."""
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(address_parts(daemon.s3), timeout=5).close()
        except ConnectionRefusedError:
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for_in_flight(daemon: RunningDaemon) -> None:
    deadline = time.monotonic() + 20
    while "trefoil_s3_requests_in_flight 1.0" not in httpx.get(f"http://{daemon.admin}/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("second_signal", [False, True])
def test_the_drain_is_bounded(make_daemon, second_signal):
    daemon = make_daemon(TREFOIL_LIMITS__DRAIN_SECONDS="60" if second_signal else "1").start()
    s3_client(daemon).create_bucket(Bucket="drain")
    connection, _ = begin_put(daemon, "k")
    wait_for_in_flight(daemon)
    daemon.signal()
    if second_signal:
        wait_for_phase(daemon, "draining")
        daemon.signal(signal.SIGINT)
    assert daemon.wait() == 0
    connection.close()


def test_a_taken_port_is_one_sentence(daemon, tmp_path):
    device = ("--state", str(tmp_path / "s"), "--data", str(tmp_path / "d"))
    ended = run_trefoil("serve", *device, "--s3-listen", daemon.s3, "--admin-listen", free_address())
    assert (ended.returncode, ended.stdout) == (Exit.REFUSED, "")
    assert ended.stderr == f"trefoil: cannot listen on {daemon.s3}: Address already in use\n"


def test_a_second_daemon_on_the_same_state_is_refused(daemon, tmp_path):
    ended = run_trefoil("serve", "--state", str(daemon.state), "--data", str(tmp_path / "d"))
    assert ended.returncode == Exit.REFUSED
    assert ended.stderr == f"trefoil: another trefoil daemon uses {daemon.state}\n"


def test_half_of_the_root_credentials_is_one_sentence(tmp_path):
    arguments = ("serve", "--state", str(tmp_path / "s"), "--data", str(tmp_path / "d"), "--log-level", "error")
    addresses = ("--s3-listen", free_address(), "--admin-listen", free_address())
    ended = run_trefoil(*arguments, *addresses, TREFOIL_ROOT_ACCESS_KEY="GIVEN")
    assert ended.returncode == Exit.USAGE
    assert ended.stderr == "trefoil: TREFOIL_ROOT_ACCESS_KEY and TREFOIL_ROOT_SECRET_KEY go together\n"


def self_signed(directory: Path, name: str = "127.0.0.1") -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=30))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False).sign(key, hashes.SHA256())
    paths = directory / "tls.crt", directory / "tls.key"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def served_certificate(daemon: RunningDaemon) -> str:
    return ssl.get_server_certificate(address_parts(daemon.s3), timeout=10)


def test_tls_by_files_and_a_new_certificate_on_sighup(make_daemon, tmp_path):
    certificate, key = self_signed(tmp_path)
    daemon = make_daemon(TREFOIL_S3__CERTIFICATE=str(certificate), TREFOIL_S3__PRIVATE_KEY=str(key)).start()
    s3 = s3_client(daemon, "https", verify=str(certificate))
    s3.create_bucket(Bucket="tls")
    s3.put_object(Bucket="tls", Key="k", Body=b"x" * 100_000)
    assert len(s3.get_object(Bucket="tls", Key="k")["Body"].read()) == 100_000
    s3.close()
    before = served_certificate(daemon)
    self_signed(tmp_path)
    daemon.signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while served_certificate(daemon) == before:
        assert time.monotonic() < deadline
    assert daemon.stop() == 0


def test_a_bad_certificate_is_one_sentence(tmp_path):
    (tmp_path / "x.crt").write_text("no certificate")
    tls = ("--certificate", str(tmp_path / "x.crt"), "--private-key", str(tmp_path / "x.crt"), "--log-level", "error")
    addresses = ("--s3-listen", free_address(), "--admin-listen", free_address())
    ended = run_trefoil("serve", "--state", str(tmp_path / "s"), "--data", str(tmp_path / "d"), *addresses, *tls)
    assert ended.returncode == Exit.USAGE
    assert ended.stderr.startswith("trefoil: s3: cannot use the certificate ") and ended.stderr.count("\n") == 1
