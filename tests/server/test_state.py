from __future__ import annotations

import stat

import pytest

from server.errors import Exit, UserError
from server.state import Credentials, StateDirectory, new_credentials


def test_one_daemon_at_a_time(tmp_path):
    state = StateDirectory(tmp_path / "state")
    with state.locked(), pytest.raises(UserError, match="another trefoil daemon uses") as caught, state.locked():
        pass
    assert caught.value.exit_code is Exit.REFUSED
    with state.locked():
        pass


def test_secrets_are_for_the_owner_only_and_stay(tmp_path):
    state = StateDirectory(tmp_path / "state")
    with state.locked():
        token = state.token()
        state.keep_root_credentials(Credentials("AK", "secret"))
    assert state.token() == token and len(token) >= 32
    assert state.root_credentials() == Credentials("AK", "secret")
    for path in (state.token_file, state.credentials_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    assert not list(state.path.glob(".*"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"access_key": "x"}', "null"])
def test_a_damaged_credentials_file_is_one_sentence(tmp_path, text):
    state = StateDirectory(tmp_path)
    state.credentials_file.write_text(text)
    with pytest.raises(UserError, match="is damaged"):
        state.root_credentials()


def test_a_file_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(UserError, match="cannot use the state directory"), StateDirectory(tmp_path / "state").locked():
        pass


def test_a_path_too_long_for_a_socket_is_said(tmp_path):
    with pytest.raises(UserError, match="too long for a unix socket"), StateDirectory(tmp_path / ("x" * 100)).locked():
        pass


def test_new_credentials_have_the_usual_lengths():
    first, second = new_credentials(), new_credentials()
    assert (len(first.access_key), len(first.secret_key)) == (20, 40)
    assert first != second
