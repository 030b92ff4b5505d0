"""The verdict: does a store hold exactly what it acknowledged?

For every key: its content is one of the states that the history allows (never torn, never older, a deletion stays one), the listing
names exactly the keys that can be read, with their sizes and in order, and the store still takes and returns a new write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.proof.content import content, digest
from tests.proof.history import ABSENT, History
from tests.proof.load import Client

FAULTS_REPORTED_MAX = 20
PROBE_KEY = "zz-probe"


@dataclass
class Verdict:
    """Faults, one sentence each, begun by their kind: `lost`, `older`, `undeleted`, `torn`, `foreign`, `listing`, `unusable`."""

    keys: int = 0
    faults: list[str] = field(default_factory=list)
    observed: dict[str, tuple[str, int]] = field(default_factory=dict)
    """State and size in which each key was found."""

    def pin(self, history: History) -> None:
        """Hold the store to what was found: an unanswered operation may have happened or not, but not change its mind later."""
        for key, (state, size) in self.observed.items():
            history.observe(key, state, size)

    def add(self, kind: str, sentence: str) -> None:
        if len(self.faults) < FAULTS_REPORTED_MAX:
            self.faults.append(f"{kind}: {sentence}")

    def kinds(self) -> set[str]:
        return {fault.split(":", 1)[0] for fault in self.faults}


def judge(client: Client, history: History, before_ns: int | None = None, after_ns: int | None = None, *, probe: bool = True) -> Verdict:
    """Compare a quiet store with the history of a load cut at a moment (or of the whole load)."""
    verdict = Verdict()
    known = history.known_states()
    sizes: dict[str, int] = {}
    for key in sorted(history.keys):
        verdict.keys += 1
        try:
            data = client.get(key)
        except Exception as error:
            verdict.add("unusable", f"{key} cannot be read: {type(error).__name__}: {error}")
            continue
        if data is not None:
            sizes[key] = len(data)
        _judge_key(verdict, history, known, key, data, before_ns, after_ns)
    _judge_listing(verdict, client, sizes)
    if probe:
        _judge_probe(verdict, client)
    return verdict


def _judge_key(
    verdict: Verdict, history: History, known: Mapping[str, str], key: str, data: bytes | None, before_ns: int | None, after_ns: int | None
) -> None:
    allowed = history.allowed(key, before_ns, after_ns)
    state = ABSENT if data is None else digest(data)
    verdict.observed[key] = (state, 0 if data is None else len(data))
    if state in allowed:
        return
    expected = ", ".join(f"{op.kind} of {op.size} bytes" if op else "nothing" for op in allowed.values())
    if data is None:
        verdict.add("lost", f"{key} is gone; allowed: {expected}")
    elif state not in known:
        verdict.add("torn", f"{key} holds {len(data)} bytes that were never written; allowed: {expected}")
    elif not any(op.state == state for op in history.keys[key]):
        verdict.add("foreign", f"{key} holds content of {known[state]}")
    elif set(allowed) == {ABSENT}:
        verdict.add("undeleted", f"{key} holds {len(data)} bytes after its deletion was acknowledged")
    else:
        verdict.add("older", f"{key} holds another generation ({len(data)} bytes); allowed: {expected}")


def _judge_listing(verdict: Verdict, client: Client, sizes: dict[str, int]) -> None:
    try:
        listed = [(key, size) for key, size in client.list() if key != PROBE_KEY]
    except Exception as error:
        verdict.add("unusable", f"listing fails: {type(error).__name__}: {error}")
        return
    if [key for key, _ in listed] != sorted((key for key, _ in listed), key=str.encode):
        verdict.add("listing", "keys are out of order")
    found = dict(listed)
    for key in sorted(found.keys() ^ sizes.keys()):
        verdict.add("listing", f"{key} is {'listed but cannot be read' if key in found else 'readable but not listed'}")
    for key in sorted(found.keys() & sizes.keys()):
        if found[key] != sizes[key]:
            verdict.add("listing", f"{key} is listed with {found[key]} bytes and has {sizes[key]}")


def _judge_probe(verdict: Verdict, client: Client) -> None:
    data = content("probe", 200_000)
    try:
        client.put(PROBE_KEY, data)
        if client.get(PROBE_KEY) != data:
            verdict.add("unusable", "a new write reads back differently")
        client.delete(PROBE_KEY)
    except Exception as error:
        verdict.add("unusable", f"a new write fails: {type(error).__name__}: {error}")
