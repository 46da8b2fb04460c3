r"""Windows: the registry's list of installed programs, Windows Installer for the transaction."""

from __future__ import annotations

import ntpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cloudhsm.components import COMPONENTS
from agent.core.errors import AgentError
from agent.core.utf16 import text_of
from agent.package_managers.protocol import Condition, Installed, run_transaction
from agent.windows.authenticode import check_signature
from agent.windows.registry import read_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.core.codes import CodeName
    from agent.core.host import CommandResult, Host, HostView
    from agent.core.model import Notice
    from agent.core.timeouts import Timeouts

_UNINSTALL = r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Uninstall"
_SESSION_MANAGER = r"HKLM\SYSTEM\CurrentControlSet\Control\Session Manager"
_CODE = re.compile(r"\{[0-9A-F-]{36}\}", re.IGNORECASE)
_SEPARATOR = "\\"
_OURS = re.compile(r"\\Amazon\\CloudHSM\\", re.IGNORECASE)
_QUIET = ("/qn", "/norestart", "/l*v")
_LOG_END = 1024 * 1024

# The names of the vendor's programs are not published (facts 11). So a package that AWS published is recognised
# by words in its name, if the other words mean nothing: an exporter or a backup of AWS's is another product.
_SAYS_NOTHING = re.compile(
    r"aws|amazon|cloudhsm|cloud|hsm|client|sdk|module|library|provider|software|tools?|interface|for|windows|x64|bit|v?\d+"
)
# what may surround the title of a program without a publisher
_AROUND = r"(library|provider|sdk|software|for|windows|x64|64 ?bit|v?[\d ]+)"
_PUBLISHER = re.compile(
    r"(amazon( web services?| ?com)?|aws)"
    r"( (inc|llc|ltd|limited|corp|corporation|emea|sarl|or|its|affiliates|development|center|services))*"
)

