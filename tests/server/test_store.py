from __future__ import annotations

import pytest

from server.errors import UserError
from server.store import check_devices, is_block_device


def test_no_devices_is_one_sentence():
    with pytest.raises(UserError, match="no devices: name each one with --data"):
        check_devices([])


def test_the_same_device_twice_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "device")
    with pytest.raises(UserError, match="are the same device"):
        check_devices([str(tmp_path / "device"), str(tmp_path / "link")])


def test_files_and_absent_paths_are_no_block_devices(tmp_path):
    assert not is_block_device(str(tmp_path))
    assert not is_block_device(str(tmp_path / "absent"))
