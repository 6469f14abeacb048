"""What clients send about jobs: new jobs and files, changes, ranges, credentials.

Times are seconds, sizes bytes, rates bytes per second. Unknown fields are refused. In a change, what is left out
stays as it is. Never knows: the core, SQLite, peers. Sources: bits-reference 1.4, 1.6, 1.7, 1.10, 1.11.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from agent.origin_options import CredentialScheme, CredentialTarget, ProxyUsage, RedirectPolicy, SecurityFlag
from agent.schema.base import JobType, OriginUse, Overwrite, PeerUse, Priority, Request

Index = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3_153_600_000)]
"""At most a hundred years."""
NotifyFlagBits = Annotated[int, msgspec.Meta(ge=0, le=63)]
"""BITS' flags: 1 job transferred, 2 job error, 4 disable, 8 job modification, 16 file transferred, 32 file ranges
transferred."""

DEFAULT_NOTIFY_FLAGS = 3


class RangeRequest(Request, frozen=True, kw_only=True):
    """Consecutive bytes of the remote file, from `offset`; `length` None: to its end (BITS' `eof`)."""

    offset: Size
    length: Size | None = None


class NewFile(Request, frozen=True, kw_only=True):
    """One file to fetch."""

    url: str
    path: str
    """Absolute path of the destination."""
    digest: str | None = None
    """`algorithm:hex` of the whole file. It is validated, and mirrors of the same content meet by it."""
    validators: list[str] = []
    """`NAME[:ARG]` each, all must accept. `application` waits for the validation state to be set."""
    peers: PeerUse = PeerUse.PREFER
    overwrite: Overwrite = Overwrite.REPLACE
    headers: dict[str, str] = {}
    """Sent to the origin with each request, beside the job's; a file with any is not shared with peers."""
    ranges: list[RangeRequest] = []
    """Only these ranges, concatenated in this order; none: the whole file."""


class ProxySettings(Request, frozen=True, kw_only=True):
    """Which proxy the origin is asked through."""

    usage: ProxyUsage = ProxyUsage.PRECONFIGURED
    url: str | None = None
    """`http://HOST:PORT`; with `override` only."""
    bypass: list[str] = []
    """Hosts that are asked directly: names, `*.example.org`, addresses, `<local>`."""


class CertificateFiles(Request, frozen=True, kw_only=True):
    """A client certificate: PEM files that the agent can read."""

    certificate_file: str
    key_file: str | None = None
    """None: the key is in the same file."""


class HttpSettings(Request, frozen=True, kw_only=True):
    """How the origins of a job are asked. Credentials are set apart, because they are never readable."""

    headers: dict[str, str] = {}
    headers_write_only: bool = False
    """A switch that cannot be taken back: the headers are never shown again."""
    method: str = "GET"
    redirects: RedirectPolicy = RedirectPolicy.ALLOW
    allow_https_to_http: bool = False
    security: list[SecurityFlag] = []
    proxy: ProxySettings = ProxySettings()
    client_certificate: CertificateFiles | None = None


class NewJob(Request, frozen=True, kw_only=True):
    """A job; it starts SUSPENDED, like in BITS."""

    name: str
    type: JobType = JobType.DOWNLOAD
    description: str = ""
    priority: Priority = Priority.NORMAL
    files: list[NewFile] = []
    minimum_retry_delay_s: Seconds | None = None
    """None: the agent's setting (BITS: 600 s, floor 5 s)."""
    no_progress_timeout_s: Seconds | None = None
    """None: the agent's setting (BITS: 14 days). 0: the first error is final."""
    maximum_download_time_s: Seconds | None = None
    """None: the agent's setting (BITS: 90 days). Counts while the job connects and transfers."""
    maximum_bytes: Size | None = None
    """For each file. None: no limit."""
    rate_limit: Size | None = None
    """Bytes per second from origins. None: no limit of its own."""
    origin_use: OriginUse = OriginUse.LEAST_ORIGIN
    """What is saved while peers have, or want, the same content."""
    origin_floor: Size | None = None
    """Bytes per second from peers below which the origin helps. None: it does not."""
    notify_flags: NotifyFlagBits = DEFAULT_NOTIFY_FLAGS
    notify_command: list[str] | None = None
    """Program (absolute path) and arguments; no shell."""
    on_demand: bool = False
    """Random access: ranges are asked for while the job lives."""
    peer_fetch: bool = True
    """Peers may supply its files; the agent's own switch must be on too."""
    peer_serve: bool = True
    """Its files may be offered to peers; the agent's own switch must be on too."""
    http: HttpSettings = HttpSettings()


class HttpChange(Request, frozen=True, kw_only=True):
    """New values for some of `HttpSettings`."""

    headers: dict[str, str] | UnsetType = UNSET
    headers_write_only: bool | UnsetType = UNSET
    method: str | UnsetType = UNSET
    redirects: RedirectPolicy | UnsetType = UNSET
    allow_https_to_http: bool | UnsetType = UNSET
    security: list[SecurityFlag] | UnsetType = UNSET
    proxy: ProxySettings | UnsetType = UNSET
    client_certificate: CertificateFiles | UnsetType | None = UNSET


class JobChange(Request, frozen=True, kw_only=True):
    """New values for some properties of a job."""

    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    minimum_retry_delay_s: Seconds | UnsetType | None = UNSET
    no_progress_timeout_s: Seconds | UnsetType | None = UNSET
    maximum_download_time_s: Seconds | UnsetType | None = UNSET
    maximum_bytes: Size | UnsetType | None = UNSET
    rate_limit: Size | UnsetType | None = UNSET
    origin_use: OriginUse | UnsetType = UNSET
    origin_floor: Size | UnsetType | None = UNSET
    notify_flags: NotifyFlagBits | UnsetType = UNSET
    notify_command: list[str] | UnsetType | None = UNSET
    peer_fetch: bool | UnsetType = UNSET
    peer_serve: bool | UnsetType = UNSET
    http: HttpChange | UnsetType = UNSET


class FileChange(Request, frozen=True, kw_only=True):
    """BITS' SetRemoteName: another URL for one file. A part that is there goes on when size and validator agree."""

    url: str


class PrefixChange(Request, frozen=True, kw_only=True):
    """BITS' ReplaceRemotePrefix, for every file of a job that is not done; upper and lower case differ."""

    old: str
    new: str


class NewFiles(Request, frozen=True, kw_only=True):
    """Files to add to a job, all or none."""

    files: list[NewFile]


class RangesWanted(Request, frozen=True, kw_only=True):
    """Ranges of one file of an on-demand job, wanted now. They may overlap; `length` None: to the end."""

    ranges: list[RangeRequest]


class Position(Request, frozen=True, kw_only=True):
    """Where the sequential download goes on."""

    offset: Size


class ValidationChange(Request, frozen=True, kw_only=True):
    """BITS' SetValidationState."""

    valid: bool


class CredentialChange(Request, frozen=True, kw_only=True):
    """Credentials for one target and scheme; they replace the ones before and are never readable."""

    target: CredentialTarget = CredentialTarget.SERVER
    scheme: CredentialScheme
    user: str = ""
    """Empty for `bearer`."""
    password: str
    """For `bearer` the token."""
