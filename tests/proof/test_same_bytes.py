"""S3 and files show one tree, whatever both do to it; a model with a wrong rule does not get away with it. Needs /dev/fuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.proof.same_bytes.model import Model, Object
from tests.proof.same_bytes.run import Different, Subject, run
from tests.proof.same_bytes.world import subjects

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = 250
SEEDS = (11, 12)
CONTROL_STEPS_MAX = 400


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Subject]]:
    with subjects(tmp_path_factory.mktemp("same-bytes")) as made:
        yield made


@pytest.mark.parametrize("seed", SEEDS)
def test_every_face_shows_the_same_tree(subject: Callable[[str], Subject], seed: int) -> None:
    done = run(subject(f"judged-{seed}"), STEPS, seed)
    assert done > STEPS // 4, "most operations failed: hardly anything was judged"


class KeepsImplied(Model):
    """A directory that a key implied stays when the key goes."""

    def delete(self, key: str) -> None:
        self.explicit.update(path for path in self.directories() if key.startswith(path + "/"))
        super().delete(key)


class OverwritesLinks(Model):
    """S3 writes into the file instead of replacing it, and so changes what its other names lead to."""

    def put(self, key: str, content: bytes, metadata: dict[str, str], tags: dict[str, str]) -> None:
        old = self.objects.get(key)
        super().put(key, content, metadata, tags)
        if old is not None:
            self.objects = {name: self.objects[key] if found is old else found for name, found in self.objects.items()}


class LosesWhatIsBehind(Model):
    """An object with the name of a directory is gone for files."""

    def aside(self) -> dict[str, Object]:
        hidden = self.directories()
        return {name: found for name, found in super().aside().items() if name not in hidden}


class ForgetsMetadata(Model):
    """What files say of an object, S3 does not hear."""

    def set_metadata(self, path: str, name: str, value: str) -> None:
        self.file(path)


@pytest.mark.parametrize("wrong", [KeepsImplied, OverwritesLinks, LosesWhatIsBehind, ForgetsMetadata])
def test_a_wrong_rule_is_caught(subject: Callable[[str], Subject], wrong: type[Model]) -> None:
    with pytest.raises(Different, match=r"missing|should"):
        run(subject(wrong.__name__.lower()), CONTROL_STEPS_MAX, seed=5, model=wrong())
