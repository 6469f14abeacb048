"""Identities on disk, and who accepts whom in real TLS handshakes on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from peer.core.trust import Refusal
from peer.core.voucher import Voucher
from peer.errors import IdentityError
from peer.identity import (
    MEMBER_DAYS,
    AdminGroup,
    GroupKey,
    Identity,
    peer_id_of_certificate,
    peer_id_of_key,
    verify_voucher,
)
from tests.support.members import (
    Forged,
    Issuer,
    context_of,
    forge,
    forge_authority,
    shake_hands,
    write_authority,
)
from validation.content import ChunkIndex, ContentId

DAY = 86400.0
GROUP, STRANGERS = GroupKey.create(), GroupKey.create()
CONTENT = ContentId("c" * 64)
Member = Callable[..., Identity]


@pytest.fixture
def member(tmp_path: Path) -> Member:
    def make(name: str, group: GroupKey = GROUP, days_ago: float = 0.0) -> Identity:
        return Identity.load_or_create(tmp_path / name, group, time.time() - days_ago * DAY, name)

    return make


# who accepts whom


async def test_two_members_of_one_group_agree(member: Member) -> None:
    ann, ben = member("ann"), member("ben")
    shaken = await shake_hands(ann.client_context(), ben.server_context())
    assert (shaken.at_client, shaken.at_server) == (ben.peer_id, ann.peer_id)


async def test_two_groups_do_not(member: Member) -> None:
    ann, eve = member("ann"), member("eve", STRANGERS)
    assert not (await shake_hands(ann.client_context(), eve.server_context())).agreed
    assert not (await shake_hands(eve.client_context(), ann.server_context())).agreed


def _believing(identity: Identity, side: int, tmp_path: Path) -> ssl.SSLContext:
    """A stranger's context that believes everybody: only the member's own check is left to refuse."""
    home = tmp_path / identity.name / "identity"
    forged = Forged(certificate_file=home / "certificate.pem", key_file=home / "key.pem", der=b"")
    return context_of(forged, side)


@pytest.mark.parametrize("kind", ["other group", "self-signed", "expired", "not yet valid", "no certificate"])
async def test_each_side_refuses_by_itself(kind: str, member: Member, tmp_path: Path) -> None:
    ann = member("ann")
    if kind == "other group":
        member("eve", STRANGERS)
    elif kind == "expired":
        member("eve", days_ago=MEMBER_DAYS)
    elif kind == "not yet valid":
        member("eve", days_ago=-2)
    else:
        forge(tmp_path / "eve" / "identity", None)
    if kind == "no certificate":
        calling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        calling.check_hostname, calling.verify_mode = False, ssl.CERT_NONE
    else:
        home = tmp_path / "eve" / "identity"
        eve = Forged(certificate_file=home / "certificate.pem", key_file=home / "key.pem", der=b"")
        calling = context_of(eve, ssl.PROTOCOL_TLS_CLIENT)
        as_server = await shake_hands(ann.client_context(), context_of(eve, ssl.PROTOCOL_TLS_SERVER))
        assert isinstance(as_server.at_client, ssl.SSLCertVerificationError)
    as_client = await shake_hands(calling, ann.server_context())
    assert isinstance(as_client.at_client, OSError | EOFError)


async def test_the_probe_of_these_tests_can_succeed(member: Member, tmp_path: Path) -> None:
    """The forger's context and a good certificate do get in, so the refusals above are the certificate's fault."""
    ann, ben = member("ann"), member("ben")
    calling = _believing(ben, ssl.PROTOCOL_TLS_CLIENT, tmp_path)
    assert (await shake_hands(calling, ann.server_context())).agreed


async def test_an_old_tls_is_refused(member: Member, tmp_path: Path) -> None:
    ann, ben = member("ann"), member("ben")
    calling = _believing(ben, ssl.PROTOCOL_TLS_CLIENT, tmp_path)
    calling.maximum_version = ssl.TLSVersion.TLSv1_2
    assert not (await shake_hands(calling, ann.server_context())).agreed


def test_certificates_are_judged_without_a_connection(member: Member, tmp_path: Path) -> None:
    ann, ben = member("ann"), member("ben")
    now = time.time()
    assert GROUP.authority.key is not None
    ours = Issuer(certificate=GROUP.authority.certificates[0], key=GROUP.authority.key)
    large, huge = forge(tmp_path / "l", ours, padding=10_000), forge(tmp_path / "h", ours, padding=20_000)
    verdicts = {
        "member": ann.judge_certificate(ben.certificate_der, now),
        "other group": ann.judge_certificate(member("eve", STRANGERS).certificate_der, now),
        "self-signed": ann.judge_certificate(forge(tmp_path / "x", None).der, now),
        "expired": ann.judge_certificate(ben.certificate_der, now + MEMBER_DAYS * DAY),
        "early": ann.judge_certificate(ben.certificate_der, now - 2 * DAY),
        "authority": ann.judge_certificate(_authority_der(), now),
        "noise": ann.judge_certificate(b"\x30\x03abc", now),
        "large": ann.judge_certificate(large.der, now),
        "huge": ann.judge_certificate(huge.der, now),
    }
    assert verdicts == {
        "member": ben.peer_id,
        "other group": Refusal.OTHER_GROUP,
        "self-signed": Refusal.OTHER_GROUP,
        "expired": Refusal.EXPIRED,
        "early": Refusal.NOT_YET_VALID,
        "authority": Refusal.NOT_A_MEMBER,
        "noise": Refusal.UNREADABLE,
        "large": peer_id_of_certificate(large.der),
        "huge": Refusal.UNREADABLE,
    }
    assert ann.check_certificate(ben.certificate_der, now) == ben.peer_id
    assert ann.check_certificate(b"", now) is None


def _authority_der() -> bytes:
    return GROUP.authority.certificates[0].public_bytes(Encoding.DER)


# what lies on disk


def test_the_identity_survives_a_restart(member: Member) -> None:
    first, again = member("ann"), member("ann")
    assert (again.peer_id, again.certificate_der) == (first.peer_id, first.certificate_der)
    assert peer_id_of_certificate(first.certificate_der) == first.peer_id


def test_the_key_is_private(member: Member, tmp_path: Path) -> None:
    member("ann")
    home = tmp_path / "ann" / "identity"
    modes = {item.name: stat.S_IMODE(item.stat().st_mode) for item in [home, *home.iterdir()]}
    assert modes == {"identity": 0o700, "key.pem": 0o600, "certificate.pem": 0o600}


def test_a_key_that_others_can_read_is_refused(member: Member, tmp_path: Path) -> None:
    member("ann")
    (tmp_path / "ann" / "identity" / "key.pem").chmod(0o640)
    with pytest.raises(IdentityError, match="can be read by others: chmod 600"):
        member("ann")


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_never_replaced(member: Member, tmp_path: Path, damage: bytes) -> None:
    """A new key would be a new member; the user decides that."""
    member("ann")
    key = tmp_path / "ann" / "identity" / "key.pem"
    key.write_bytes(damage)
    with pytest.raises(IdentityError, match="holds no readable PEM key") as caught:
        member("ann")
    assert caught.value.file == key
    assert key.read_bytes() == damage


@pytest.mark.parametrize(
    ("age_days", "kept"),
    [(1.0, True), (MEMBER_DAYS / 2 - 2, True), (MEMBER_DAYS / 2, False), (MEMBER_DAYS + 1, False), (-5.0, False)],
)
def test_the_certificate_is_renewed_at_half_time(member: Member, age_days: float, kept: bool) -> None:
    old, new = member("ann", days_ago=age_days), member("ann")
    assert new.peer_id == old.peer_id
    assert (new.certificate_der == old.certificate_der) is kept
    assert new.check_certificate(new.certificate_der, time.time()) == new.peer_id


def test_a_damaged_certificate_is_made_again(member: Member, tmp_path: Path) -> None:
    ann = member("ann")
    (tmp_path / "ann" / "identity" / "certificate.pem").write_bytes(b"\xff" * 100)
    assert member("ann").peer_id == ann.peer_id


def test_another_group_keeps_the_key(member: Member) -> None:
    ann, moved = member("ann"), member("ann", STRANGERS)
    assert moved.peer_id == ann.peer_id
    assert moved.group_tag != ann.group_tag
    assert moved.check_certificate(ann.certificate_der, time.time()) is None


async def test_a_running_agent_renews_without_a_restart(member: Member, tmp_path: Path) -> None:
    ann = member("ann", days_ago=MEMBER_DAYS - 0.5)  # ends in half a day less the day it was backdated
    ben = member("ben")
    calling = ann.client_context()
    assert not (await shake_hands(calling, ben.server_context())).agreed
    assert ann.renew(time.time())
    ann.reload()
    assert (await shake_hands(calling, ben.server_context())).agreed
    assert not ann.renew(time.time())


def test_a_name_is_one_short_line(tmp_path: Path) -> None:
    named = Identity.load_or_create(tmp_path / "a", GROUP, time.time(), "lap\ntop\x1b[31m" + "x" * 100)
    assert named.name == ("laptop[31m" + "x" * 100)[:64]
    assert Identity.load_or_create(tmp_path / "b", GROUP, time.time(), "\n").name == "unnamed"


def test_a_home_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "home").write_bytes(b"")
    with pytest.raises(IdentityError, match="cannot be used"):
        Identity.load_or_create(tmp_path / "home", GROUP, time.time())


# an administrator's group


@pytest.fixture
def admin() -> Issuer:
    return forge_authority()


def _admin_group(tmp_path: Path, admin: Issuer, forged: Forged) -> AdminGroup:
    ca_file = write_authority(tmp_path / "ca.pem", admin)
    return AdminGroup(ca_file=ca_file, certificate_file=forged.certificate_file, key_file=forged.key_file)


async def test_an_administrators_members_agree(tmp_path: Path, admin: Issuer) -> None:
    ann, ben = (
        Identity.load_or_create(
            tmp_path / name, _admin_group(tmp_path, admin, forge(tmp_path / name, admin)), time.time()
        )
        for name in ("ann", "ben")
    )
    assert (await shake_hands(ann.client_context(), ben.server_context())).agreed
    assert ann.group_tag == ben.group_tag
    assert len(ann.group_tag) == 16
    assert ann.check_certificate(ben.certificate_der, time.time()) == ben.peer_id
    assert not (tmp_path / "ann" / "identity").exists()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        ("key type", "must be an Ed25519 key, this one is EC$"),
        ("other key", "do not belong together"),
        ("other authority", "not issued by an authority in"),
        ("expired", "refused: expired"),
        ("world", "can be read by others"),
        ("missing", "cannot be read: No such file"),
        ("not pem", "holds no PEM certificate"),
        ("ca is a member", "no authority"),
    ],
)
def test_an_administrators_mistakes_are_named(tmp_path: Path, admin: Issuer, spoil: str, sentence: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1()) if spoil == "key type" else None
    forged = forge(tmp_path / "m", admin, key, days=-1.0 if spoil == "expired" else 10.0)
    group = _admin_group(tmp_path, forge_authority() if spoil == "other authority" else admin, forged)
    match spoil:
        case "other key":
            forged.key_file.write_bytes(forge(tmp_path / "n", admin).key_file.read_bytes())
        case "world":
            forged.key_file.chmod(0o604)
        case "missing":
            forged.key_file.unlink()
        case "not pem":
            forged.certificate_file.write_bytes(b"hello")
        case "ca is a member":
            group.ca_file.write_bytes(forged.certificate_file.read_bytes())
    with pytest.raises(IdentityError, match=sentence):
        Identity.load_or_create(tmp_path, group, time.time())


# vouchers


def test_a_voucher_holds_for_exactly_what_was_signed(member: Member) -> None:
    ann, ben = member("ann"), member("ben")
    good = ann.vouch(CONTENT, ChunkIndex(3), b"d" * 32)
    assert verify_voucher(good, ann.certificate_der)
    assert not verify_voucher(good, ben.certificate_der)

    def changed(**changes: object) -> Voucher:
        fields = {name: getattr(good, name) for name in ("content_id", "chunk", "digest", "signer", "signature")}
        return Voucher(**{**fields, **changes})  # type: ignore[arg-type]

    wrong = [
        changed(content_id=ContentId("d" * 64)),
        changed(chunk=ChunkIndex(4)),
        changed(digest=b"e" * 32),
        changed(signer=ben.peer_id),
        changed(signature=bytes(64)),
        changed(signature=b""),
        changed(content_id=ContentId("not hex")),
        changed(chunk=ChunkIndex(-1)),
        changed(chunk=ChunkIndex(1 << 64)),
    ]
    assert [verify_voucher(item, ann.certificate_der) for item in wrong] == [False] * len(wrong)
    assert not verify_voucher(good, b"no certificate")


def test_the_peer_id_is_the_digest_of_the_key(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    forged = forge(tmp_path, None, key)
    assert peer_id_of_key(key.public_key()) == hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest()
    assert peer_id_of_certificate(forged.der) == peer_id_of_key(key.public_key())
    with pytest.raises(IdentityError):
        peer_id_of_certificate(b"noise")
    elliptic = forge(tmp_path / "ec", None, ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(IdentityError):
        peer_id_of_certificate(elliptic.der)


async def test_handshakes_are_quick(member: Member) -> None:
    """Mutual TLS must not be what makes finding a peer slow: far below the second that two agents have."""
    ann, ben = member("ann"), member("ben")
    calling, serving = ann.client_context(), ben.server_context()
    async with asyncio.timeout(2.0):
        for _ in range(10):
            assert (await shake_hands(calling, serving)).agreed
