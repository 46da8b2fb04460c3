"""The lab of one test run: its switch, its seats, its hosts, and the proof that nothing of it is left."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from . import agent_install, images
from .host import LabHost, init_of
from .kernel import LabError, control_groups, remove_control_group, tool, until
from .network import OPERATOR_IP, PREFIX, HsmSeat, Seat, Switch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

    from .kernel import Namespace


_labs = itertools.count(1)


def _sweep() -> None:
    """Takes away what a killed run could not: its folder and its empty control groups. The kernel did the rest."""
    for left in (*Path(tempfile.gettempdir()).glob("hsmlab*-*"), *control_groups().glob("hsmlab*-*")):
        pid = left.name.removeprefix("hsmlab").partition("-")[0]
        if not Path("/proc", pid).exists():
            if control_groups() in left.parents:
                with suppress(OSError):  # its last process is about to end
                    remove_control_group(left)
            else:
                shutil.rmtree(left, ignore_errors=True)


class Lab:
    """Open it with `with`, or through the fixture of that name."""

    def __init__(self) -> None:
        _sweep()
        self.tag = f"hsmlab{os.getpid()}-{next(_labs)}"
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.tag}-"))
        self.ssh_key = self.folder / "id_ed25519"
        tool(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.tag, "-f", str(self.ssh_key)])
        self._seats: list[Seat] = []
        self._hosts: list[LabHost] = []
        self._numbers = itertools.count(1)
        self._left: list[str] = []
        self._closed = False
        self.switch = Switch()
        self.operator = self._seat(OPERATOR_IP)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def _seat(self, ip: str) -> Seat:
        seat = Seat(self.switch, ip)
        self._seats.append(seat)
        return seat

    def host(
        self,
        image: str = "ubuntu22.04",
        *,
        agent: bool = False,
        init: str | None = None,
        ip: str | None = None,
        layers: Sequence[Path] = (),
        disk_megabytes: int = 2048,
        on_disk: bool = False,
        disk_copy: Path | None = None,
    ) -> LabHost:
        """Makes a host and boots it. `init` is 'systemd' for a `+systemd` image, else 'sshd', or 'idle' on demand.

        `disk_copy` is what `LabHost.copy_disk` wrote: a host of the same image, with the same agent, begins with it.
        """
        kind = images.image(image)
        images.ensure([image])
        number = next(self._numbers)
        seat = self._seat(ip or f"{PREFIX}.{1 + number // 200}.{1 + number % 200}")
        host = LabHost(
            f"h{number}",
            kind,
            seat,
            init=init_of(image, init),
            layers=(*(agent_install.layers(kind) if agent else ()), *layers),
            ssh_key=self.ssh_key.with_suffix(".pub").read_text().strip(),
            tag=self.tag,
            disk_megabytes=disk_megabytes,
            disk_folder=self._folder(f"disk{number}") if on_disk else None,
            disk_copy=disk_copy,
        )
        self._hosts.append(host)
        return host.boot()

    def _folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder

    def hsm(self, ip: str | None = None) -> HsmSeat:
        """A seat for an HSM stand-in, at the first free address from 10.77.0.10 on."""
        used = {seat.ip for seat in self._seats}
        free = (f"{PREFIX}.0.{number}" for number in range(10, 250))
        seat = HsmSeat(self.switch, ip or next(address for address in free if address not in used))
        self._seats.append(seat)
        return seat

    @property
    def namespaces(self) -> list[Namespace]:
        disks = [host.disk for host in self._hosts]
        return [self.switch.net, self.switch.files, *(seat.net for seat in self._seats), *disks]

    def end(self, thing: LabHost | Seat) -> None:
        """Ends a host or a seat for good; its addresses and files are free again. What is left, `close` tells."""
        thing.close()
        if isinstance(thing, LabHost):
            self._hosts.remove(thing)
            seat, spaces = thing.seat, [thing.disk, thing.seat.net]
        else:
            seat, spaces = thing, [thing.net]
        self._seats.remove(seat)
        self._let_go(spaces)

    def close(self) -> list[str]:
        """Ends everything, and returns what is nevertheless left: it is to be an empty list."""
        if not self._closed:
            self._closed = True
            for host in tuple(self._hosts):
                self.end(host)
            for seat in tuple(self._seats):
                self.end(seat)
            self.switch.stop()
            self._let_go([self.switch.net, self.switch.files])
            shutil.rmtree(self.folder, ignore_errors=True)
            groups = control_groups().glob(f"{self.tag}-*")
            self._left += [f"control group {group}" for group in groups]
        return self._left

    def _let_go(self, spaces: list[Namespace]) -> None:
        """Looks for processes and mounts of namespaces while they are held, for then their numbers are not re-used."""
        found: list[str] = []

        def all_gone() -> bool:
            found[:] = [
                f"process {pid} in a {space.kind} namespace" for space in spaces for pid in space.members()
            ]
            return not found

        with suppress(LabError):
            until(all_gone, "the last process to leave", 2)
        words = {
            f"{self.tag}-",
            "lab-root",
            "lab-disk",
            *(f"{space.kind}:[{space.inode}]" for space in spaces),
        }
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        self._left += found + [f"mount {line}" for line in mounts if any(word in line for word in words)]
        for space in spaces:
            space.close()
