from __future__ import annotations

import re
import tomllib

from server.config import ExportSection, Settings, setting_names
from server.config_text import EXAMPLES, annotated


def uncommented() -> dict:
    return tomllib.loads(re.sub(r"(?m)^#(?=[a-z_0-9]+ = |\[\[)", "", annotated()))


def test_printed_as_it_is_it_changes_nothing():
    assert all(not section for section in tomllib.loads(annotated()).values())


def test_every_setting_is_printed_with_its_default():
    printed = uncommented()
    defaults = Settings().model_dump(mode="json")
    for path in setting_names():
        value, default = printed, defaults
        for name in path:
            value, default = value[name], default[name]
        if path == ("nfs", "export"):
            value, default = value[0], ExportSection(path="/").model_dump(mode="json")
            assert value == {key: EXAMPLES.get(f"nfs.export.{key}", default[key]) for key in default}
        else:
            assert value == EXAMPLES.get(".".join(path), default), path


def test_it_is_a_valid_configuration():
    Settings.model_validate(uncommented())
