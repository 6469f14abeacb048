"""Which addresses the origin's client may connect to: the rule against being used as a proxy into the network.

A job may name a host on this machine or on the local network itself. A host on the public Internet may not lead
there, neither by a redirect nor by another answer of the DNS. Nobody may lead to link-local, metadata, multicast or
unspecified addresses. The rule is applied to the address that is about to be connected, not to a name.

Never knows: HTTP, URLs, jobs. Sources: the IANA special-purpose registries through `ipaddress`; RFC 6052 §2.1
(NAT64), RFC 3056 §2 (6to4), RFC 6598 (shared address space), RFC 6761 §6.3 (localhost); the clouds' documentation
of their metadata addresses.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import Enum

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressClass(Enum):
    """Where an address leads to."""

    PUBLIC = "public"
    LOCAL = "local"
    """This machine, or a private network (RFC 1918, RFC 4193, RFC 6598)."""
    FORBIDDEN = "forbidden"
    """Link-local, metadata, multicast, unspecified, broadcast, reserved: never an origin."""


class AddressPolicy(Enum):
    """What may be connected to, by who asks for it."""

    LOCAL_ALLOWED = "local-allowed"
    """The job itself names the host, or a local host redirects."""
    PUBLIC_ONLY = "public-only"
    """A public host redirects, or a name that was public before."""

    def admits(self, kind: AddressClass) -> bool:
        """True when an address of this class may be connected to."""
        return kind is AddressClass.PUBLIC or (kind is AddressClass.LOCAL and self is AddressPolicy.LOCAL_ALLOWED)


class AddressRefusedError(OSError):
    """Our own rule forbids every address there is. No connection was tried."""


_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure's platform channel, in public space
        "192.0.0.192",  # Oracle Cloud
        "fd00:ec2::254",  # Amazon EC2 over IPv6; 169.254.169.254 is link-local anyway
        "fd20:ce::254",  # Google Cloud over IPv6
    )
)
_SHARED = ipaddress.ip_network("100.64.0.0/10")
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


REMEMBERED_NAMES = 1024
"""Public names that are remembered at most, the latest ones: remote strings must not fill the memory."""

PUBLIC_FOR_S = 3600.0
"""How long a name that was public may not lead to a local address: longer than any DNS answer is worth, short
enough for a machine that is carried into the network where the name is local."""


class AddressRules:
    """The class of every address, and which names were public lately.

    `exceptions` are networks whose class is another one than the registries say, the first match counts: a
    company's public range that is used inside, a test's loopback address that plays a public host. Raises
    ValueError for text that is no network.
    """

    def __init__(self, exceptions: tuple[tuple[str, AddressClass], ...] = ()) -> None:
        self._exceptions = tuple((ipaddress.ip_network(text), kind) for text, kind in exceptions)
        self._public: OrderedDict[str, float] = OrderedDict()

    def classify(self, text: str) -> AddressClass:
        """The class of a literal address; a zone id is left out. What is no address is FORBIDDEN."""
        try:
            address = _inner(ipaddress.ip_address(text.partition("%")[0]))
        except ValueError:
            return AddressClass.FORBIDDEN
        for network, kind in self._exceptions:
            if address in network:
                return kind
        return _registered_class(address)

    def classify_unresolved(self, host: str) -> AddressClass:
        """The class of a host that a proxy resolves in our place. Addresses count in every spelling that resolvers
        take; of names only those of this machine tell anything, any other may be public."""
        name = host.lower().rstrip(".")
        try:
            return self.classify(str(ipaddress.ip_address(name.partition("%")[0])))
        except ValueError:
            pass
        try:
            return self.classify(socket.inet_ntoa(socket.inet_aton(name)))
        except OSError:
            return AddressClass.LOCAL if leads_here(name) else AddressClass.PUBLIC

    def narrowed(self, host: str, classes: Sequence[AddressClass], policy: AddressPolicy) -> AddressPolicy:
        """The rule for a name that resolved to addresses of these classes; remembers when it is public.

        A name with public addresses is a public name, now and for `PUBLIC_FOR_S`: neither an answer that mixes both
        nor a later one (DNS rebinding) leads inside.
        """
        now = time.monotonic()
        if AddressClass.PUBLIC in classes:
            self._public[host] = now
            self._public.move_to_end(host)
            if len(self._public) > REMEMBERED_NAMES:
                self._public.popitem(last=False)
            return AddressPolicy.PUBLIC_ONLY
        seen = self._public.get(host)
        return policy if seen is None or now - seen > PUBLIC_FOR_S else AddressPolicy.PUBLIC_ONLY


def leads_here(host: str) -> bool:
    """True for the names and addresses of this machine that every machine has."""
    name = host.lower().rstrip(".")
    try:
        return _inner(ipaddress.ip_address(name)).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _registered_class(address: Address) -> AddressClass:
    if address in _METADATA or address.is_link_local or address.is_multicast or address.is_unspecified:
        return AddressClass.FORBIDDEN
    if address.is_loopback:
        return AddressClass.LOCAL
    if isinstance(address, ipaddress.IPv6Address) and address.is_site_local:
        return AddressClass.LOCAL
    if address.version == 4 and address in _SHARED:
        return AddressClass.LOCAL
    if address.is_reserved or (address.version == 4 and int(address) >> 24 == 0):
        return AddressClass.FORBIDDEN
    return AddressClass.LOCAL if address.is_private else AddressClass.PUBLIC


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it stands for one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    mapped = address.ipv4_mapped or address.sixtofour
    if mapped is not None:
        return mapped
    if any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


class PolicyResolver(AbstractResolver):
    """The system's resolver, with the addresses left out that are not allowed.

    Raises AddressRefusedError when nothing is left, OSError when the name does not resolve.
    """

    def __init__(self, policy: AddressPolicy, rules: AddressRules) -> None:
        self._policy = policy
        self._rules = rules
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._system.resolve(host, port, family)
        classes = [self._rules.classify(entry["host"]) for entry in found]
        policy = self._rules.narrowed(host, classes, self._policy)
        kept = [entry for entry, kind in zip(found, classes, strict=True) if policy.admits(kind)]
        if not kept:
            raise AddressRefusedError(f"{host} leads to an address that is not allowed here")
        return kept

    async def close(self) -> None:
        await self._system.close()


def socket_factory(policy: AddressPolicy, rules: AddressRules) -> Callable[[AddrInfoType], socket.socket]:
    """Makes sockets for allowed addresses only: the last check, also for literal addresses in URLs."""

    def make(info: AddrInfoType) -> socket.socket:
        family, kind, proto, _, address = info
        if not policy.admits(rules.classify(str(address[0]))):
            raise AddressRefusedError("the address is not allowed here")
        return socket.socket(family=family, type=kind, proto=proto)

    return make
