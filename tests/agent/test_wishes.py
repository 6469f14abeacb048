"""What users ask for becomes what the core wants; and every limit of bits-reference 1.4 names itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.config import Config
from agent.context import Switches
from agent.core.integrity import Integrity
from agent.core.notices import NotifyFlags
from agent.core.queue import Rank
from agent.core.sources import FileId
from agent.core.spec import AskedRange, NearUse, ServeUse, TransferSpec
from agent.errors import AgentError, LimitError, UsageError
from agent.origin_options import (
    HEADER_CHARACTERS,
    PASSWORD_CHARACTERS,
    PROXY_CHARACTERS,
    USER_CHARACTERS,
    CredentialScheme,
    CredentialTarget,
    OriginOptions,
    ProxyUsage,
    RedirectPolicy,
    SecurityFlag,
)
from agent.schema import (
    CertificateFiles,
    CredentialChange,
    HttpChange,
    HttpSettings,
    JobChange,
    JobType,
    NewFile,
    NewJob,
    PeerUse,
    Priority,
    ProxySettings,
    RangeRequest,
)
from agent.wishes import (
    changed,
    check_counts,
    check_job,
    check_url,
    options_of,
    retry_delay_s,
    settings_of,
    spec_of,
)

FILE = NewFile(url="http://origin.example/a", path="/data/a")
PROGRAM = sys.executable


def config(**changes: object) -> Config:
    return Config(home=Path("/home"), **changes)  # type: ignore[arg-type]


def job(**changes: object) -> NewJob:
    return NewJob(**{"name": "a job", **changes})  # type: ignore[arg-type]


def file(**changes: object) -> NewFile:
    return NewFile(**{"url": FILE.url, "path": FILE.path, **changes})  # type: ignore[arg-type]


def spec(new: NewFile = FILE, wished: NewJob | None = None, **agent: object) -> TransferSpec:
    switches = Switches(fetch=bool(agent.pop("fetch", True)), serve=bool(agent.pop("serve", True)))
    return spec_of(FileId("f"), (new, wished or job()), config(**agent), switches)


# --- limits: one test a row of bits-reference 1.4 -----------------------------------------------------------------


def test_limit_files_per_job() -> None:
    check_counts([FILE] * 150, 50, config())
    with pytest.raises(
        LimitError, match=r"would have 201 files, at most 200 are allowed \(max_files_per_job\)"
    ) as it:
        check_counts([FILE], 200, config())
    assert it.value.code == "TOO_MANY_FILES"
    check_counts([FILE] * 1000, 0, config(max_files_per_job=None))
    with pytest.raises(LimitError, match="at most 3"):
        check_counts([FILE] * 4, 0, config(max_files_per_job=3))


def test_limit_ranges_per_file() -> None:
    def with_ranges(count: int) -> NewFile:
        return file(ranges=[RangeRequest(offset=10 * number, length=5) for number in range(count)])

    check_counts([with_ranges(500)] * 3, 0, config())
    with pytest.raises(LimitError, match=r"501 ranges, at most 500 are allowed \(max_ranges_per_file\)") as it:
        check_counts([FILE, with_ranges(501)], 0, config())
    assert it.value.code == "TOO_MANY_RANGES"
    check_counts([with_ranges(501)], 0, config(max_ranges_per_file=None))


def test_limit_upload_jobs_do_not_exist() -> None:
    for kind in (JobType.UPLOAD, JobType.UPLOAD_REPLY):
        with pytest.raises(UsageError, match=f"jobs of type {kind.value} do not exist here") as it:
            check_job(job(type=kind), config())
        assert it.value.code == "UPLOAD_UNSUPPORTED"


def test_limit_url() -> None:
    url = "http://origin.example/"
    check_url(url + "a" * (2200 - len(url)))
    with pytest.raises(UsageError, match="the URL has 2201 characters, at most 2200 are allowed") as it:
        check_url(url + "a" * (2201 - len(url)))
    assert it.value.code == "STRING_TOO_LONG"


def test_limit_display_name() -> None:
    check_job(job(name="n" * 256), config())
    with pytest.raises(UsageError, match="the job's name has 257 characters, at most 256 are allowed") as it:
        check_job(job(name="n" * 257), config())
    assert it.value.code == "STRING_TOO_LONG"
    for empty in ("", "  \n"):
        with pytest.raises(UsageError, match="needs a name"):
            check_job(job(name=empty), config())


def test_limit_description() -> None:
    check_job(job(description="d" * 1024), config())
    with pytest.raises(UsageError, match="the job's description has 1025 characters, at most 1024 are allowed"):
        check_job(job(description="d" * 1025), config())


def test_limit_notify_program() -> None:
    with pytest.raises(UsageError, match="at most 260 characters, not 261") as it:
        check_job(job(notify_command=["/" + "x" * 260]), config())
    assert it.value.code == "STRING_TOO_LONG"


def test_limit_notify_parameters() -> None:
    check_job(job(notify_command=[PROGRAM, "x" * 3000]), config())
    with pytest.raises(UsageError, match="at most 4000 characters, not") as it:
        check_job(job(notify_command=[PROGRAM, "x" * 4000]), config())
    assert it.value.code == "STRING_TOO_LONG"


def test_limit_custom_headers() -> None:
    room = HEADER_CHARACTERS - len("X-A: \r\n")
    check_job(job(http=HttpSettings(headers={"X-A": "v" * room})), config())
    with pytest.raises(UsageError, match="the headers together have 16385 characters, at most 16384") as it:
        check_job(job(http=HttpSettings(headers={"X-A": "v" * (room + 1)})), config())
    assert it.value.code == "STRING_TOO_LONG"
    with pytest.raises(UsageError, match="16384"):  # the job's and the file's together
        options_of(HttpSettings(headers={"X-A": "v" * room}), file(headers={"X-B": "v"}), ())


def test_limit_proxy_and_bypass_list() -> None:
    def proxied(**changes: object) -> NewJob:
        values = {"usage": ProxyUsage.OVERRIDE, "url": "http://proxy.example:3128", **changes}
        return job(http=HttpSettings(proxy=ProxySettings(**values)))  # type: ignore[arg-type]

    check_job(proxied(bypass=["*.example.org", "<local>"]), config())
    with pytest.raises(UsageError, match=f"the proxy's URL has .* at most {PROXY_CHARACTERS} are allowed"):
        check_job(proxied(url="http://" + "p" * PROXY_CHARACTERS), config())
    with pytest.raises(UsageError, match=f"the bypass list has .* at most {PROXY_CHARACTERS} are allowed"):
        check_job(proxied(bypass=["a" * 99] * 400), config())


def test_limit_user_and_password() -> None:
    def check(user: str, password: str) -> OriginOptions:
        change = CredentialChange(scheme=CredentialScheme.BASIC, user=user, password=password)
        return options_of(HttpSettings(), FILE, [change])

    assert len(check("u" * USER_CHARACTERS, "p" * PASSWORD_CHARACTERS).credentials) == 1
    with pytest.raises(UsageError, match="the user name has 301 characters, at most 300 are allowed"):
        check("u" * 301, "p")
    with pytest.raises(UsageError, match="the password has 65537 characters, at most 65536 are allowed") as it:
        check("u", "p" * 65_537)
    assert "ppp" not in str(it.value)


def test_limit_minimum_retry_delay() -> None:
    assert retry_delay_s(job(), config()) == 600.0
    assert retry_delay_s(job(minimum_retry_delay_s=0.0), config()) == 5.0
    assert retry_delay_s(job(minimum_retry_delay_s=4.99), config()) == 5.0
    assert retry_delay_s(job(minimum_retry_delay_s=7.0), config()) == 7.0
    assert settings_of(job(minimum_retry_delay_s=1.0), config()).patience.minimum_retry_delay_s == 5.0


def test_limit_no_progress_timeout() -> None:
    assert settings_of(job(), config()).patience.no_progress_timeout_s == 1_209_600.0
    assert settings_of(job(no_progress_timeout_s=0.0), config()).patience.no_progress_timeout_s == 0.0


def test_limit_maximum_download_time() -> None:
    assert settings_of(job(), config()).patience.maximum_download_time_s == 7_776_000.0
    agent = config(maximum_download_time_s=10.0)
    assert settings_of(job(), agent).patience.maximum_download_time_s == 10.0
    assert settings_of(job(maximum_download_time_s=20.0), agent).patience.maximum_download_time_s == 20.0


def test_limit_job_inactivity_timeout() -> None:
    assert settings_of(job(), config()).patience.inactivity_timeout_s == 90 * 86_400.0
    assert settings_of(job(), config(job_inactivity_timeout_s=5.0)).patience.inactivity_timeout_s == 5.0


def test_limit_of_nothing_a_second_is_refused() -> None:
    """A job of its own would wait for ever; a policy of 0 ends with its hours."""
    check_job(job(rate_limit=1), config())
    with pytest.raises(UsageError, match="rate_limit is above 0"):
        check_job(job(rate_limit=0), config())


# --- URLs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://h", "HTTPS://h.example:8443/a?b#c", "http://[::1]:80/", "http://u:p@h/", "http://h/ü b", "http://h:/"],
)
def test_urls_that_can_be_fetched(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "cannot fetch a URL without scheme: give a URL that begins with http:// or https://"),
        ("h.example/a", "cannot fetch a URL without scheme"),
        ("ftp://h/a", "cannot fetch ftp"),
        ("file:///etc/passwd", "cannot fetch file"),
        ("http:///a", "names no host"),
        ("http://[::1", "not a URL"),
        ("http://h:99999/", "not a URL"),
        ("http://h:x/", "not a URL"),
        ("http://h/a\r\nX-Evil: 1", "control character"),
        ("http://h/\0", "control character"),
        ("http://h/\ud800", "control character"),
        ("http://h/\x7f", "control character"),
        ("ht\ntp://h/", "control character"),
    ],
)
def test_urls_that_cannot(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as it:
        check_url(url)
    assert "\n" not in str(it.value)


# --- what the core is told -------------------------------------------------------------------------------------


@pytest.mark.parametrize("priority", Priority)
def test_every_priority_has_its_rank(priority: Priority) -> None:
    assert settings_of(job(priority=priority), config()).rank is Rank[priority.name]


def test_notices() -> None:
    plain = settings_of(job(), config()).notices
    assert plain.flags == NotifyFlags.JOB_TRANSFERRED | NotifyFlags.JOB_ERROR
    assert not plain.has_command
    wished = job(notify_flags=20, notify_command=[PROGRAM], minimum_retry_delay_s=9.0)
    notices = settings_of(wished, config()).notices
    assert notices.flags == NotifyFlags.DISABLE | NotifyFlags.FILE_TRANSFERRED
    assert notices.has_command
    assert notices.minimum_retry_delay_s == 9.0
    assert not settings_of(wished, config(notify_commands=False)).notices.has_command


def test_a_file_as_the_core_sees_it() -> None:
    digest = "sha256:" + "0" * 64
    new = file(digest=digest, ranges=[RangeRequest(offset=5, length=3), RangeRequest(offset=0, length=2)])
    found = spec(new, job(maximum_bytes=9, minimum_retry_delay_s=6.0), integrity=Integrity.ANCHORED)
    assert (found.file, found.url, found.integrity) == (FileId("f"), FILE.url, Integrity.ANCHORED)
    assert found.ranges == (AskedRange(offset=5, length=3), AskedRange(offset=0, length=2))
    assert str(found.digest) == digest
    assert (found.maximum_bytes, found.longest_retry_s, found.on_demand) == (9, 6.0, False)
    assert spec(FILE, job(on_demand=True)).on_demand


@pytest.mark.parametrize(
    ("new", "code", "said"),
    [
        (file(digest="sha256:xyz"), "USAGE", "sha256"),
        (file(digest="md99:00"), "USAGE", "md99"),
        (file(ranges=[RangeRequest(offset=5, length=0)]), "INVALID_RANGE", "names no byte"),
        (file(ranges=[RangeRequest(offset=0, length=5), RangeRequest(offset=4)]), "OVERLAPPING_RANGES", "overlap"),
        (file(ranges=[RangeRequest(offset=0), RangeRequest(offset=4)]), "OVERLAPPING_RANGES", "overlap"),
    ],
)
def test_what_makes_no_sense_is_refused(new: NewFile, code: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as it:
        spec(new)
    assert it.value.code == code


BOTH = (NearUse.PREFERRED, ServeUse.ALLOWED)
NEITHER = (NearUse.NEVER, ServeUse.NEVER)


@pytest.mark.parametrize(
    ("new", "wished", "agent", "expected"),
    [
        (FILE, job(), {}, BOTH),
        (file(peers=PeerUse.NEVER), job(), {}, NEITHER),
        (FILE, job(peer_fetch=False), {}, (NearUse.NEVER, ServeUse.ALLOWED)),
        (FILE, job(peer_serve=False), {}, (NearUse.PREFERRED, ServeUse.NEVER)),
        (FILE, job(), {"fetch": False}, (NearUse.NEVER, ServeUse.ALLOWED)),
        (FILE, job(), {"serve": False}, (NearUse.PREFERRED, ServeUse.NEVER)),
    ],
)
def test_both_switches_must_be_on(
    new: NewFile, wished: NewJob, agent: dict[str, object], expected: tuple[NearUse, ServeUse]
) -> None:
    found = spec(new, wished, **agent)
    assert (found.near, found.serve) == expected


@pytest.mark.parametrize(
    ("new", "http"),
    [
        (file(headers={"X-Token": "1"}), HttpSettings()),
        (file(headers={"Accept": "*/*"}), HttpSettings()),
        (file(url="http://user:secret@origin.example/a"), HttpSettings()),
        (file(url="http://user@origin.example?a"), HttpSettings()),
        (FILE, HttpSettings(headers={"Authorization": "Bearer x"})),
        (FILE, HttpSettings(headers={"cookie": "a=b"})),
        (FILE, HttpSettings(headers={"User-Agent": "x", "X-Api-Key": "secret"})),
        (FILE, HttpSettings(client_certificate=CertificateFiles(certificate_file="/c.pem"))),
    ],
)
def test_what_may_open_a_door_is_not_shared(new: NewFile, http: HttpSettings) -> None:
    """reliability 1.5."""
    found = spec(new, job(http=http))
    assert (found.near, found.serve) == NEITHER


@pytest.mark.parametrize(
    ("new", "http"),
    [
        (file(url="http://origin.example/a@b"), HttpSettings()),
        (file(url="http://origin.example?mail=a@b"), HttpSettings()),
        (file(url="http://origin.example#@"), HttpSettings()),
        (FILE, HttpSettings(headers={"User-Agent": "x", "ACCEPT-LANGUAGE": "de", "Referer": "http://h/"})),
    ],
)
def test_what_opens_none_is(new: NewFile, http: HttpSettings) -> None:
    found = spec(new, job(http=http))
    assert (found.near, found.serve) == BOTH


# --- what the origin client is told ------------------------------------------------------------------------------


def test_options() -> None:
    http = HttpSettings(
        headers={"X-One": "1", "X-Two": "2"},
        method="POST",
        redirects=RedirectPolicy.DISALLOW,
        allow_https_to_http=True,
        security=[SecurityFlag.IGNORE_NAME],
        proxy=ProxySettings(usage=ProxyUsage.NONE),
        client_certificate=CertificateFiles(certificate_file="/c.pem", key_file="/k.pem"),
    )
    secret = CredentialChange(scheme=CredentialScheme.BEARER, password="t0ken")
    options = options_of(http, file(headers={"x-two": "other", "X-Three": "3"}), [secret])
    assert options.headers == (("X-One", "1"), ("x-two", "other"), ("X-Three", "3"))
    assert (options.method, options.redirects, options.allow_https_to_http) == (
        "POST",
        RedirectPolicy.DISALLOW,
        True,
    )
    assert options.security == {SecurityFlag.IGNORE_NAME}
    assert options.proxy.usage is ProxyUsage.NONE
    assert options.client_certificate is not None
    assert options.client_certificate.key_file == Path("/k.pem")
    (credential,) = options.credentials
    assert (credential.target, credential.scheme) == (CredentialTarget.SERVER, CredentialScheme.BEARER)
    assert credential.password == "t0ken"
    assert options_of(HttpSettings(), FILE, ()) == OriginOptions()


# --- commands and changes ----------------------------------------------------------------------------------------


def test_a_command_that_cannot_run_is_refused_when_it_is_named() -> None:
    with pytest.raises(UsageError, match="there is no program"):
        check_job(job(notify_command=["/no/such/program"]), config())
    with pytest.raises(LimitError, match="notify_commands is off") as it:
        check_job(job(notify_command=[PROGRAM]), config(notify_commands=False))
    assert it.value.code == "NOTIFY_COMMANDS_OFF"


@pytest.mark.parametrize("agent", [config(), config(notify_commands=False)])
def test_a_command_that_was_named_before_does_not_stand_in_the_way_of_other_changes(agent: Config) -> None:
    """The program went, or the administrator's switch came; the job must still be told to be slower."""
    before = job(notify_command=["/no/such/program"])
    check_job(changed(before, JobChange(rate_limit=5)), agent, before)
    check_job(changed(before, JobChange(notify_command=None)), agent, before)
    with pytest.raises(AgentError):
        check_job(changed(before, JobChange(notify_command=["/no/other/program"])), agent, before)


def test_a_change_leaves_alone_what_it_does_not_name() -> None:
    before = job(description="d", priority=Priority.LOW, maximum_bytes=5, http=HttpSettings(headers={"A": "1"}))
    assert changed(before, JobChange()) == before
    after = changed(before, JobChange(name="other", maximum_bytes=None, http=HttpChange(method="POST")))
    assert (after.name, after.maximum_bytes, after.description) == ("other", None, "d")
    assert after.http == HttpSettings(headers={"A": "1"}, method="POST")


def test_write_only_headers_stay_so() -> None:
    before = job(http=HttpSettings(headers={"A": "1"}, headers_write_only=True))
    with pytest.raises(UsageError, match="cannot be taken back"):
        changed(before, JobChange(http=HttpChange(headers_write_only=False)))
    after = changed(before, JobChange(http=HttpChange(headers={"A": "2"}, headers_write_only=True)))
    assert after.http == HttpSettings(headers={"A": "2"}, headers_write_only=True)
