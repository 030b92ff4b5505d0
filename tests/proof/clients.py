"""The main job with stock clients: the AWS CLI and boto3, default settings, over HTTP and HTTPS.

A real tree and one big file up and down with equal SHA-256; a multipart upload of a generated stream while the daemon's resident memory
is sampled; many keys listed in order with delimiters and pages of every size, equal to a model. Sizes are parameters: small in the
everyday suites, full in `bench/main_job.py`.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.client import BaseClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.x509.oid import NameOID

from tests.proof.daemon import Daemon, Tls
from tests.proof.s3 import Endpoint, S3Client

BLOCK_BYTES = 4 << 20
RSS_SECONDS = 0.2
CLI_SECONDS_MAX = 3600.0


class JobFailed(AssertionError):
    """A stock client failed, or got something else than it sent."""


def make_tls(directory: Path) -> Tls:
    """A certificate authority of one's own and a certificate for the loopback address."""
    directory.mkdir(parents=True, exist_ok=True)
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "proof authority")])
    authority = _certificate(authority_name, authority_name, authority_key.public_key(), authority_key, is_authority=True)
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    server = _certificate(server_name, authority_name, server_key.public_key(), authority_key, is_authority=False)
    tls = Tls(directory / "server.pem", directory / "server.key", directory / "ca.pem")
    tls.certificate.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    tls.ca.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    tls.private_key.write_bytes(
        server_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    tls.private_key.chmod(0o600)
    return tls


def _certificate(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePrivateKey, *, is_authority: bool
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number(), now, now + datetime.timedelta(days=2))
    builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    if not is_authority:
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256())


def make_tree(target: Path, files: int, sources: Sequence[Path] | None = None) -> int:
    """Copy so many real files into a tree: from the given directories, else from what this Python has installed. Returns the bytes."""
    found = sources or [Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("stdlib"))]
    count = size = 0
    # Too few files on a small machine: the same ones again in another folder.
    for lap in itertools.count():
        before = count
        for source in found:
            for path in _regular_files(source):
                copy = target / f"{source.name}-{lap}" / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
                count, size = count + 1, size + copy.stat().st_size
                if count >= files:
                    return size
        if count == before:
            raise JobFailed(f"no files below {', '.join(map(str, found))}")
    return size


