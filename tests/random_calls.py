"""Random calls of socket functions, as lines of Python."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

from twins import OPTIONS, SO_PASSPIDFD, Setup

# Generating calls.


def words(text: str) -> list[str]:
    return text.split()


# Unusual arguments for each place: each word is an expression.
ODD_SIZES = words("-1 2**62 2**63 -(2**63)-1 '1' None 1.5 True Index() b'1' 2**26")
ODD_CONTROL_SIZES = words("-1 2**31 2**63 -(2**63)-1 '1' None 1.5 True Index() b'1' 2**20")
ODD_MAXFDS = words("-1 2**31 2**64 '1' None 1.5 True Index() b'1'")
ODD_FLAGS = words("2**31 -(2**31)-1 '0' None 1.5 True Index()")
ODD_READABLES = words("""
    None 5 'text' [1] Index() 1.5 {1:2} memoryview(b'abcdef')[::2] memoryview(b'abcdef')[::-1]
""")
ODD_READABLE_LISTS = words("""
    None 5 b'ab' 'ab' bytearray(b'a') {} {b'key':1} Index() array('i',[1])
    [b'a']*1024 [b'a']*1025 [b'']*1100
""")
ODD_WRITABLES = words("""
    None 5 'text' b'constant' [1] 1.5 memoryview(b'constant')
    memoryview(bytearray(8))[::2] memoryview(bytearray(8))[::-1]
""")
ODD_WRITABLE_LISTS = words("""
    None 5 bytearray(3) 'ab' {} Index() [b''] [bytearray(1)]*1100
    keep([bytearray(1)]*1024) keep([bytearray(1)]*1025) keep([bytearray(4)]*2)
""")
ODD_DESCRIPTORS = words("""
    None 5 'ab' b'abc' {} Index() [None] ['a'] [1.5] [-1] [2**31] [2**70] [True] [b'a']
    [files[0],-1] [1000000] [files[0],'a'] [files[0]]*253 [files[0]]*254 failing([files[0]])
    [[files[0]]] [Holder(files[0])] [files[0],Holder(files[1])]
""")
ODD_CONTROL = words("""
    None 5 'ab' b'ab' {} Index() [5] [None] ['abc'] [()] [(1,1)] [(1,1,b'',0)] [[1,1,b'']]
    [(1,1,'text')] [(1,1,None)] [('1',1,b'')] [(1,1.5,b'')] [(2**31,1,b'')] [(1,-(2**31)-1,b'')]
    [(Index(),1,b'')] [(1,1,5)] (1,1,b'') [(1,1,memoryview(b'abcdefgh')[::2])] [(-1,-1,b'')]
    failing([(1,1,b'')]) failing([]) [(1,1,b'abc')] [(1,1,array('i',[files[0]]*254))]
    [(1,2,b'short')] [(1,2,credentials),(1,2,credentials)] [(1,99,b'abcd')] [(99,1,b'abcd')]
    [(0,2,b'abcd')] [(1,1,[files[0]])] [(1,1,array('i',[-1]))] [(1,1,array('i',[1000000]))]
    [(1,1,b'')]*300 [(1,1,bytes(2**20))] [(1,4,array('i',[files[0]]))]
""")
ODD_ADDRESSES = words("5 (1,) () [] None '' b'' 'x' {} 1.5")
ODD_UNIX_ADDRESSES = words(r"""
    '/nonexistent/name' b'/nonexistent/name' folder '\0none' b'\0none' 'x'*107 'x'*108 'x'*109
    b'y'*108 'a\0b' '\udcff' bytearray(b'none') memoryview(b'none') ('127.0.0.1',1) '\0'+'x'*107
""")
# HOST stands for the loopback address. There is no host name here that could be looked up.
ODD_INET_ADDRESSES = words(r"""
    (HOST,-1) (HOST,65536) (HOST,'1') (HOST,1.5) (HOST,) [HOST,9] (HOST,2**40) (HOST,None)
    (HOST,0) (HOST,Index()) (HOST,True) (HOST.encode(),9) (bytearray(HOST.encode()),9)
    (HOST,9,0) (HOST,9,0,0) (HOST,9,0,0,0) (HOST,9,-1) (HOST,9,2**20) (HOST,9,0,-1)
    (HOST,9,0,2**32) (HOST,9,'a') (5,9) (None,9) ('a\0b',9)
    ('255.255.255.255',9) ('0.0.0.0',9) ('::ffff:127.0.0.1',9) ('::',9) ('fe80::1',9)
    ('',9) ('a'*64+'.b',9) ('<broadcast>',9)
