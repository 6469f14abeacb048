"""Every setting by flag, environment and file; and one clear line for everything that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import RETRY_FLOOR_S, Config, Integrity, LogLevel, parse_size, settings, socket_path
from agent.core.pacing import Allowance, Policy, Windows, parse_windows
from agent.core.queue import BACKGROUND
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
        ("bandwith_limit = 1", "did you mean bandwidth_limit?"),
        ("notify_command = false", "did you mean notify_commands?"),
        ("max_files = 1", "did you mean max_files_per_job?"),
        ('bandwidth_limit = "fast"', "must be bytes per second such as 2MB, 0 or off"),
        ("bandwidth_limit = -1", "must be bytes per second such as 2MB, 0 or off"),
        ("bandwidth_limit = 1.5", "must be bytes per second such as 2MB"),
        ("bandwidth_limit = true", "must be bytes per second such as 2MB"),
        ('work_limit = "foreground=1"', "must name high, normal, low"),
        ('work_limit = "low=1,low=2"', "must name low once"),
        ('work_hours = "mon-fri"', "must be hours such as mon-fri 08:00-17:00"),
        ('work_hours = "mo 08:00-17:00"', "must name days as mon, tue"),
        ('work_hours = "mon 08:00-25:00"', "must be times from 00:00 to 24:00"),
        ("work_hours = 8", "must be hours such as"),
        ("work_hours = [8]", "must be hours such as"),
        ("max_jobs_per_user = 0", "must be a whole number from 1 to 1000000000, not 0 (off: no limit)"),
        ('max_files_per_job = "none"', "must be a number, not 'none' (off: no limit)"),
        ("minimum_retry_delay_s = -1", "must be from 0 to"),
        ("time_slice_s = 0", "must be above 0"),
        ('notify_commands = "maybe"', "must be true or false (or on, off, yes, no)"),
        ("notify_commands = 1", "must be true or false"),
        ("upload_limit = 0", "must be above 0 bytes (or off)"),
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


WORK = parse_windows("mon-fri 08:00-17:00, sat 09:00-12:00")
NIGHT = parse_windows("daily 22:00-06:00")
MIXED = Allowance(high=None, normal=1_000_000, low=0)

EXAMPLES: dict[str, tuple[str, str, object]] = {
    # name: how it stands in the file, as text in the environment and behind a flag, and what it becomes
    "group_key": ('"nf1-X"', "nf1-X", "nf1-X"),
    "group_ca_file": ('"/x/ca.pem"', "/x/ca.pem", Path("/x/ca.pem")),
    "group_certificate_file": ('"/x/own.pem"', "/x/own.pem", Path("/x/own.pem")),
    "group_key_file": ('"/x/key.pem"', "/x/key.pem", Path("/x/key.pem")),
    "name": ('"kitchen"', "kitchen", "kitchen"),
    "interface": ('["eth0", "192.0.2.7"]', "eth0, 192.0.2.7", ("eth0", "192.0.2.7")),
    "listen_host": ('"192.0.2.7"', "192.0.2.7", "192.0.2.7"),
    "listen_port": ("4711", "4711", 4711),
    "peer": (
        '["h.example:1", "[2001:db8::1]:2"]',
        "h.example:1,[2001:db8::1]:2",
        ("h.example:1", "[2001:db8::1]:2"),
    ),
    "peer_fetch": ("false", "off", False),
    "peer_serve": ("false", "No", False),
    "cache_max_bytes": ('"10GiB"', "10GiB", 10 * 2**30),
    "cache_max_share": ("0.5", "0.5", 0.5),
    "cache_max_age_s": ("86400", "86400", 86_400.0),
    "integrity": ('"anchored"', "Anchored", Integrity.ANCHORED),
    "background_jobs": ("7", "7", 7),
    "connections_per_host": ("2", "2", 2),
    "time_slice_s": ("1.5", "1.5", 1.5),
    "minimum_retry_delay_s": ("60", "60", 60.0),
    "no_progress_timeout_s": ("0", "0", 0.0),
    "maximum_download_time_s": ("3600", "3600", 3600.0),
    "job_inactivity_timeout_s": ("3600", "3600", 3600.0),
    "max_jobs_per_machine": ('"off"', "off", None),
    "max_jobs_per_user": ("5", "5", 5),
    "max_files_per_job": ('"off"', " OFF ", None),
    "max_ranges_per_file": ("1000", "1000", 1000),
    "bandwidth_limit": ('"high=off,normal=1MB,low=0"', "high=off, normal=1MB, low=0", MIXED),
    "work_hours": ('["mon-fri 08:00-17:00", "sat 09:00-12:00"]', "mon-fri 08:00-17:00, sat 09:00-12:00", WORK),
    "work_limit": ("0", "0", Allowance(high=0, normal=0, low=0)),
    "maintenance_hours": ('"daily 22:00-06:00"', "daily 22:00-06:00", NIGHT),
    "maintenance_limit": ("2000000", "2MB", Allowance(high=2_000_000, normal=2_000_000, low=2_000_000)),
    "upload_limit": ('"1.5MB"', "1.5MB", 1_500_000),
    "notify_commands": ("false", "false", False),
    "ca_file": ('"/x/ca.pem"', "/x/ca.pem", Path("/x/ca.pem")),
    "log_level": ('"debug"', "DEBUG", LogLevel.DEBUG),
}
TOGETHER = ("group_ca_file", "group_certificate_file", "group_key_file")


def test_there_is_an_example_of_every_setting() -> None:
    assert list(EXAMPLES) == [name for name, _ in settings()]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_setting_by_file_by_environment_and_by_flag(tmp_path: Path, name: str) -> None:
    names = TOGETHER if name in TOGETHER else (name,)
    by_file = load(tmp_path, "\n".join(f"{each} = {EXAMPLES[each][0]}" for each in names))
    by_environment = load(tmp_path, **{f"NEARFETCH_{each.upper()}": EXAMPLES[each][1] for each in names})
    by_flag = load(tmp_path, flags={each: EXAMPLES[each][1] for each in names})
    expected = EXAMPLES[name][2]
    assert getattr(Config(home=tmp_path), name) != expected
    for config in (by_file, by_environment, by_flag):
        assert getattr(config, name) == expected
        assert type(getattr(config, name)) is type(expected)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("bandwidth_limit", "off", Allowance()),
        ("bandwidth_limit", 0, Allowance(high=0, normal=0, low=0)),
        ("bandwidth_limit", "low=10", Allowance(low=10)),
        ("work_hours", "off", Windows()),
        ("work_hours", [], Windows()),
        ("maintenance_hours", "Off", Windows()),
        ("cache_max_bytes", "off", None),
        ("upload_limit", "off", None),
        ("max_ranges_per_file", "off", None),
        ("minimum_retry_delay_s", 0, RETRY_FLOOR_S),
        ("minimum_retry_delay_s", 4.9, 5.0),
        ("notify_commands", True, True),
        ("notify_commands", "yes", True),
    ],
)
def test_zero_off_and_the_floor(tmp_path: Path, name: str, text: object, value: object) -> None:
    """As a flag, so that it wins over what stands in the file and means something else."""
    file = {"bandwidth_limit": "5", "cache_max_bytes": "5", "upload_limit": "5", "notify_commands": "false"}
    if text == []:  # as a flag: not given
        config = load(tmp_path, f"{name} = []")
    else:
        config = load(tmp_path, "\n".join(f"{key} = {was}" for key, was in file.items()), {name: text})
    assert getattr(config, name) == value


def test_the_defaults_of_bits(tmp_path: Path) -> None:
    """bits-reference 1.4 and 7.3; where ours differ, the table of differences says so."""
    config = Config(home=tmp_path)
    day = 86_400
    assert (config.max_jobs_per_machine, config.max_jobs_per_user) == (300, 60)
    assert (config.max_files_per_job, config.max_ranges_per_file) == (200, 500)
    assert config.minimum_retry_delay_s == 600
    assert config.no_progress_timeout_s == 1_209_600 == 14 * day
    assert config.maximum_download_time_s == 7_776_000 == 90 * day
    assert config.job_inactivity_timeout_s == 90 * day
    assert config.cache_max_age_s == 90 * day
    assert config.policy() == Policy()
    assert config.policy().limited() == frozenset()


def test_the_policy_is_made_of_the_settings(tmp_path: Path) -> None:
    text = """
        bandwidth_limit = "3MB"
        work_hours = "mon-fri 08:00-17:00"
        work_limit = "high=off,normal=1MB,low=0"
        maintenance_hours = "tue 12:00-13:00"
        maintenance_limit = 0
    """
    policy = load(tmp_path, text).policy()
    noon, morning, night = 12 * 3600 + 60, 9 * 3600, 3 * 3600
    assert policy.allowance(0, morning) == MIXED
    assert policy.allowance(0, night) == Allowance(high=3_000_000, normal=3_000_000, low=3_000_000)
    assert policy.allowance(1, noon) == Allowance(high=0, normal=0, low=0)
    assert policy.allowance(2, noon) == MIXED
    assert policy.limited() == frozenset(BACKGROUND)


def test_a_user_cannot_have_more_jobs_than_the_machine(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_jobs_per_user \(61\) is above max_jobs_per_machine \(60\)"):
        load(tmp_path, "max_jobs_per_user = 61", {"max_jobs_per_machine": 60})
    same = load(tmp_path, "max_jobs_per_user = 60\nmax_jobs_per_machine = 60")
    assert same.max_jobs_per_user == 60
    assert load(tmp_path, 'max_jobs_per_user = 1000\nmax_jobs_per_machine = "off"').max_jobs_per_user == 1000
    assert load(tmp_path, 'max_jobs_per_user = "off"\nmax_jobs_per_machine = 10').max_jobs_per_user is None


def test_a_smaller_machine_lowers_what_nobody_set_for_a_user(tmp_path: Path) -> None:
    assert load(tmp_path, "max_jobs_per_machine = 20").max_jobs_per_user == 20
    assert load(tmp_path, "max_jobs_per_machine = 100").max_jobs_per_user == 60


def test_what_a_notify_command_is_told_is_no_setting(tmp_path: Path) -> None:
    told = {"NEARFETCH_JOB": "1" * 32, "NEARFETCH_STATE": "ERROR", "NEARFETCH_EVENT": "job-error"}
    config = load(tmp_path, NEARFETCH_SERIAL="1", NEARFETCH_HOME="/elsewhere", **told)
    assert config == Config(home=tmp_path)
    with pytest.raises(ConfigError, match="NEARFETCH_JOBS: there is no such setting"):
        load(tmp_path, NEARFETCH_JOBS="1")


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
