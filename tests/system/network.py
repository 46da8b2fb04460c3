"""One switch, with seats of their own addresses at it: the operator's, the hosts' and those of HSM stand-ins."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from .kernel import LabError, Namespace, end, listening, spawn_bound, tool, unshared, until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PREFIX = "10.77"
OPERATOR_IP = f"{PREFIX}.0.1"
HSM_PORTS = (2223, 2224, 2225)
_NOTHING: Mapping[str, str] = MappingProxyType({})

_NEW_SWITCH = "ip link add br0 type bridge\nip link set br0 up"
# The machine's programs keep its files; but its name server is out of reach, and waiting for it would take seconds.
_NO_NAMES = """
mount -t tmpfs lab-names /mnt
echo "nameserver 10.77.0.1" >/mnt/resolv.conf
[ ! -e /etc/resolv.conf ] || mount --bind /mnt/resolv.conf /etc/resolv.conf
umount -l /mnt
"""
_NEW_SEAT = """
ip link set lo up
for setting in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 0 >/proc/sys/net/$setting; done
"""


def ipv6_of(ip: str) -> str:
    """Every seat has an IPv6 address as well: 10.77.1.20 is fd77::1:14 too."""
    third, fourth = (int(part) for part in ip.split(".")[2:])
    return f"fd77::{third:x}:{fourth:x}"


def mac_of(ip: str) -> str:
    """An address keeps its hardware address, so that nobody remembers a wrong one when the next test re-uses it."""
    return "02:00:" + ":".join(f"{int(part):02x}" for part in ip.split("."))


class Faults:
    """What goes wrong at one seat's network interface, by the kernel's own rules; they add up until `clear`."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._routes: list[str] = []

    def _rule(self, ports: Sequence[int], source: str | None, verdict: str) -> None:
        family = "ip6" if source and ":" in source else "ip"
        sender = f"{family} saddr {source} " if source else ""
        listed = ", ".join(str(port) for port in ports)
        self._seat.tool(
            ["nft", "-f", "-"],
            "add table inet lab\n"
            "add chain inet lab input { type filter hook input priority 0; policy accept; }\n"
            f"add rule inet lab input {sender}tcp dport {{ {listed} }} {verdict}\n",
        )

    def drop(self, ports: Sequence[int] = HSM_PORTS, source: str | None = None) -> None:
        """Packets vanish, as with a missing security group rule: the client times out."""
        self._rule(ports, source, "drop")

    def reset(self, ports: Sequence[int] = HSM_PORTS, source: str | None = None) -> None:
        """The client is refused at once, errno 111, as where nothing listens."""
        self._rule(ports, source, "reject with tcp reset")

    def unreachable(self, ports: Sequence[int] = HSM_PORTS, source: str | None = None) -> None:
        """A router says so: errno 113 at once."""
        self._rule(ports, source, "reject with icmpx type host-unreachable")

    def drop_after_connect(self, ports: Sequence[int] = HSM_PORTS, source: str | None = None) -> None:
        """The TCP connection is made, and nothing that the client says after it arrives."""
        self._rule(ports, source, "ct original packets > 2 drop")

    def lose(self, percent: int, ports: Sequence[int] = HSM_PORTS, source: str | None = None) -> None:
        """Drops that many of a hundred packets (up to 99), by chance."""
        self._rule(ports, source, f"numgen random mod 100 < {percent} drop")

    def no_route(self, to: str) -> None:
        """This seat has no way to an address or network: errno 113 at once."""
        self._route(f"unreachable {to}")

    def black_hole(self, to: str) -> None:
        """This seat's own routing table swallows it: errno 22 at once (a black hole elsewhere is `drop`)."""
        self._route(f"blackhole {to}")

    def prohibit(self, to: str) -> None:
        """This seat's own routing table forbids it: errno 13 at once."""
        self._route(f"prohibit {to}")

    def _route(self, route: str) -> None:
        self._seat.tool(["ip", "route", "add", *route.split()])
        self._routes.append(route)

    def unplug(self) -> None:
        """The cable is out: the client times out, or gets errno 113 after 3 s once its neighbour entry is gone."""
        self._seat.switch.tool(["ip", "link", "set", self._seat.port, "down"])

    def clear(self) -> None:
        """Everything works again."""
        self._seat.tool(["nft", "-f", "-"], "add table inet lab\ndelete table inet lab\n")
        for route in self._routes:
            self._seat.tool(["ip", "route", "del", *route.split()])
        self._routes.clear()
        self._seat.switch.tool(["ip", "link", "set", self._seat.port, "up"])


