"""Every setting by flag, environment and file; and one clear line for everything that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import Config, Integrity, LogLevel, parse_size, settings, socket_path
from agent.errors import ConfigError, ExitCode


def load(home: Path, text: str = "", flags: dict[str, object] | None = None, **environ: str) -> Config:
    (home / "config.toml").write_text(text, encoding="utf-8")
    return Config.load(home, flags or {}, environ)


def test_defaults(tmp_path: Path) -> None:
    config = Config.load(tmp_path / "new", {}, {})
    assert config == Config(home=tmp_path / "new")
    assert config.background_jobs == 4
    assert config.cache_max_bytes is None
    assert config.integrity is Integrity.VOUCHED


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    text = 'name = "file"\nbackground_jobs = 1\nlisten_port = 1'
    config = load(tmp_path, text, {"name": "flag"}, NEARFETCH_NAME="environment", NEARFETCH_BACKGROUND_JOBS="2")
    assert (config.name, config.background_jobs, config.listen_port) == ("flag", 2, 1)


def test_flags_not_given_and_empty_variables_do_not_count(tmp_path: Path) -> None:
    config = load(
        tmp_path, 'name = "file"', {"name": None, "interface": (), "peer": []}, NEARFETCH_NAME="", PATH="x"
    )
    assert config.name == "file"
    assert config.interface == ()


def test_every_kind_of_value(tmp_path: Path) -> None:
    text = """
        interface = ["eth0", "192.0.2.7"]
        peer = ["[2001:db8::1]:4711", "host.example:1"]
        cache_max_bytes = "10GiB"
        upload_limit = 1000
        cache_max_share = 0.5
        integrity = "anchored"
        log_level = "DEBUG"
        ca_file = "ca.pem"
        minimum_retry_delay_s = 5
    """
    config = load(tmp_path, text)
    assert config.interface == ("eth0", "192.0.2.7")
    assert config.peer == ("[2001:db8::1]:4711", "host.example:1")
    assert config.cache_max_bytes == 10 * 1024**3
    assert config.upload_limit == 1000
    assert config.integrity is Integrity.ANCHORED
    assert config.log_level is LogLevel.DEBUG
    assert config.ca_file == tmp_path / "ca.pem"
    assert config.minimum_retry_delay_s == 5.0


def test_lists_in_the_environment_are_separated_by_commas(tmp_path: Path) -> None:
    assert load(tmp_path, NEARFETCH_INTERFACE="lo, eth0").interface == ("lo", "eth0")


def test_off_is_none(tmp_path: Path) -> None:
    assert load(tmp_path, "upload_limit = 5", {"upload_limit": "off"}).upload_limit is None


def test_the_home_from_the_environment(tmp_path: Path) -> None:
    assert Config.load(None, {}, {"NEARFETCH_HOME": str(tmp_path)}).home == tmp_path
    assert Config.load(tmp_path / "a", {}, {"NEARFETCH_HOME": "/elsewhere"}).home == tmp_path / "a"


def test_the_group_key_from_its_file_unless_said_otherwise(tmp_path: Path) -> None:
    (tmp_path / "group.key").write_text("nf1-FROM-FILE\n", encoding="utf-8")
    assert load(tmp_path).group_key == "nf1-FROM-FILE"
    assert load(tmp_path, NEARFETCH_GROUP_KEY="nf1-SAID").group_key == "nf1-SAID"
    assert "nf1" not in repr(load(tmp_path))
    files = 'group_ca_file = "a"\ngroup_certificate_file = "/b"\ngroup_key_file = "c"'
    config = load(tmp_path, files)
    assert config.group_key is None
    assert config.group_certificate_file == Path("/b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cache_max_byte = 1", "did you mean cache_max_bytes?"),
        ("Interfaces = []", "did you mean interface?"),
        ("zzz = 1", "there is no such setting"),
        ('home = "/x"', "there is no such setting"),
        ("[section]\nx = 1", "there is no such setting"),
        ("cache_max_share = 3", "cache_max_share must be above 0 and at most 1"),
        ('cache_max_share = "nan"', "must be a number"),
        ("background_jobs = 0", "whole number from 1"),
        ("background_jobs = 1.5", "whole number"),
        ("background_jobs = true", "must be a number"),
        ("listen_port = 65536", "whole number from 0 to 65535"),
        ('cache_max_bytes = "10 parsecs"', "must be a size such as"),
        ("cache_max_bytes = 0", "must be above 0 bytes"),
        ('peer = ["host"]', "must be HOST:PORT"),
        ('peer = ["host:70000"]', "must be HOST:PORT"),
        ('integrity = "voched"', "must be one of anchored, vouched, whole"),
        ('interface = "a\\nb"', "must be a line of text"),
        ("name = 5", "must be a line of text"),
        ("ca_file = 5", "must be a path"),
        ("name = ", "is not TOML"),
        ('group_key = "x"\ngroup_ca_file = "y"', "either a key or certificates"),
        ('group_ca_file = "y"', "go together"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code is ExitCode.CONFIG


def test_the_place_of_a_mistake_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.toml: cache_size"):
        load(tmp_path, "cache_size = 1")
    with pytest.raises(ConfigError, match=r"NEARFETCH_INTERFACES: .* did you mean interface"):
        load(tmp_path, NEARFETCH_INTERFACES="lo")
    with pytest.raises(ConfigError, match="--listen-port must be"):
        load(tmp_path, flags={"listen_port": -1})


def test_a_malformed_secret_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "group_key = 123456")
    assert "123456" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1048576", 2**20), ("10GiB", 10 * 2**30), ("1.5 kB", 1500), ("2 TiB", 2 * 2**40), ("7b", 7)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_all_settings_are_known() -> None:
    names = [name for name, _ in settings()]
    assert "listen_port" in names
    for name in names:  # a field without a parser would be an unknown key
        with pytest.raises(ConfigError) as caught:
            Config.load(Path("/nowhere"), {name: object()}, {})
        assert "no such setting" not in str(caught.value)


def test_the_socket_lies_in_the_home_unless_its_name_is_too_long(tmp_path: Path) -> None:
    assert socket_path(tmp_path) == tmp_path / "agent.sock"
    deep = tmp_path / ("d" * 100)
    assert len(str(socket_path(deep))) < 100
    assert socket_path(deep) == socket_path(deep)
    assert socket_path(deep) != socket_path(tmp_path / ("e" * 100))
    deep.mkdir()
    (tmp_path / "short").symlink_to(deep)
    assert socket_path(tmp_path / "short") == socket_path(deep)
