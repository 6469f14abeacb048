"""What people write on a command line, and the sentence for what cannot be read."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from agent.cli_find import Named, one_of
from agent.cli_job_options import CHANGES, CREATION, job_change, new_job
from agent.cli_job_properties import FILE_PROPERTIES, JOB_PROPERTIES, bare
from agent.cli_parse import (
    flags_of,
    headers_of,
    listed_files,
    pairs_of,
    ranges_of,
    seconds_of,
    share_of,
    size_of,
    text_of,
)
from agent.errors import NotFoundError, UsageError
from agent.schema import HttpSettings, JobChange, NewJob, Priority, ProxyUsage, SecurityFlag


def given(table: dict[str, Any], **values: Any) -> dict[str, Any]:
    """As typer hands the options over: None for what is not on the command line."""
    assert values.keys() <= table.keys()
    return dict.fromkeys(table) | values


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("1.5", 1.5), ("10m", 600), ("2h", 7200), ("14D", 1_209_600)]
)
def test_seconds(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "-5", "5w", "nan", "inf", "1e9", "5 m", "36501d"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match=r"time|hundred years"):
        seconds_of(text)


def test_sizes_and_shares() -> None:
    assert size_of("10GiB") == 10 * 2**30
    assert size_of("0") == 0
    for text in ("-1", "", "5XB", "9999999TiB"):
        with pytest.raises(UsageError, match=r"size|larger"):
            size_of(text)
    assert share_of("10%") == share_of("0.1") == 0.1
    for text in ("0", "81%", "0.81", "-1%", "ten"):
        with pytest.raises(UsageError, match="share"):
            share_of(text)


def test_ranges() -> None:
    found = ranges_of(["0:1000", "1MiB:eof,5:1KiB"])
    assert [(item.offset, item.length) for item in found] == [(0, 1000), (2**20, None), (5, 1024)]


@pytest.mark.parametrize("text", ["", "5", "5:", ":5", "-1:5", "5:-1", "5:0", "a:b", "0:5,"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(UsageError) as found:
        ranges_of([text])
    assert found.value.code == "INVALID_RANGE"


def test_headers() -> None:
    assert headers_of(["X-A: b:c", "Accept:  text/plain "]) == {"X-A": "b:c", "Accept": "text/plain"}
    for texts in (["X-A"], [": x"], ["X-A: 1", "x-a: 2"]):
        with pytest.raises(UsageError, match=r"NAME: VALUE|twice"):
            headers_of(texts)


def test_notify_flags() -> None:
    assert flags_of("3") == flags_of("job-transferred,job-error") == flags_of("Job-Error, job-transferred") == 3
    assert flags_of("none") == flags_of("0") == 0
    assert flags_of("file-ranges-transferred,disable") == 36
    for text in ("64", "-1", "", "job", "none,job-error"):
        with pytest.raises(UsageError, match="notify flags"):
            flags_of(text)


def test_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (one, two) = pairs_of(["http://x/a", "a", "https://x/b", "/b"])
    assert (one.path, two.path) == (str(tmp_path / "a"), "/b")
    for words in ([], ["http://x/a"], ["a", "http://x/a"], ["ftp://x/a", "a"], ["http://x/a", ""]):
        with pytest.raises(UsageError):
            pairs_of(words)


def test_a_list_of_files(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("# images\n\nhttp://x/a /d/a\n  http://x/b\t/d/b c  \n")
    assert [(file.url, file.path) for file in listed_files(str(path))] == [
        ("http://x/a", "/d/a"),
        ("http://x/b", "/d/b c"),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"http://x/a /a\nhttp://x/b\n", "line 2: expected URL PATH, not 'http://x/b'"),
        (b"\n\nxyz /a\n", "line 3: 'xyz' is not a URL"),
        (b"ftp://x/a /a", "line 1: ftp:// is not supported"),
        (b"http://x/a /a\n\xff\xfe /b\n", "line 2: not UTF-8"),
        (b"# nothing\n", "names no file"),
    ],
)
def test_mistakes_in_a_list_name_the_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "list"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="list") as found:
        listed_files(str(path))
    assert said in str(found.value)


def test_a_list_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="No such file"):
        listed_files(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="directory"):
        listed_files(str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"http://x/a\n")))
    with pytest.raises(UsageError, match="standard input, line 1"):
        listed_files("-")
    monkeypatch.setattr("agent.cli_parse.MAX_LIST_BYTES", 3)
    (tmp_path / "long").write_text("12345")
    with pytest.raises(UsageError, match="longer than 3 bytes"):
        text_of(str(tmp_path / "long"))


# The properties of a job


def test_every_property_has_an_option() -> None:
    """Everything that REST takes can be said on the command line."""
    renamed = {
        "minimum_retry_delay_s": "minimum_retry_delay",
        "no_progress_timeout_s": "no_progress_timeout",
        "maximum_download_time_s": "maximum_download_time",
        "headers": "header",
        "allow_https_to_http": "https_to_http",
    }
    http = {renamed.get(name, name) for name in HttpSettings.__struct_fields__}
    new = {renamed.get(name, name) for name in NewJob.__struct_fields__} - {"name", "files", "http"} | http
    assert new <= CREATION.keys()
    change = {renamed.get(name, name) for name in JobChange.__struct_fields__} - {"http"} | http
    assert change <= CHANGES.keys()


def test_a_new_job() -> None:
    job = new_job(
        "j",
        given(
            CREATION,
            priority=Priority.LOW,
            minimum_retry_delay="10m",
            no_progress_timeout="0",
            maximum_bytes="1KiB",
            rate_limit="off",
            notify_flags="none",
            notify_command="/bin/x",
            notify_arg=["a b", "c"],
            peer_serve=False,
            header=["X: y"],
            security=["ignore-name,ignore-date", "ignore-name"],
            proxy_url="http://p:1",
            proxy_bypass=["<local>"],
            client_certificate="c.pem",
            on_demand=True,
        ),
    )
    assert (job.minimum_retry_delay_s, job.no_progress_timeout_s, job.maximum_download_time_s) == (600, 0, None)
    assert (job.maximum_bytes, job.rate_limit, job.notify_flags) == (1024, None, 0)
    assert job.notify_command == ["/bin/x", "a b", "c"]
    assert (job.peer_fetch, job.peer_serve, job.on_demand) == (True, False, True)
    assert job.http.headers == {"X": "y"}
    assert job.http.security == [SecurityFlag.IGNORE_NAME, SecurityFlag.IGNORE_DATE]
    assert (job.http.proxy.usage, job.http.proxy.url) == (ProxyUsage.OVERRIDE, "http://p:1")
    assert job.http.client_certificate is not None
    assert Path(job.http.client_certificate.certificate_file).is_absolute()
    assert new_job("j", given(CREATION)) == NewJob(name="j")


def test_a_change_names_only_what_was_given() -> None:
    change = job_change(given(CHANGES, rate_limit="off", minimum_retry_delay="default", method="POST"))
    assert (change.rate_limit, change.minimum_retry_delay_s, change.priority) == (None, None, UNSET)
    assert change.http is not UNSET
    assert (change.http.method, change.http.headers) == ("POST", UNSET)
    off = job_change(
        given(CHANGES, notify_command="off", client_certificate="off", no_headers=True, security=["none"])
    )
    assert off.notify_command is None
    assert off.http is not UNSET
    assert (off.http.client_certificate, off.http.headers, off.http.security) == (None, {}, [])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "nothing to change"),
        ({"rate_limit": "-5"}, "--rate-limit: '-5' is no size"),
        ({"maximum_download_time": "x"}, "--maximum-download-time: 'x' is no time"),
        ({"notify_flags": "x"}, "--notify-flags"),
        ({"notify_arg": ["x"]}, "--notify-arg needs a --notify-command"),
        ({"security": ["ignore-everything"]}, "ignore-everything"),
        ({"security": ["none", "ignore-name"]}, "none"),
        ({"proxy": ProxyUsage.OVERRIDE}, "--proxy-url"),
        ({"proxy_bypass": ["x"]}, "--proxy-url"),
        ({"client_key": "x"}, "--client-certificate"),
        ({"header": ["X: y"], "no_headers": True}, "contradict"),
    ],
)
def test_changes_that_make_no_sense(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as found:
        job_change(given(CHANGES, **values))
    assert said in str(found.value)


def test_bare_values() -> None:
    values = [None, True, 600.0, 1.5, ["a", "b"], [], Priority.LOW, ""]
    assert [bare(value) for value in values] == ["", "true", "600", "1.5", "a\nb", "", "low", ""]
    assert all(name == name.lower() and "_" not in name for name in (*JOB_PROPERTIES, *FILE_PROPERTIES))


# Which one is meant


ITEMS = [
    Named(id="aaaa1111aaaa1111", name="one", note="QUEUED"),
    Named(id="aaaa2222aaaa2222", name="two", note="ERROR"),
    Named(id="bbbb3333bbbb3333", name="two", note="ERROR"),
    Named(id="bbbb4444bbbb4444", name="aaaa2", note=""),
]


@pytest.mark.parametrize(
    ("word", "found"),
    [("one", 0), ("aaaa1", 0), ("aaaa1111aaaa1111", 0), ("aaaa2222", 1), ("bbbb3", 2), ("bbbb4444bbbb4444", 3)],
)
def test_what_is_meant(word: str, found: int) -> None:
    assert one_of(ITEMS, word, "job") == ITEMS[found].id


def test_what_may_mean_several_is_listed() -> None:
    with pytest.raises(UsageError) as found:
        one_of(ITEMS, "two", "job")
    assert str(found.value) == (
        "'two' may mean 2 jobs: aaaa2222aaaa (two, ERROR), bbbb3333bbbb (two, ERROR); give more of the id"
    )
    with pytest.raises(UsageError, match="may mean 2 jobs"):
        one_of(ITEMS, "aaaa2", "job")  # an id's beginning and a name
    many = [Named(id=f"cccc{'0' * 20}{number:03}", name=None) for number in range(9)]
    with pytest.raises(UsageError, match="and 4 more") as long:
        one_of(many, "cccc", "record")
    assert "0001" in str(long.value)


@pytest.mark.parametrize("word", ["aaa", "xxxx", "", "On"])
def test_what_means_nothing(word: str) -> None:
    with pytest.raises(NotFoundError, match=f"no peer has the id or name '{word}'") as found:
        one_of(ITEMS, word, "peer")
    assert found.value.code == "PEER_NOT_FOUND"
