"""Questions only Python can ask a machine: connections, locks, mapped files, room.

The shell adapter sends this file as text. So it imports nothing but the standard library, speaks Python 3.6
(what RHEL 8 has), and answers in plain JSON values. `reach` works on Windows too; the rest is about Linux.
"""

# ruff: noqa: PLC0415, PTH100, PTH110, PTH120, PTH123, PTH208, UP032
# (Python 3.6 has no newer way, names are strings, and not every system has every module)

import contextlib
import errno
import os
import select
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    import ssl

# (socket, whether it is to be written, seconds) -> whether it can be
Ready = Callable[[socket.socket, bool, float], bool]
# Up to Python 3.12 time.monotonic counts in steps of 16 ms on Windows; on Linux both are one clock.
_seconds = time.perf_counter
# How often `stopped` is asked while waiting, in seconds.
_TURN = 0.1
# How much the other side may say before its handshake is over; OpenSSL takes certificates of 100 kB. It may go on for
# ever with messages that say nothing.
_MOST_SAID = 256 * 1024
# WSAEACCES, which is no number of Linux: the filters of Windows refused. A firewall of Linux has no number of its own:
# what nftables drops on its way out times out, and what it rejects is refused or unreachable, as from anywhere else.
_FILTERED = 10013
# What a failed connect means; all else (a route that prohibits, no such family) is no route.
_CAUSES = {
    _FILTERED: "hsm-firewalled",
    errno.ETIMEDOUT: "hsm-timed-out",
    errno.ECONNREFUSED: "hsm-refused",
    errno.ECONNRESET: "hsm-refused",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM), "no-resources"),
}
# struct flock of 64-bit Linux: type, whence, start, length, pid
_FLOCK = "hhqqi4x"
# bytes: 15 of a program, and more only of a kernel's thread
_COMM = 64
# FS_IOC_GETFLAGS of 64-bit Linux, and two of its bits
_GET_FLAGS, _IMMUTABLE, _APPEND = 0x80086601, 0x10, 0x20
# CLOCK_BOOTTIME, which Python 3.6 has no name for
_BOOTTIME = 7


class Interrupted(Exception):  # noqa: N818 -- an event, not an error
    """The wait was ended because `stopped` said so."""


class _NoAnswer(Exception):  # noqa: N818 -- a finding
    """The time ran out."""


