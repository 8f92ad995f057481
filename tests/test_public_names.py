"""Names: what dir() shows, and the types that calls accept and return."""

from __future__ import annotations

import inspect
import os
import pydoc
import socket
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support import Pair, run_python

import cmsgx

MODULES = (cmsgx, cmsgx.kinds, cmsgx.wire, cmsgx.errors)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_dir_shows_what_is_public(module: types.ModuleType) -> None:
    modules = {"errors", "kinds", "wire"} if module is cmsgx else set()
    shown = dir(module)
    assert {name for name in shown if not name.startswith("__")} == {
        name for name in {*module.__all__, *modules} if not name.startswith("__")
    }
    assert {"__all__", "__doc__", "__file__", "__name__"} <= {*shown}
    assert [name for name in shown if not hasattr(module, name)] == []


def test_dir_shows_a_public_module_once_it_is_imported(tmp_path: Any) -> None:
    assert (
        run_python("import cmsgx; print([n for n in dir(cmsgx) if n[0] == '_' != n[1]])") == "[]\n"
    )


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_help_has_each_public_class(module: types.ModuleType) -> None:
    text = pydoc.plain(pydoc.render_doc(module))
    classes = [name for name in module.__all__ if inspect.isclass(getattr(module, name))]
    assert [name for name in classes if name not in text] == []


# Types that calls accept --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "is_one"), [(0, True), (b"0", False), (None, False), ("0", False), (1.0, False)]
)
def test_what_is_like_a_descriptor(value: object, is_one: bool) -> None:
    assert isinstance(value, cmsgx.FileDescriptorLike) is is_one


def test_what_has_a_fileno_is_like_a_descriptor(pair: Pair) -> None:
    with cmsgx.Fd(os.dup(0)) as fd, open(os.devnull) as file:
        assert all(isinstance(one, cmsgx.FileDescriptorLike) for one in (pair[0], fd, file))


def test_annotations_with_these_names_can_be_evaluated() -> None:
    def function(
        a: cmsgx.FileDescriptorLike, b: cmsgx.View, c: cmsgx.Segments
    ) -> cmsgx.MessageFds | cmsgx.Batch | cmsgx.Enabled:
        raise AssertionError

    def with_kinds(a: cmsgx.FileDescriptors, b: cmsgx.kinds.Kind) -> cmsgx.kinds.UnownedPidFd:
        raise AssertionError

    assert typing.get_type_hints(with_kinds)["b"] == cmsgx.kinds.Kind
    hints = typing.get_type_hints(function)
    assert hints["a"] == cmsgx.FileDescriptorLike
    assert (hints["b"], hints["c"]) == (cmsgx.View, cmsgx.Segments)


# Types that calls return --------------------------------------------------------------------------

GIVEN: dict[type, Callable[[Pair], Any]] = {
    cmsgx.Batch: lambda pair: cmsgx.BatchReceiver(pair[1], 2, 9, fds=1).receive(),
    cmsgx.Enabled: lambda pair: cmsgx.enable(pair[1], cmsgx.Credentials),
    cmsgx.MessageFds: lambda pair: cmsgx.receive(pair[1], 9, fds=1).fds,
    cmsgx.Segments: lambda pair: cmsgx.receive(pair[1], 9).segments,
    cmsgx.View: lambda pair: cmsgx.receive(pair[1], 9).view,
}


def a_pending_count(pair: Pair) -> Any:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        return cmsgx.ZeroCopySender(udp).pending


def an_address_tuple(pair: Pair) -> Any:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.sendto(b"", udp.getsockname())
        return cmsgx.receive(udp, 1).address


def an_empty_mapping(pair: Pair) -> Any:
    with cmsgx.share(b"") as fd:
        return fd.map()


UNNAMED = (cmsgx.AddressTuple, cmsgx.Batch, cmsgx.Segments, cmsgx.View)
"""Their repr() does not have their name."""

PLAIN: dict[type, Callable[[Pair], Any]] = {
    cmsgx.AddressTuple: an_address_tuple,
    cmsgx.EmptyMapping: an_empty_mapping,
    cmsgx.Pending: a_pending_count,
    cmsgx.kinds.UnownedPidFd: lambda pair: cmsgx.PidFd.unpack(bytes(4)),
}
"""Those that a program can call, too."""


@pytest.mark.parametrize(
    ("kind", "make"), (GIVEN | PLAIN).items(), ids=[kind.__name__ for kind in GIVEN | PLAIN]
)
def test_calls_give_what_is_public(kind: type, make: Callable[[Pair], Any], pair: Pair) -> None:
    pair[0].send(b"data")
    given = make(pair)
    assert type(given) is kind
    module = cmsgx.kinds if kind is cmsgx.kinds.UnownedPidFd else cmsgx
    assert f"{kind.__module__}.{kind.__qualname__}" == f"{module.__name__}.{kind.__name__}"
    assert getattr(module, kind.__name__) is kind
    assert kind.__name__ in repr(given) or kind in UNNAMED
    assert (inspect.getdoc(kind) or "").endswith(".")


@pytest.mark.parametrize("kind", GIVEN, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("arguments", [(), (0,), (0, ()), (0, (cmsgx.Credentials,))], ids=len)
def test_none_is_made_by_hand(kind: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=r"cannot create '?cmsgx\.|Enabled"):
        kind(*arguments)


def test_enabled_by_hand_says_what_makes_one() -> None:
    wrong: Any = (cmsgx.Credentials,)
    with pytest.raises(TypeError, match=r"^Enabled is what enable"):
        cmsgx.Enabled(0, wrong)


def test_descriptors_of_a_message_are_a_sequence(pair: Pair) -> None:
    cmsgx.send(pair[0], b"x", fds=[0, 1])
    with cmsgx.receive(pair[1], 1, fds=2) as message:
        assert isinstance(message.fds, Sequence)
        assert isinstance(message.fds, cmsgx.MessageFds)
        assert message.fds.index(message.fds[1]) == 1
        assert repr(message.fds).startswith("<MessageFds (")


def test_the_same_types_are_in_wire() -> None:
    for name in ("Batch", "Segments", "View"):
        assert getattr(cmsgx.wire, name) is getattr(cmsgx, name)
