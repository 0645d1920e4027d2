"""Certificates and private keys for signing."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from dtkpipe.errors import InvalidError
from dtkpipe.tools.x509 import Certificate, PrivateKey
from tests.fixtures.keys import DAY, certificate, der, ec_key, key_pem, rsa_key

KEY = ec_key()
MADE = certificate(KEY)


def test_der_pem_and_base64_are_the_same_certificate() -> None:
    one = Certificate.parse(der(MADE))
    assert one == Certificate.parse(MADE.public_bytes(Encoding.PEM))
    assert one == Certificate.from_base64(base64.encodebytes(der(MADE)).decode())
    assert one == Certificate.parse(one.pem.encode())
    assert one.common_name == "Test Signer"
    assert one.fingerprint in one.signer


@pytest.mark.parametrize("key", [KEY, rsa_key()])
def test_a_key_matches_its_own_certificate_only(key: object) -> None:
    parsed = PrivateKey.parse(key_pem(key))
    assert parsed.matches(Certificate.parse(der(certificate(key))))
    assert not parsed.matches(Certificate.parse(der(certificate(ec_key()))))


def test_an_encrypted_key_needs_its_passphrase() -> None:
    pem = key_pem(KEY, b"hunter2")
    assert PrivateKey.parse(pem, b"hunter2").matches(Certificate.parse(der(MADE)))
    with pytest.raises(InvalidError, match="no passphrase"):
        PrivateKey.parse(pem)
    with pytest.raises(InvalidError, match="does not open") as caught:
        PrivateKey.parse(pem, b"wrong-one")
    assert "wrong-one" not in str(caught.value)


def test_a_passphrase_for_a_plain_key_does_no_harm() -> None:
    assert PrivateKey.parse(key_pem(KEY), b"not needed").matches(Certificate.parse(der(MADE)))


def test_a_key_is_never_shown() -> None:
    assert "PRIVATE" not in repr(PrivateKey.parse(key_pem(KEY)))


def test_keys_that_kernels_do_not_take_are_refused() -> None:
    odd = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(InvalidError, match="neither RSA nor EC"):
        PrivateKey.parse(key_pem(odd))
    with pytest.raises(InvalidError):
        Certificate.parse(der(certificate(odd)))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (certificate(KEY, start=-9 * DAY, end=-DAY), "expired"),
        (certificate(KEY, start=DAY), "not valid before"),
        (certificate(KEY, ca=True), "is a CA"),
    ],
)
def test_what_the_kernel_does_not_mind_is_warned_of(made: object, words: str) -> None:
    (warning,) = Certificate.parse(der(made)).warnings()
    assert words in warning


def test_a_good_certificate_is_not_warned_of() -> None:
    assert Certificate.parse(der(MADE)).warnings() == ()


def test_a_key_in_place_of_a_certificate_is_said_and_not_shown() -> None:
    with pytest.raises(InvalidError, match="not a certificate") as caught:
        Certificate.parse(key_pem(KEY))
    assert "BEGIN" not in str(caught.value)


@given(st.binary(max_size=400) | st.binary(max_size=60).map(lambda tail: der(MADE)[:200] + tail))
def test_any_bytes_are_a_certificate_or_an_error(data: bytes) -> None:
    try:
        Certificate.parse(data)
    except InvalidError:
        return


@given(st.text(max_size=100))
def test_any_text_is_a_certificate_or_an_error(text: str) -> None:
    with pytest.raises(InvalidError):
        Certificate.from_base64(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_key_or_an_error_that_does_not_show_them(data: bytes) -> None:
    with pytest.raises(InvalidError):
        PrivateKey.parse(b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(data) + b"-----END PRIVATE KEY-----\n")


def test_control_characters_of_a_name_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in Certificate.parse(der(certificate(KEY, "evil\x1b[2Jname"))).signer