def ready(sock: socket.socket, writing: bool, seconds: float) -> bool:
    """Wait at most `seconds` until a socket can be written, or read."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT if writing else select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def reach(
    address: str,
    port: int,
    timeout: float,
    tls: bool = True,
    stopped: "Callable[[], bool]" = lambda: False,
    *,
    ready: "Ready" = ready,
    under_way: int = errno.EINPROGRESS,
    words: "Callable[[int], str]" = os.strerror,
) -> "dict[str, Any]":
    """Return the fields `cause`, `detail`, `seconds` and `tls` of a Reached.

    Connecting and the handshake have `timeout` seconds together. No name is looked up: a resolver knows no limit.
    Raises Interrupted when `stopped` becomes true. What differs between systems: `ready` waits for a
    socket, `under_way` is what a connection that is being made says, and `words` is what an error number means.
    """
    wait = _Wait(stopped, ready)
    try:
        family, kind, _, _, target = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )[0]
    except (OSError, ValueError) as error:
        spent = _CAUSES.get(getattr(error, "errno", None) or 0)
        return _unreached(spent or "hsm-no-route", str(error) if spent else "not an IP address")
    start = _seconds()
    deadline = start + timeout
    try:
        sock = socket.socket(family, kind)
    except OSError as error:  # IPv6 is switched off, for one
        return _unreached(_CAUSES.get(error.errno or 0, "hsm-no-route"), _said(error))
    with sock:
        try:
            sock.setblocking(False)
            outcome = sock.connect_ex(target)
            if outcome == under_way:
                wait.until(sock, True, deadline)
                outcome = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if outcome:
                return _unreached(_CAUSES.get(outcome, "hsm-no-route"), words(outcome))
        except _NoAnswer:
            return _unreached("hsm-timed-out", "timed out after {:g} s".format(timeout))
        except OSError as error:
            return _unreached(_CAUSES.get(error.errno or 0, "hsm-no-route"), _said(error))
        seconds = _seconds() - start
        cause, detail, spoken = _speak(sock, timeout, deadline, wait) if tls else (None, "connected", None)
    return {"cause": cause, "detail": detail, "seconds": seconds, "tls": spoken}


def holder(path: str) -> "tuple[int, str] | None":
    """Return the process id and name of who holds the fcntl lock on `path`, None when it is free or absent.

    Raises OSError. Beware: POSIX drops all fcntl locks a process has on a file when it closes any descriptor
    of it, as this does. So never ask about a file that this process itself has locked that way.
    """
    import fcntl

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, asked)
    finally:
        os.close(fd)
    found, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return None if found == fcntl.F_UNLCK else (pid, name_of(pid))


def mapped(pid: int, prefix: str) -> "list[str]":
    """Return the files below `prefix` that a process has mapped; a file removed since ends with ` (deleted)`.

    Raises OSError when the process has gone or is not ours to look at.
    """
    with open("/proc/{}/maps".format(pid), "rb") as file:
        lines = [line.rstrip(b"\n").split(b" ", 5) for line in file]
    paths = (os.fsdecode(words[5].lstrip(b" ")) for words in lines if len(words) == 6)
    return sorted({path.replace("\\012", "\n") for path in paths if path.startswith(prefix)})


def mapping(prefix: str) -> "list[dict[str, Any]]":
    """Return the fields of a Running for each process with a file below `prefix`, by /proc alone."""
    found = []  # type: list[dict[str, Any]]
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            paths = mapped(pid, prefix)
            if paths:
                uid, gid = _owner_of(pid)
                found.append(
                    {
                        "pid": pid,
                        "name": name_of(pid),
                        "uid": uid,
                        "gid": gid,
                        "started": started(pid),
                        "mapped": paths,
                    }
                )
        except OSError:  # noqa: PERF203 -- gone meanwhile, or not ours to look at
            continue
    return found


def room(path: str) -> "dict[str, Any]":
    """Return the fields of a Room.

    Only root asks whether it may write there (an immutable folder says no): a refusal of another user tells
    about that user, not about the file system.
    """
    place = os.path.abspath(path)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    space = os.statvfs(place)
    writable = not space.f_flag & os.ST_RDONLY
    if writable and os.geteuid() == 0:
        writable = os.access(place, os.W_OK)
    fixed = os.geteuid() == 0 and is_fixed(place)
    return {
        "free": space.f_bavail * space.f_frsize,
        "writable": writable or fixed,
        "inodes": space.f_favail if space.f_files else None,
        "executable": not space.f_flag & os.ST_NOEXEC,
        "fixed": fixed,
    }


def is_fixed(path: str) -> bool:
    """Tell whether an attribute of ext4, xfs or btrfs (`chattr +i`, `+a`) keeps root, too, from changing a name."""
    import fcntl

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            flags = bytearray(8)
            fcntl.ioctl(fd, _GET_FLAGS, flags)
        finally:
            os.close(fd)
    except OSError:  # not there, or a file system without them
        return False
    return bool(struct.unpack("=i", flags[:4])[0] & (_IMMUTABLE | _APPEND))


class _Wait:
    """Waits for a socket until a deadline, and asks meanwhile whether to stop."""

    def __init__(self, stopped: "Callable[[], bool]", ready: "Ready") -> None:
        self._stopped = stopped
        self._ready = ready

    def until(self, sock: socket.socket, writing: bool, deadline: float) -> None:
        while True:
            if self._stopped():
                raise Interrupted
            # the clock first: a side that is always ready would never be timed out
            left = deadline - _seconds()
            if left <= 0:
                raise _NoAnswer
            if self._ready(sock, writing, min(_TURN, left)):
                return


def tls_context() -> "ssl.SSLContext":
    """Return what a connection is made with that proves nobody. Raises OSError where this Python can make none.

    An `openssl.cnf` that names what its OpenSSL does not know, and older calls of any library, leave complaints in the
    thread's queue, which the next call takes for its own failure. A list in which there is no cipher empties it.
    """
    try:
        import ssl  # 8 ms that most commands need not pay

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with contextlib.suppress(ssl.SSLError):
            context.set_ciphers("NO-SUCH-CIPHER")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if hasattr(ssl, "TLSVersion"):  # Python 3.7
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("ALL:@SECLEVEL=0")  # whatever the other side has: nothing is sent through it
    except (ImportError, OSError) as error:  # SSLError is an OSError
        said = "{} can make no TLS connection: {}".format(sys.executable or "Python", error)
        raise OSError(said) from None
    return context


def _speak(
    sock: socket.socket, timeout: float, deadline: float, wait: _Wait
) -> "tuple[str | None, str, bool | None]":
    """Return cause, detail and whether TLS was spoken."""
    try:
        context = tls_context()
    except OSError as error:
        return "openssl-unusable", "connected; {}".format(error), None
    spoken, detail = _handshake(sock, context, timeout, deadline, wait)
    return None if spoken else "hsm-no-tls", detail, spoken


def _handshake(
    sock: socket.socket, context: "ssl.SSLContext", timeout: float, deadline: float, wait: _Wait
) -> "tuple[bool, str]":
    """Tell whether TLS was spoken, and in words what was.

    The first bytes of the answer decide: a TLS record, even an alert that refuses us, proves TLS.
    """
    import ssl  # loaded with the context

    heard = bytearray()
    try:
        return _shake(sock, context, heard, deadline, wait)
    except _NoAnswer:
        did = (
            "began a TLS handshake and did not finish it"
            if _is_record(heard)
            else "connected, then was silent"
        )
        return False, "{} for {:g} s".format(did, timeout)
    except ssl.SSLError as error:
        if _is_record(heard):
            return True, "TLS answered, and refused: {}".format(error.reason)
        return False, "answered, but not with TLS"
    except OSError as error:
        return _is_record(heard), "connected, then: " + _said(error)


def _shake(
    sock: socket.socket, context: "ssl.SSLContext", heard: bytearray, deadline: float, wait: _Wait
) -> "tuple[bool, str]":
    import ssl  # loaded with the context

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    talk = context.wrap_bio(incoming, outgoing)
    while True:
        try:
            talk.do_handshake()
        except ssl.SSLWantReadError:
            _send(sock, outgoing.read(), deadline, wait)
        else:
            return True, "{} {}".format(talk.version(), (talk.cipher() or ("",))[0])
        wait.until(sock, False, deadline)
        data = sock.recv(65536)
        if not data:
            return _is_record(heard), "connected, then closed by the other side"
        heard += data
        if len(heard) > _MOST_SAID:
            return False, "said {} bytes without finishing a TLS handshake".format(len(heard))
        incoming.write(data)


def _send(sock: socket.socket, data: bytes, deadline: float, wait: _Wait) -> None:
    """Send what a handshake has to say; the other side may close its window."""
    while data:
        wait.until(sock, True, deadline)
        data = data[sock.send(data) :]


def _is_record(first: "bytes | bytearray") -> bool:
    """Tell an alert (21) or handshake (22) record of TLS 1.x from anything else."""
    return first[:1] in (b"\x15", b"\x16") and first[1:2] == b"\x03"


def _unreached(cause: str, detail: str) -> "dict[str, Any]":
    return {"cause": cause, "detail": detail, "seconds": None, "tls": None}


def _said(error: OSError) -> str:
    return error.strerror or str(error)


def name_of(pid: int) -> str:
    """Return the kernel's name of a program, printable. The longer one in its command line is its own invention."""
    try:
        with open("/proc/{}/comm".format(pid), "rb") as file:
            name = file.read(_COMM).decode("utf-8", "replace").rstrip("\n")
    except OSError:
        return ""
    return "".join(char if char.isprintable() else "?" for char in name)


def _owner_of(pid: int) -> "tuple[int, int]":
    with open("/proc/{}/status".format(pid), "rb") as file:
        ids = {line.split()[0]: line.split()[2] for line in file if line.startswith((b"Uid:", b"Gid:"))}
    return int(ids[b"Uid:"]), int(ids[b"Gid:"])


def started(pid: int) -> float:
    """Return when a process began, to a hundredth of a second.

    By the running clock and not by `btime`, which is whole seconds: a program that was restarted right after a file
    changed would seem to be older than the file, and for ever.
    """
    with open("/proc/{}/stat".format(pid), "rb") as file:
        # the name in parentheses may hold anything; after it the 20th field is the start in ticks since boot
        ticks = int(file.read().rsplit(b")", 1)[1].split()[19])
    return time.time() - time.clock_gettime(_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
