"""The kinds of kTLS and AF_ALG, through the kernel if it has them."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

import pytest
from attempts import attempt, fails
from families import open_socket, set_option
from support import Pair

import cmsgx
from cmsgx import kinds

LOCALHOST = "127.0.0.1"


# kTLS -------------------------------------------------------------------------------------------


@pytest.fixture
def tls() -> Iterator[Pair]:
    """A TCP connection whose first end sends records of kTLS, and whose second receives them."""
    sol_tls, tls_tx, tls_rx, tcp_ulp = 282, 1, 2, 31
    # struct tls12_crypto_info_aes_gcm_128: version, cipher, iv, key, salt, number of the record
    info = struct.pack("=HH", 0x0303, 51) + bytes(8) + b"k" * 16 + b"salt" + bytes(8)
    with cmsgx.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((LOCALHOST, 0))
        listener.listen()
        sender = cmsgx.socket(socket.AF_INET, socket.SOCK_STREAM)
        sender.connect(listener.getsockname())
        receiver, _ = listener.accept()
    with sender, receiver:
        for sock in (sender, receiver):
            sock.settimeout(30)
        for sock, which in ((sender, tls_tx), (receiver, tls_rx)):
            set_option(sock, socket.IPPROTO_TCP, tcp_ulp, b"tls", "TCP_ULP tls")
            set_option(sock, sol_tls, which, info, "TLS_TX" if which == tls_tx else "TLS_RX")
        yield sender, receiver


def test_the_type_of_a_tls_record_both_ways(tls: Pair) -> None:
    sender, receiver = tls
    rx = cmsgx.Receiver(receiver, 100, want=[kinds.TlsRecordType])
    cmsgx.send(sender, b"\1\0", control=kinds.TlsRecordType(kinds.TlsType.ALERT))
    cmsgx.send(sender, b"data")
    cmsgx.send(sender, b"odd", control=kinds.TlsRecordType(kinds.TlsType(99)))
    seen = [(msg.data, msg[kinds.TlsRecordType].record) for msg in (rx.receive() for _ in range(3))]
    assert seen == [
        (b"\1\0", kinds.TlsType.ALERT),
        (b"data", kinds.TlsType.APPLICATION_DATA),
        (b"odd", 99),
    ]


def test_a_tls_record_through_the_drop_ins(tls: Pair) -> None:
    sender, receiver = tls
    assert cmsgx.sendmsg(sender, [b"x"], [kinds.TlsRecordType(kinds.TlsType.HANDSHAKE)]) == 1
    assert cmsgx.recvmsg(receiver, 10, 100)[:2] == (b"x", [(282, 2, b"\x16")])
    with pytest.raises(OSError, match="Invalid argument"):
        cmsgx.send(sender, b"x", control=kinds.Mark(1))


# AF_ALG -----------------------------------------------------------------------------------------


def algorithm(kind: str, name: str, key: bytes, tag: int = 0) -> cmsgx.socket:
    """A socket for one operation of a cipher of the kernel."""
    sol_alg, alg_set_key, alg_set_authsize = 279, 1, 5
    with open_socket(socket.AF_ALG, socket.SOCK_SEQPACKET) as sock:
        with attempt(f"AF_ALG {name}"):
            sock.bind((kind, name))
        sock.setsockopt(sol_alg, alg_set_key, key)
        if tag:
            sock.setsockopt(sol_alg, alg_set_authsize, None, tag)
        operation, _ = sock.accept()
    operation.settimeout(30)
    return operation


def test_a_cipher_works_in_the_given_direction_with_the_given_vector() -> None:
    key, iv, plain = bytes(range(16)), bytes(range(100, 116)), b"sixteen bytes..." * 2
    texts: list[bytes] = []
    for way, data in ((kinds.AlgDirection.ENCRYPT, plain), (kinds.AlgDirection.DECRYPT, None)):
        with algorithm("skcipher", "cbc(aes)", key) as operation:
            control = [kinds.AlgOperation(way), kinds.AlgIv(iv)]
            assert cmsgx.send(operation, data or texts[0], control=control) == 32
            texts.append(cmsgx.receive(operation, 32).data)
    assert texts[0] != plain
    assert texts[1] == plain
    with algorithm("skcipher", "cbc(aes)", key) as operation, fails(errno.EINVAL):
        cmsgx.send(operation, plain, control=[kinds.AlgIv(iv[:15])])


def test_associated_data_is_authenticated_and_not_encrypted() -> None:
    key, iv, associated, plain = bytes(16), bytes(12), b"associated", b"secret"
    control = [
        kinds.AlgOperation(kinds.AlgDirection.ENCRYPT),
        kinds.AlgIv(iv),
        kinds.AlgAssociatedLength(len(associated)),
    ]
    # A read of more bytes than it produces would wait for more.
    size = len(associated) + len(plain)
    with algorithm("aead", "gcm(aes)", key, tag=16) as operation:
        cmsgx.send(operation, associated + plain, control=control)
        sealed = cmsgx.receive(operation, size + 16).data
    assert len(sealed) == size + 16
    assert sealed[len(associated) : -16] != plain
    control[0] = kinds.AlgOperation(kinds.AlgDirection.DECRYPT)
    with algorithm("aead", "gcm(aes)", key, tag=16) as operation:
        cmsgx.send(operation, associated + sealed[len(associated) :], control=control)
        assert cmsgx.receive(operation, size).data[len(associated) :] == plain
    control[2] = kinds.AlgAssociatedLength(len(associated) - 1)
    with algorithm("aead", "gcm(aes)", key, tag=16) as operation:
        cmsgx.send(operation, associated + sealed[len(associated) :], control=control)
        with fails(errno.EBADMSG):
            cmsgx.receive(operation, size)
