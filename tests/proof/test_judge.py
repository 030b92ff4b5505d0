"""The verdict itself, against a dictionary: every kind of fault is named, and what history allows is not a fault."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from tests.proof.clients import key_names, model_listing
from tests.proof.content import content, digest
from tests.proof.history import ABSENT, History
from tests.proof.judge import judge
from tests.proof.load import Load, Mix


class Dictionary:
    """A store that does what it is told. Implements `load.Client`."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.hidden: set[str] = set()

    def put(self, key: str, data: bytes) -> None:
        self.values[key] = data

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def delete(self, key: str) -> None:
        self.values.pop(key, None)

    def copy(self, source: str, key: str) -> None:
        self.values[key] = self.values[source]

    def multipart(self, key: str, parts: Sequence[bytes], *, complete: bool) -> None:
        if complete:
            self.values[key] = b"".join(parts)

    def list(self) -> Sequence[tuple[str, int]]:
        return sorted((key, len(value)) for key, value in self.values.items() if key not in self.hidden)

    def close(self) -> None:
        return


def put(store: Dictionary, history: History, key: str, tag: str) -> bytes:
    data = content(tag, 5000)
    with history.operation(key, "put", digest(data), len(data)):
        store.put(key, data)
    return data


@pytest.fixture
def store() -> Dictionary:
    return Dictionary()


@pytest.fixture
def history(store: Dictionary) -> History:
    history = History()
    for key in ("a", "b", "c"):
        put(store, history, key, f"{key}/1")
        put(store, history, key, f"{key}/2")
    with history.operation("c", "delete", ABSENT, 0):
        store.delete("c")
    return history


def test_a_store_that_kept_everything_is_innocent(store: Dictionary, history: History) -> None:
    assert judge(store, history).faults == []


@pytest.mark.parametrize(
    ("key", "data", "kind"),
    [
        ("a", None, "lost"),
        ("a", content("a/1", 5000), "older"),
        ("a", content("a/2", 5000)[:4096] + bytes(904), "torn"),
        ("a", content("b/2", 5000), "foreign"),
        ("c", content("c/2", 5000), "undeleted"),
    ],
)
def test_each_kind_of_loss_is_named(store: Dictionary, history: History, key: str, data: bytes | None, kind: str) -> None:
    if data is None:
        store.delete(key)
    else:
        store.put(key, data)
    assert judge(store, history).kinds() == {kind}


def test_a_listing_that_hides_a_key_is_named(store: Dictionary, history: History) -> None:
    store.hidden.add("b")
    assert judge(store, history).kinds() == {"listing"}


def test_an_unanswered_operation_may_have_happened_or_not_but_stays_as_it_was_seen(store: Dictionary, history: History) -> None:
    data = content("a/3", 5000)
    with pytest.raises(ConnectionError), history.operation("a", "put", digest(data), len(data)):
        raise ConnectionError
    verdict = judge(store, history)
    assert verdict.faults == []
    verdict.pin(history)
    store.put("a", data)
    assert judge(store, history).kinds() == {"older"}, "it had not happened when it was looked for"


def test_a_cut_allows_what_was_under_way_and_forbids_what_came_later(store: Dictionary) -> None:
    history = History()
    put(store, history, "a", "a/1")
    before = time.monotonic_ns()
    second = put(store, history, "a", "a/2")
    after = time.monotonic_ns()
    third = put(store, history, "a", "a/3")
    allowed = history.allowed("a", before, after)
    assert list(allowed) == [digest(content("a/1", 5000)), digest(second)]
    assert digest(third) not in allowed
    assert ABSENT in history.allowed("a", before - 10**9, after)


def test_the_load_covers_every_operation_and_leaves_what_its_history_says(store: Dictionary) -> None:
    mix = Mix(multipart=5, abort=5, size_max=70_000)
    with Load(lambda: store, threads=3, seed=1, mix=mix) as load:
        load.run_for(0.3)
        load.pause()
        assert judge(store, load.history).faults == []
        load.resume()
        load.run_for(0.3)
    assert load.history.errors == []
    assert {"put", "delete", "copy", "multipart"} <= {op.kind for ops in load.history.keys.values() for op in ops}
    assert judge(store, load.history).faults == []


def test_the_listing_model_is_in_byte_order_and_cuts_at_the_delimiter() -> None:
    assert model_listing(["b", "a/2", "a/1", "a", "é"], "", "/") == [("key", "a"), ("prefix", "a/"), ("key", "b"), ("key", "é")]
    keys = key_names(500)
    assert len(set(keys)) == 500
    assert [name for _, name in model_listing(keys, "", "")] == sorted(keys, key=str.encode)