def _regular_files(source: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(source):
        names[:] = sorted(name for name in names if name != "__pycache__")
        for name in sorted(files):
            path = Path(directory) / name
            if path.is_file() and not path.is_symlink():
                yield path


def make_file(path: Path, size: int, seed: str = "file") -> None:
    with path.open("wb") as file:
        for block in stream(size, seed):
            file.write(block)


def stream(size: int, seed: str) -> Iterator[bytes]:
    """Pseudo-random bytes at a few GB/s: a cipher's key stream, no two blocks alike."""
    key = hashlib.sha256(seed.encode()).digest()
    cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    zeros = bytes(BLOCK_BYTES)
    while size > 0:
        yield cipher.update(zeros[: min(size, BLOCK_BYTES)])
        size -= BLOCK_BYTES


def tree_digests(root: Path) -> Mapping[str, str]:
    return {str(path.relative_to(root)): file_digest(path) for path in sorted(root.rglob("*")) if path.is_file()}


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def aws(endpoint: Endpoint, *arguments: str) -> str:
    """The AWS CLI as installed, with no settings but credentials, region and endpoint. Returns what it printed."""
    beside = Path(sys.executable).parent / "aws"
    program = str(beside) if beside.exists() else shutil.which("aws")
    if not program:
        raise JobFailed("no aws command; pip install awscli")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {
        "AWS_ACCESS_KEY_ID": endpoint.access_key,
        "AWS_SECRET_ACCESS_KEY": endpoint.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    environment["AWS_CONFIG_FILE"] = environment["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    if endpoint.ca_file:
        environment["AWS_CA_BUNDLE"] = endpoint.ca_file
    command = [program, "--endpoint-url", endpoint.url, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=CLI_SECONDS_MAX, check=False)
    if done.returncode:
        raise JobFailed(f"aws {' '.join(arguments)} ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def boto(endpoint: Endpoint) -> Any:
    """boto3's S3 client with default settings."""
    client: BaseClient = boto3.client(
        "s3",
        endpoint_url=endpoint.url,
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
        region_name="us-east-1",
        verify=endpoint.ca_file or None,
    )
    return client


@dataclass
class JobReport:
    """What was done and how long each step took."""

    seconds: dict[str, float] = field(default_factory=dict)
    rss_bytes_max: int = 0

    def timed(self, name: str, began: float) -> None:
        self.seconds[name] = time.monotonic() - began

    def sentence(self) -> str:
        times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        return f"{times}; resident memory at most {self.rss_bytes_max / (1 << 20):.0f} MiB"


class MemoryWatch:
    """Samples a daemon's resident memory while it is entered."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.bytes_max = 0

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.is_set():
            self.bytes_max = max(self.bytes_max, self._daemon.rss_bytes())
            self._done.wait(RSS_SECONDS)


def sync_tree(endpoint: Endpoint, tree: Path, work: Path, bucket: str, report: JobReport) -> None:
    """`aws s3 sync` up, down, compare, and up again, which must find nothing to do."""
    aws(endpoint, "s3", "mb", f"s3://{bucket}")
    began = time.monotonic()
    aws(endpoint, "s3", "sync", "--only-show-errors", str(tree), f"s3://{bucket}/tree")
    report.timed("sync up", began)
    began = time.monotonic()
    back = work / "tree-back"
    aws(endpoint, "s3", "sync", "--only-show-errors", f"s3://{bucket}/tree", str(back))
    report.timed("sync down", began)
    sent, received = tree_digests(tree), tree_digests(back)
    if sent != received:
        different = sorted(name for name in sent.keys() | received.keys() if sent.get(name) != received.get(name))
        raise JobFailed(f"{len(different)} of {len(sent)} files differ after the round trip, first {different[:5]}")
    # Times of a downloaded file are those of the object, so nothing is newer than what is stored.
    again = aws(endpoint, "s3", "sync", str(back), f"s3://{bucket}/tree")
    if again.strip():
        raise JobFailed(f"a second sync uploads again: {again[:500]}")
    shutil.rmtree(back)


def copy_file(endpoint: Endpoint, source: Path, work: Path, bucket: str, report: JobReport) -> None:
    """One big file through the AWS CLI's default multipart settings."""
    back = work / "file-back"
    began = time.monotonic()
    aws(endpoint, "s3", "cp", "--only-show-errors", str(source), f"s3://{bucket}/big/file")
    report.timed("file up", began)
    began = time.monotonic()
    aws(endpoint, "s3", "cp", "--only-show-errors", f"s3://{bucket}/big/file", str(back))
    report.timed("file down", began)
    if file_digest(source) != file_digest(back):
        raise JobFailed("the big file differs after the round trip")
    back.unlink()


class _Stream:
    """A readable that boto3 uploads without knowing its length; remembers the digest of what it gave."""

    def __init__(self, size: int, seed: str) -> None:
        self._blocks = stream(size, seed)
        self._rest = b""
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        pieces, wanted = [self._rest], size - len(self._rest)
        while size < 0 or wanted > 0:
            block = next(self._blocks, b"")
            if not block:
                break
            pieces.append(block)
            wanted -= len(block)
        data = b"".join(pieces)
        taken, self._rest = (data, b"") if size < 0 else (data[:size], data[size:])
        self.digest.update(taken)
        return taken


def upload_stream(daemon: Daemon, size: int, bucket: str, report: JobReport, *, read_back: bool = True) -> None:
    """boto3 `upload_fileobj` of a generated stream (multipart, 8 MiB parts, ten at a time), memory watched; then read it back."""
    client, source = boto(daemon.spec.endpoint), _Stream(size, "stream")
    with MemoryWatch(daemon) as watch:
        began = time.monotonic()
        client.upload_fileobj(source, bucket, "big/stream")
        report.timed("stream up", began)
        if read_back:
            began = time.monotonic()
            digest, length = hashlib.sha256(), 0
            for block in client.get_object(Bucket=bucket, Key="big/stream")["Body"].iter_chunks(BLOCK_BYTES):
                digest.update(block)
                length += len(block)
            report.timed("stream down", began)
            if length != size or digest.digest() != source.digest.digest():
                raise JobFailed(f"the stream reads back differently ({length} of {size} bytes)")
    report.rss_bytes_max = max(report.rss_bytes_max, watch.bytes_max)


def key_names(count: int) -> Sequence[str]:
    """Keys whose byte order is not their obvious order: nested, with shared prefixes, spaces, signs, and several scripts."""
    shapes = (
        "{0}/{1}/{2:05}",
        "{0}/{1}-{2}",
        "{0} {1}/x+{2}",
        "{0}/{1}/{1}/{2}",
        "{0}&{1}%20/{2}",
        "é{0}/ß{1}/{2}",
        "{0}/日本{1}/😀{2}",
        "{0}{2}",
        "{0}//{1}/{2}",
    )
    names = dict.fromkeys(
        shapes[number % len(shapes)].format(chr(97 + number % 23), number // len(shapes) % 37, number) for number in range(count)
    )
    return list(names)


def model_listing(keys: Sequence[str], prefix: str, delimiter: str) -> Sequence[tuple[str, str]]:
    """What S3 lists, in order: ("key", name) or ("prefix", common prefix)."""
    found: dict[tuple[str, str], None] = {}
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        found[("key", key) if cut < 0 else ("prefix", key[: cut + len(delimiter)])] = None
    return list(found)


def put_keys(endpoint: Endpoint, bucket: str, keys: Sequence[str], report: JobReport, threads: int = 4) -> None:
    def put(share: Sequence[str]) -> None:
        with S3Client(endpoint, bucket) as client:
            for key in share:
                client.put(key, b"")

    began = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(put, [keys[start::threads] for start in range(threads)]))
    report.timed(f"put {len(keys)} keys", began)


def check_listings(endpoint: Endpoint, bucket: str, keys: Sequence[str], report: JobReport) -> None:
    """boto3's listings, v2 and v1, against the model: whole, by delimiter, by prefix, with pages of many sizes."""
    client = boto(endpoint)
    began = time.monotonic()
    _check_listing(client, bucket, keys, "", "", 1000)
    report.timed(f"list {len(keys)} keys", began)
    few = max(2, len(keys) // 50)
    for prefix, delimiter, page in (
        ("", "/", 1000),
        ("", "/", 7),
        ("a", "/", 3),
        ("a/", "/", few),
        ("b", "", few),
        ("é", "/", 5),
        ("", "-", few),
        ("zz", "", 5),
    ):
        _check_listing(client, bucket, keys, prefix, delimiter, page)
    report.timed("all listings", began)


def _check_listing(client: Any, bucket: str, keys: Sequence[str], prefix: str, delimiter: str, page: int) -> None:
    expected = model_listing(keys, prefix, delimiter)
    for operation in ("list_objects_v2", "list_objects"):
        arguments = {"Bucket": bucket, "Prefix": prefix, "PaginationConfig": {"PageSize": page}}
        if delimiter:
            arguments["Delimiter"] = delimiter
        found: list[tuple[str, str]] = []
        for answer in client.get_paginator(operation).paginate(**arguments):
            entries = [("key", item["Key"]) for item in answer.get("Contents", [])]
            entries += [("prefix", item["Prefix"]) for item in answer.get("CommonPrefixes", [])]
            if len(entries) > page:
                raise JobFailed(f"{operation}: a page of {page} has {len(entries)} entries")
            # A page names keys and prefixes apart; together they are in order.
            found += sorted(entries, key=lambda entry: entry[1].encode())
        if found != expected:
            where = next(
                (at for at, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), min(len(found), len(expected))
            )
            raise JobFailed(
                f"{operation} prefix={prefix!r} delimiter={delimiter!r} page={page}: {len(found)} entries, not {len(expected)}; "
                f"differs at {where}: {found[where : where + 2]} instead of {expected[where : where + 2]}"
            )