_DONE, _REBOOT_BEGUN, _REBOOT = 0, 1641, 3010
_UNKNOWN = (1605, 1614)  # a product that is not, or no longer, installed
_BUSY = 1618
# Other exit statuses of Windows Installer: code, meaning, and hint (None: the code's own).
_MEANINGS: dict[int, tuple[CodeName, str, str | None]] = {
    112: ("no-space", "the disk is full", None),
    1601: (
        "package-failed",
        "the Windows Installer service cannot be reached",
        "start it: `sc start msiserver`",
    ),
    1602: ("package-failed", "somebody cancelled it", "run this again, and leave the installation alone"),
    1603: ("package-failed", "a fatal error", None),
    1605: ("package-failed", "the product is not installed", None),
    1619: ("package-failed", "the package could not be opened", "remove the file, and run this again"),
    1620: (
        "package-failed",
        "the file is no Windows Installer package",
        "remove the file, and run this again",
    ),
    1622: ("package-failed", "the log cannot be written", None),
    1625: (
        "package-failed",
        "a policy of this computer forbids it",
        "ask who keeps the group policies to allow it",
    ),
    1627: ("package-failed", "the package is damaged", "remove the file, and run this again"),
    1633: ("package-failed", "the package is not made for this processor or Windows", None),
    1638: (
        "package-failed",
        "another version of this product is installed, which this package does not replace",
        "take the installed one off first: `hsm-agent remove`",
    ),
}
# Lines of a verbose log that only repeat that something failed.
_EMPTY_WORDS = re.compile(
    r"(Installation|Configuration|Removal|Update) (operation )?(failed|completed)|^(Error )?1603\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Product:
    """One program in the registry's list that Windows Installer installed: its key there is its product code.

    `publisher` and `location` are empty where the registry has none.
    """

    code: str
    name: str
    version: str
    publisher: str = ""
    location: str = ""

    def package(self, root: str) -> str | None:
        r"""Return the vendor's file name without version, None for another publisher's program, or without a package.

        The publisher decides. A program without one, which a package of Windows Installer must have, needs exactly the
        vendor's name (`CloudHSM Client Backup` is not), and no location outside of `root`.
        """
        name = _plain(self.name)
        if "cloudhsm" not in name.replace(" ", ""):
            return None
        exact = _exactly(name)
        if not self.publisher:
            return exact if not self.location or _below(self.location, root) else None
        if not _PUBLISHER.fullmatch(_plain(self.publisher)):
            return None
        return exact or _by_words(name)


def _below(path: str, folder: str) -> bool:
    """Tell whether a path is below a folder; installers write it in their own way: quoted, with slashes, over `..`."""
    there = ntpath.normpath(path.strip().strip('"'))
    return f"{there}{_SEPARATOR}".lower().startswith(f"{folder}{_SEPARATOR}".lower())


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _exactly(name: str) -> str | None:
    bare = re.sub(r"^(aws|amazon)? ?(aws )?cloud ?hsm", "", name).strip()
    for each in COMPONENTS:
        if each.windows and re.fullmatch(rf"({_AROUND} )*({each.title})( {_AROUND})*", bare):
            return each.windows
    return None


def _by_words(name: str) -> str | None:
    for each in COMPONENTS:
        rest = re.sub(each.keyword, " ", name) if each.windows else name
        if rest != name and all(map(_SAYS_NOTHING.fullmatch, rest.split())):
            return each.windows
    return None


@dataclass(frozen=True)
class Msi:
    """Windows Installer, one package after the other: it has no transaction over several.

    The only test of whether it is free is to take its mutex, which could make another installation fail. So the agent
    waits for as long as it answers 1618. With `own`, it is about the program of that name, and not about the vendor's.
    """

    own: str | None = None

    @property
    def locks(self) -> tuple[str, ...]:
        return ()

    @property
    def version_parts(self) -> int:
        return 3

    @property
    def knows_scripts(self) -> bool:
        return True

    def installed(self, view: HostView) -> tuple[Installed, ...]:
        found: dict[str, list[str]] = {}
        for package, product in products(view, self.own):
            found.setdefault(package, []).append(product.version)
        pending_reboot_file = _awaited(view) if found and self.own is None else None
        return tuple(
            _installed(package, sorted(versions, key=_by_number), pending_reboot_file)
            for package, versions in sorted(found.items())
        )

    def finish(self, host: Host, package: str, limits: Timeouts) -> None:
        """Do nothing: Windows Installer rolls a failed transaction back, so it leaves nothing unfinished."""

    def install(self, host: Host, files: Sequence[str], limits: Timeouts) -> tuple[Notice, ...]:
        """Do what PackageManager.install promises; raise `reboot-required` when only a reboot remains to be done."""
        reboot = [file for file in files if self._run(host, ("/i", file), f"{file}.log", limits)]
        _require_no_reboot(reboot)
        return ()

    def check_signature(self, view: HostView, file: str) -> tuple[Notice, ...]:
        return check_signature(view, file)

    def require_removable(self, host: Host, packages: Sequence[str], limits: Timeouts) -> None:
        """Do nothing: Windows Installer knows of no program that needs another."""

    def remove(self, host: Host, packages: Sequence[str], limits: Timeouts) -> None:
        reboot = []
        for package, product in products(host, self.own):
            if package not in packages:
                continue
            # the log of an installation lies beside its package
            log = host.system.join(host.system.log, f"remove-{product.code.strip('{}')}.log")
            host.write(log, b"", mode=0o600)  # Windows Installer creates no folder
            if self._run(host, ("/x", product.code), log, limits):
                reboot.append(product.name)
        _require_no_reboot(reboot)

    def _run(self, host: Host, words: tuple[str, str], log: str, limits: Timeouts) -> bool:
        """Run one transaction to its end, and tell whether it needs a reboot."""
        argv = ("msiexec", *words, *_QUIET, log)
        done = run_transaction(host, self, argv, limits, _is_busy)
        if done.status in (_REBOOT, _REBOOT_BEGUN):
            return True
        if done.status == _DONE or (words[0] == "/x" and done.status in _UNKNOWN):
            return False
        raise _failure(host, done, argv, log)


def products(view: HostView, own: str | None = None) -> tuple[tuple[str, Product], ...]:
    """Return the vendor's programs in the 64-bit part of the registry, each with the package that it comes from.

    With `own`, those of exactly that name. Raises AgentError `unreadable`.
    """
    root = view.system.join(view.system.programs, "Amazon", "CloudHSM")
    found = []
    for code in filter(_CODE.fullmatch, read_key(view, _UNINSTALL).subkeys):
        entry = read_key(view, rf"{_UNINSTALL}\{code}")
        product = Product(
            code,
            entry.text("DisplayName"),
            entry.text("DisplayVersion"),
            entry.text("Publisher"),
            entry.text("InstallLocation"),
        )
        package = product.package(root) if own is None else own if product.name == own else None
        if package is not None:
            found.append((package, product))
    return tuple(sorted(found, key=lambda each: (each[0], _by_number(each[1].version), each[1].code)))


def _installed(package: str, versions: Sequence[str], pending_reboot_file: str | None) -> Installed:
    *old, newest = versions
    if old:
        remark = f"installed {len(versions)} times, as {', '.join(versions)}"
        return Installed(package, newest, Condition.BROKEN, remark, pending_reboot_file)
    if not newest:
        return Installed(package, newest, Condition.BROKEN, "no version is recorded", pending_reboot_file)
    return Installed(package, newest, pending_reboot_file=pending_reboot_file)


def _awaited(view: HostView) -> str | None:
    """Return the first file of the vendor's that was in use and is replaced at the next start of Windows."""
    # pairs of source and target; a name begins with \??\, or !\??\ where it replaces one
    moves = read_key(view, _SESSION_MANAGER).texts("PendingFileRenameOperations")
    paths = (path.lstrip("!")[len("\\??\\") :] for path in moves if path)
    return next((path for path in paths if _OURS.search(path)), None)


def _message(line: str) -> str:
    """Return the text of a log's line for people: what follows `Product: NAME -- `."""
    return line.partition("Product: ")[2].partition(" -- ")[2]


def reason(log: str) -> str:
    """Return why an installation failed, in its log's words: the messages for people, else the action that failed."""
    lines = [line.strip() for line in log.splitlines()]
    messages = [words for line in lines for words in [_message(line)] if words]
    errors = [match[0] for line in lines for match in [re.search(r"\bError \d{4}\b.+", line)] if match]
    useful = [words for words in (*messages, *errors) if not _EMPTY_WORDS.search(words)]
    ended = [line for line in lines if re.search(r"Return value 3\b", line)]
    return "; ".join(dict.fromkeys(useful[:3] or ended[:1]))


def _by_number(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _is_busy(done: CommandResult) -> bool:
    return done.status == _BUSY


def _require_no_reboot(names: Sequence[str]) -> None:
    if names:
        raise AgentError(
            "reboot-required",
            "Windows must be restarted to finish",
            saw=f"Windows Installer asks for it: {', '.join(names)}",
            want="an installation that is finished",
        )


def _failure(host: Host, done: CommandResult, argv: Sequence[str], log: str) -> AgentError:
    by_hand = f"run `{' '.join(argv)}` by hand and read {log}"
    if done.timed_out:
        return AgentError(
            "package-failed", "msiexec did not end in time", saw="still running when its time ran out", want="exit 0",
            hint=f"the Windows Installer service may still be running: wait for it, then run this again, or {by_hand}",
        )  # fmt: skip
    code, meaning, hint = _MEANINGS.get(done.status or 0, ("package-failed", "", None))
    why = reason(text_of(_end_of(host, log), "cp1252"))
    if "out of disk space" in why.lower():
        code, hint = "no-space", None
    elif code == "package-failed":
        hint = hint or by_hand
    return AgentError(
        code,
        f"msiexec exited {done.status}" + (f": {meaning}" if meaning else ""),
        saw=why or done.tail(3) or "no further message",
        want="exit 0",
        hint=hint,
    )


def _end_of(host: Host, log: str) -> bytes:
    """Return the last part of a log, which may be many times as long; empty when it cannot be read."""
    try:
        stat = host.stat(log)
        start = max(0, (stat.size if stat else 0) - _LOG_END) // 2 * 2
        return host.read(log, offset=start, limit=_LOG_END + 4096) or b""
    except AgentError:
        return b""  # the exit status has a meaning without it