class Place:
    """A network namespace in which programs of the machine itself can run."""

    def __init__(self, net: Namespace, files: Namespace) -> None:
        self.net = net
        self.files = files
        self._bound: list[subprocess.Popen[bytes]] = []

    def inside(self, argv: Sequence[str]) -> list[str]:
        enter = ["nsenter", f"--net={self.net.path}", f"--mount={self.files.path}"]
        return [*enter, "--", "env", "-C", str(Path.cwd()), *argv]

    def tool(self, argv: Sequence[str], stdin: str = "") -> str:
        return tool(["nsenter", f"--net={self.net.path}", "--", *argv], stdin)

    def run(
        self,
        argv: Sequence[str],
        stdin: bytes = b"",
        timeout: float = 60,
        env: Mapping[str, str] = _NOTHING,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program of the machine, with this place's network; `env` is added to the present environment."""
        done = subprocess.run(
            self.inside(argv),
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
            env={**os.environ, **env},
        )
        return subprocess.CompletedProcess(
            list(argv),
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )

    def start(
        self,
        argv: Sequence[str],
        ports: Sequence[int] = (),
        env: Mapping[str, str] = _NOTHING,
        log: Path | None = None,
        seconds: float = 10,
    ) -> subprocess.Popen[bytes]:
        """Starts a server of the machine here, and returns when it listens on all those ports."""
        with log.open("ab") if log else tempfile.TemporaryFile("w+b") as output:
            server = spawn_bound(self.inside(argv), output, {**os.environ, **env})
            self._bound.append(server)

            def serves() -> bool:
                if server.poll() is not None:
                    said = log.read_text(errors="replace") if log else self._said(output.fileno())
                    message = (
                        f"{' '.join(argv)}: exit {server.returncode} before it listened on {ports}\n{said}"
                    )
                    raise LabError(message)
                here = Path(f"/proc/{server.pid}/ns/net").stat().st_ino == self.net.inode
                return here and set(ports) <= listening(server.pid)

            until(serves, f"{argv[0]} to listen on {list(ports)}", seconds)
        return server

    @staticmethod
    def _said(file: int) -> str:
        return os.pread(file, 4000, 0).decode(errors="replace")

    def stop(self) -> None:
        """Ends what was started here."""
        for process in self._bound:
            end(process)
        self._bound.clear()


class Seat(Place):
    """A place with an address, plugged into the switch."""

    def __init__(self, switch: Switch, ip: str) -> None:
        super().__init__(unshared("net", _NEW_SEAT), switch.files)
        self.switch = switch
        self.ip = ip
        self.ipv6 = ipv6_of(ip)
        self.port = switch.plug_in(self)
        gateway = f"route add default via {OPERATOR_IP}\n" if ip != OPERATOR_IP else ""
        self.tool(
            ["ip", "-batch", "-"],
            f"addr add {ip}/16 dev eth0\naddr add {self.ipv6}/64 dev eth0 nodad\nlink set eth0 up\n{gateway}",
        )

    def close(self) -> None:
        """Ends what was started here and takes the cable away; the namespace is the lab's to let go."""
        self.stop()
        self.switch.tool(["ip", "link", "del", self.port])

    @cached_property
    def faults(self) -> Faults:
        return Faults(self)


class HsmSeat(Seat):
    """Where an HSM stand-in listens; what it runs is up to the test."""

    server: subprocess.Popen[bytes] | None = None

    def serve(
        self,
        argv: Sequence[str],
        ports: Sequence[int] = HSM_PORTS,
        env: Mapping[str, str] = _NOTHING,
        log: Path | None = None,
    ) -> None:
        """Starts the stand-in (`python` as the program means the one that runs the tests)."""
        program = sys.executable if argv[0] == "python" else argv[0]
        self.server = self.start([program, *argv[1:]], ports, env, log)

    def freeze(self) -> None:
        """Connections are still accepted by the kernel, and nothing is ever answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        super().stop()
        self.server = None

    def _signal(self, number: signal.Signals) -> None:
        if self.server is None:
            message = f"nothing runs at {self.ip}"
            raise LabError(message)
        self.server.send_signal(number)


class Switch(Place):
    """The bridge that joins all seats; it has no address and no way out of the machine."""

    def __init__(self) -> None:
        super().__init__(unshared("net", _NEW_SWITCH), unshared("mnt", _NO_NAMES))
        self._numbers = itertools.count()

    def plug_in(self, seat: Seat) -> str:
        """Lays a cable to a seat, and returns the name of the switch's end of it."""
        port = f"port{next(self._numbers)}"
        self.tool(
            ["ip", "-batch", "-"],
            f"link add {port} type veth peer name eth0 address {mac_of(seat.ip)} netns {seat.net.path}\n"
            f"link set {port} master br0 up\n",
        )
        return port