""")
RECEIVE_FLAGS = words("DONTWAIT PEEK PEEK TRUNC WAITALL OOB ERRQUEUE CMSG_CLOEXEC")
if sys.version_info >= (3, 15):
    # With it, socket.recvmsg() raises ValueError for a longer datagram there, and loses the
    # datagram.
    RECEIVE_FLAGS.remove("TRUNC")
SEND_FLAGS = words("DONTWAIT NOSIGNAL OOB EOR CONFIRM DONTROUTE CMSG_CLOEXEC")


class Author:
    """Generates calls, most of them valid."""

    def __init__(self, setup: Setup, chance: random.Random) -> None:
        self.setup = setup
        self.chance = chance
        kinds = ("named dgram", "abstract dgram", "udp4", "udp6", "netlink")
        self.unconnected = setup.kind in kinds
        self.oddity = 1

    def odd(self, probability: float = 0.06) -> bool:
        """Whether this argument should be an unusual one: at most one in a call.

        Which of two errors is raised first is not part of any contract.
        """
        if self.chance.random() >= probability * self.oddity:
            return False
        self.oddity = 0
        return True

    def any_of(self, *choices: str) -> str:
        return self.chance.choice(choices)

    def step(self, sock: str, pending: bool) -> str:
        """One call on sock; pending says whether there is something to receive."""
        self.oddity = self.chance.choice((0, 1, 1, 1, 1, 1))
        draw = self.chance.random()
        if draw < 0.03:
            return self.other(sock)
        target = sock
        if not self.setup.patched and self.setup.kind != "netlink" and self.chance.random() < 0.06:
            target = self.any_of(f"number({sock})", f"holder({sock})")
        if draw < 0.6 if pending else draw < 0.12:
            name = self.any_of("recvmsg", "recvmsg_into", "recv_fds")
            if not self.setup.inet and self.chance.random() < 0.08:
                target = f"tight({target}, {self.chance.choice((0, 1, 2))})"
        else:
            name = self.any_of("sendmsg", "sendmsg", "send_fds")
        arguments: list[str] = getattr(self, name)(target)
        if self.odd(0.02):
            del arguments[self.chance.randrange(len(arguments)) :]
        if self.odd(0.02):
            more = ("*[0] * 5", "**{'flags': 0}", "**{'unknown': 0}")
            arguments.append(self.any_of(*more, "*[0]" if target == sock else more[0]))
        return f"{name}({', '.join([target, *arguments])})"

    def other(self, sock: str) -> str:
        option = self.chance.choice(OPTIONS)
        return self.any_of(
            f"{sock}.close()",
            f"{sock}.shutdown(socket.SHUT_RD)",
            f"{sock}.shutdown(socket.SHUT_WR)",
            *[f"{sock}.setsockopt(socket.SOL_SOCKET, {option}, 0)"] * 2,
            *(f"{sock}.settimeout({timeout})" for timeout in (0, 0.001, None)),
            *(f"set_blocking({sock}.fileno(), {value})" for value in (True, False)),
        )

    def sendmsg(self, target: str) -> list[str]:
        arguments = [self.buffers(), self.control(), self.flags(SEND_FLAGS), self.address(target)]
        return arguments[: 4 if self.unconnected else self.chance.choice((1, 2, 2, 3, 4))]

    def send_fds(self, target: str) -> list[str]:
        flags, address = self.flags(SEND_FLAGS), self.address(target)
        more = [[f"flags={flags}", f"address={address}"], [flags, address], [flags], []]
        more = more[: 2 if self.unconnected else 4]
        return [self.buffers(), self.descriptors(), *self.chance.choice(more)]

    def recvmsg(self, target: str) -> list[str]:
        arguments = [self.size(), self.control_size(), self.flags(RECEIVE_FLAGS)]
        return arguments[: self.chance.choice((1, 2, 2, 3, 3))]

    def recvmsg_into(self, target: str) -> list[str]:
        arguments = [self.writable_buffers(), self.control_size(), self.flags(RECEIVE_FLAGS)]
        return arguments[: self.chance.choice((1, 2, 2, 3, 3))]

    def recv_fds(self, target: str) -> list[str]:
        maxfds = str(self.chance.choice((0, 1, 1, 2, 2, 3, 4, 5, 10, 252, 253, 254, 1000)))
        if self.odd():
            maxfds = self.any_of(*ODD_MAXFDS)
        arguments = [self.size(), maxfds, self.flags(RECEIVE_FLAGS)]
        arguments = arguments[: self.chance.choice((2, 2, 3))]
        if not self.setup.patched and self.chance.random() < 0.1:
            arguments.append(self.any_of("cloexec=False", "cloexec=True"))
        return arguments

    def size(self) -> str:
        if self.odd():
            return self.any_of(*ODD_SIZES)
        return str(self.chance.choice((0, 1, 2, 3, 10, 64, 100, 1000, 65536, 400000)))

    def control_size(self) -> str:
        if self.odd():
            return self.any_of(*ODD_CONTROL_SIZES)
        count = 4 * self.chance.choice((0, 1, 1, 2, 3, 4, 10, 253))
        return self.any_of(
            "0",
            str(self.chance.randrange(100)),
            str(self.chance.choice((4096, 65536))),
            f"socket.CMSG_LEN({count})",
            f"socket.CMSG_SPACE({count})",
            f"socket.CMSG_SPACE({count}) + socket.CMSG_SPACE(12)",
        )

    def flags(self, names: Sequence[str]) -> str:
        if self.odd():
            return self.any_of(*ODD_FLAGS)
        if self.chance.random() < 0.65:
            return "0"
        if "tcp" in self.setup.kind:  # it leaves the buffer unchanged there: not worth comparing
            names = [name for name in names if name != "TRUNC"]
        if "stream" in self.setup.kind and SO_PASSPIDFD in self.setup.options:
            # Asked for 0 bytes of a message with MSG_OOB, Linux 6.18 fails with EAGAIN after it has
            # opened the pidfd, so each try leaks one: with socket, cmsgx and C alike.
            names = [name for name in names if name != "PEEK"]
        some = self.chance.sample(names, self.chance.choice((1, 1, 2)))
        return " | ".join(f"socket.MSG_{name}" for name in some)

    def readable(self) -> str:
        if self.odd():
            return self.any_of(*ODD_READABLES)
        if not self.setup.inet and self.chance.random() < 0.02:
            return self.any_of("bytes(70000)", "bytes(300000)")
        data = bytes(self.chance.choices(b"abcdef", k=self.chance.choice((0, 1, 2, 5, 20, 100))))
        return self.any_of(
            *[repr(data)] * 4,
            f"bytearray({data!r})",
            f"memoryview({data!r})",
            f"memoryview({data!r})[1:3]",
            "array('i', [1, 2, 3])",
            "array('d', [1.5])",
            "memoryview(array('i', [1, 2, 3]))[1:]",
            "memoryview(bytearray(12)).cast('B', (3, 4))",
        )

    def writable(self) -> str:
        if self.odd():
            return self.any_of(*ODD_WRITABLES)
        size = self.chance.choice((0, 1, 2, 5, 20, 100, 1000, 70000))
        return self.any_of(
            *[f"bytearray({size})"] * 3,
            f"memoryview(bytearray({size}))[1:5]",
            "array('i', [1, 2, 3])",
            "array('d', [1.5])",
            "memoryview(bytearray(12)).cast('B', (3, 4))",
            "memoryview(array('i', [1, 2, 3]))[1:]",
        )

    def iterable(self, inside: str) -> str:
        if self.odd(0.03):
            return f"failing({inside})"
        return self.any_of(*[inside] * 3, f"tuple({inside})", f"iter({inside})")

    def buffers(self) -> str:
        if self.odd():
            return self.any_of(*ODD_READABLE_LISTS)
        items = [self.readable() for _ in range(self.chance.choice((0, 1, 1, 2, 5)))]
        return self.iterable(f"[{', '.join(items)}]")

    def writable_buffers(self) -> str:
        if self.odd():
            return self.any_of(*ODD_WRITABLE_LISTS)
        items = [self.writable() for _ in range(self.chance.choice((0, 1, 1, 2, 5)))]
        return self.iterable(f"keep([{', '.join(items)}])")

    def some_files(self, most: int = 6) -> str:
        count = self.chance.choice((0, 1, 1, 2, 3, most))
        return f"[{', '.join(f'files[{self.chance.randrange(4)}]' for _ in range(count))}]"

    def descriptors(self) -> str:
        if self.odd(0.12):
            return self.any_of(*ODD_DESCRIPTORS)
        files = self.some_files(10)
        return self.any_of(
            *[files] * 3, f"tuple({files})", f"iter({files})", f"array('i', {files})"
        )

    def control(self) -> str:
        if self.odd(0.12):
            return self.any_of(*ODD_CONTROL)
        count = self.chance.choice((0, 0, 1, 1, 1, 2))
        return self.iterable(f"[{', '.join(self.control_message() for _ in range(count))}]")

    def control_message(self) -> str:
        if self.setup.inet:  # IP_TTL and IP_TOS, IPV6_HOPLIMIT and IPV6_TCLASS
            kinds = ("41, 52", "41, 67") if self.setup.kind[-1] == "6" else ("0, 2", "0, 1")
            return f"({self.any_of(*kinds)}, array('i', [{self.chance.randrange(1, 255)}]))"
        if self.chance.random() < 0.2:
            return "(1, 2, credentials)"
        files = f"array('i', {self.some_files()})"
        more = f"bytes({files})", f"memoryview({files})", f"bytes({files}) + b'x'"
        return f"(socket.SOL_SOCKET, socket.SCM_RIGHTS, {self.any_of(files, files, *more)})"

    def address(self, target: str) -> str:
        own, peer = ("A", "B") if target in ("a", "number(a)", "holder(a)") else ("B", "A")
        if not self.odd(0.2):
            return peer if self.unconnected else self.any_of("None", peer, own)
        if self.setup.kind == "netlink":
            return self.any_of(own, *ODD_ADDRESSES, "(0, 0)", "(0, 1)", "(-1, 0)", "(1, 2, 3)")
        if not self.setup.inet:
            return self.any_of(own, *ODD_ADDRESSES, *ODD_UNIX_ADDRESSES)
        address = self.any_of(own, *ODD_ADDRESSES, *ODD_INET_ADDRESSES)
        if "(" in target and (".b'" in address or "'::" in address or "fe80" in address):
            address = own
        return address.replace("HOST", "'::1'" if self.setup.kind[-1] == "6" else "'127.0.0.1'")
