"""The functions of Windows that Python does not offer, each as a Python function that raises OSError."""

from __future__ import annotations

import contextlib
import ctypes
import msvcrt
import os
import sys
from ctypes import wintypes
from typing import TYPE_CHECKING

assert sys.platform == "win32"

if TYPE_CHECKING:
    from collections.abc import Iterator

DENIED, SHARING, LOCKED, NOT_EMPTY = 5, 32, 33, 145
HANDLE_DISK_FULL, WRITE_PROTECT, DISK_FULL = 39, 19, 112

_INVALID = ctypes.c_void_p(-1).value
_GENERIC_READ, _GENERIC_WRITE = 0x80000000, 0x40000000
_SHARE_READ, _SHARE_ALL = 1, 1 | 2 | 4
_CREATE_NEW, _OPEN_EXISTING, _OPEN_ALWAYS = 1, 3, 4
_ORDINARY = 0x80
_BROKEN_PIPE, _NO_DATA = 109, 232
_REPLACE, _WRITE_THROUGH = 1, 8
_OWNER_AND_LIST = 1 | 4
_FILE_OBJECT = 1
_TOKEN_QUERY, _TOKEN_USER = 8, 1
_READ_ONLY_VOLUME = 0x80000
_WAIT_TIMEOUT, _SYNCHRONIZE = 258, 0x100000


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("length", wintypes.DWORD),
        ("descriptor", wintypes.LPVOID),
        ("inherit", wintypes.BOOL),
    )


def _kernel32() -> ctypes.WinDLL:
    return ctypes.WinDLL("kernel32", use_last_error=True)


def _advapi32() -> ctypes.WinDLL:
    return ctypes.WinDLL("advapi32", use_last_error=True)


def _must(answer: object) -> None:
    if not answer:
        raise ctypes.WinError(ctypes.get_last_error())


def _free(pointer: object) -> None:
    _kernel32().LocalFree(pointer)


@contextlib.contextmanager
def _attributes(descriptor: str) -> Iterator[_Attributes]:
    convert = _advapi32().ConvertStringSecurityDescriptorToSecurityDescriptorW
    convert.argtypes = [wintypes.LPCWSTR, wintypes.DWORD, ctypes.POINTER(wintypes.LPVOID), wintypes.LPVOID]
    pointer = wintypes.LPVOID()
    _must(convert(descriptor, 1, ctypes.byref(pointer), None))
    try:
        yield _Attributes(ctypes.sizeof(_Attributes), pointer, inherit=False)
    finally:
        _free(pointer)


def _open(path: str, access: int, share: int, how: int, attributes: _Attributes | None, flags: int) -> int:
    """Return a file descriptor that no child inherits."""
    create = _kernel32().CreateFileW
    create.argtypes = [
        wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, ctypes.POINTER(_Attributes), wintypes.DWORD,
        wintypes.DWORD, wintypes.HANDLE,
    ]  # fmt: skip
    create.restype = wintypes.HANDLE
    handle = create(
        path, access, share, None if attributes is None else ctypes.byref(attributes), how, _ORDINARY, None
    )
    if handle in (None, _INVALID):
        raise ctypes.WinError(ctypes.get_last_error())
    return msvcrt.open_osfhandle(int(handle), flags | os.O_BINARY | os.O_NOINHERIT)


def create_file(path: str, descriptor: str) -> int:
    """Make a new file with its access control list from the start; nobody else can open it while it is open."""
    with _attributes(descriptor) as attributes:
        return _open(path, _GENERIC_WRITE, 0, _CREATE_NEW, attributes, os.O_WRONLY)


def continue_file(path: str, descriptor: str) -> int:
    """Open a file for writing; create it with that list if absent."""
    with _attributes(descriptor) as attributes:
        return _open(path, _GENERIC_WRITE, 1, _OPEN_ALWAYS, attributes, os.O_WRONLY)


def open_file(path: str) -> int:
    """Open a file for reading so that others may still replace or remove it."""
    return _open(path, _GENERIC_READ, _SHARE_ALL, _OPEN_EXISTING, None, os.O_RDONLY)


def create_folder(path: str, descriptor: str) -> None:
    create = _kernel32().CreateDirectoryW
    create.argtypes = [wintypes.LPCWSTR, ctypes.POINTER(_Attributes)]
    with _attributes(descriptor) as attributes:
        _must(create(path, ctypes.byref(attributes)))


def security(path: str) -> str:
    """Return the owner and the access control list of a file or a folder as text."""
    get_security = _advapi32().GetNamedSecurityInfoW
    get_security.argtypes = [
        wintypes.LPCWSTR, ctypes.c_int, wintypes.DWORD, *[wintypes.LPVOID] * 4, ctypes.POINTER(wintypes.LPVOID),
    ]  # fmt: skip
    convert = _advapi32().ConvertSecurityDescriptorToStringSecurityDescriptorW
    convert.argtypes = [
        wintypes.LPVOID, wintypes.DWORD, wintypes.DWORD, ctypes.POINTER(wintypes.LPWSTR), wintypes.LPVOID,
    ]  # fmt: skip
    found = wintypes.LPVOID()
    failed = get_security(path, _FILE_OBJECT, _OWNER_AND_LIST, None, None, None, None, ctypes.byref(found))
    if failed:
        raise ctypes.WinError(failed)
    text = wintypes.LPWSTR()
    try:
        _must(convert(found, 1, _OWNER_AND_LIST, ctypes.byref(text), None))
        return text.value or ""
    finally:
        _free(text)
        _free(found)


def move(path: str, target: str) -> None:
    """Give a file another file's name in one step, and return when that is on the disk."""
    move_file = _kernel32().MoveFileExW
    move_file.argtypes = [wintypes.LPCWSTR, wintypes.LPCWSTR, wintypes.DWORD]
    _must(move_file(path, target, _REPLACE | _WRITE_THROUGH))


def read_only_volume(path: str) -> bool:
    """Tell whether the volume of an existing path is read-only."""
    volume = ctypes.create_unicode_buffer(1024)
    flags = wintypes.DWORD()
    kernel32 = _kernel32()
    _must(kernel32.GetVolumePathNameW(wintypes.LPCWSTR(path), volume, 1024))
    _must(kernel32.GetVolumeInformationW(volume, None, 0, None, None, ctypes.byref(flags), None, 0))
    return bool(flags.value & _READ_ONLY_VOLUME)


def is_administrator() -> bool:
    """Tell whether this process has the rights of an administrator now: on systems with UAC, whether it is elevated."""
    return bool(ctypes.WinDLL("shell32").IsUserAnAdmin())


def user() -> str:
    """Return the security identifier of the user of this process, as text."""
    advapi32 = _advapi32()
    process = _kernel32().GetCurrentProcess
    process.restype = wintypes.HANDLE
    token = wintypes.HANDLE()
    advapi32.OpenProcessToken.argtypes = [wintypes.HANDLE, wintypes.DWORD, ctypes.POINTER(wintypes.HANDLE)]
    _must(advapi32.OpenProcessToken(process(), _TOKEN_QUERY, ctypes.byref(token)))
    try:
        # a pointer, its attributes, and what it points to: at most 68 bytes
        room = ctypes.create_string_buffer(256)
        size = wintypes.DWORD()
        get_information = advapi32.GetTokenInformation
        get_information.argtypes = [
            wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD, ctypes.POINTER(wintypes.DWORD),
        ]  # fmt: skip
        _must(get_information(token, _TOKEN_USER, room, len(room), ctypes.byref(size)))
        text = wintypes.LPWSTR()
        convert = advapi32.ConvertSidToStringSidW
        convert.argtypes = [wintypes.LPVOID, ctypes.POINTER(wintypes.LPWSTR)]
        _must(convert(ctypes.cast(room, ctypes.POINTER(wintypes.LPVOID))[0], ctypes.byref(text)))
        try:
            return text.value or ""
        finally:
            _free(text)
    finally:
        _close(token.value or 0)


def explain(number: int) -> str:
    return ctypes.FormatError(number).strip()


@contextlib.contextmanager
def exclusive(path: str, descriptor: str) -> Iterator[int | None]:
    """Hold a file that no one else may open for writing, and yield its descriptor; create it with that list if absent.

    Yields None when another process holds it. The kernel closes the file of a dead holder. A named mutex was rejected:
    any user can use any name, and so take ours first, or give it to an event.
    """
    with _attributes(descriptor) as attributes:
        try:
            fd = _open(path, _GENERIC_WRITE, _SHARE_READ, _OPEN_ALWAYS, attributes, os.O_WRONLY)
        except OSError as error:
            if error.winerror != SHARING:
                raise
            fd = -1
    if fd < 0:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def is_owned(name: str) -> bool:
    """Tell whether a named mutex is owned now; one that does not exist is not."""
    kernel32 = _kernel32()
    open_mutex = kernel32.OpenMutexW
    open_mutex.argtypes, open_mutex.restype = (
        [wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR],
        wintypes.HANDLE,
    )
    handle = open_mutex(_SYNCHRONIZE, False, name)
    if not handle:
        return ctypes.get_last_error() == DENIED
    try:
        answer = kernel32.WaitForSingleObject(wintypes.HANDLE(handle), 0)
        if answer == _WAIT_TIMEOUT:
            return True
        kernel32.ReleaseMutex(wintypes.HANDLE(handle))
        return False
    finally:
        _close(handle)


class Job:
    """A job object: a process in it, with all that it starts, can be ended at once."""

    def __init__(self) -> None:
        create = _kernel32().CreateJobObjectW
        create.argtypes, create.restype = [wintypes.LPVOID, wintypes.LPCWSTR], wintypes.HANDLE
        self._handle = create(None, None)
        _must(self._handle)

    def take(self, process: int) -> None:
        """Put a process that was created suspended into the job, and let it run."""
        assign = _kernel32().AssignProcessToJobObject
        assign.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
        _must(assign(self._handle, process))
        resume = ctypes.WinDLL("ntdll").NtResumeProcess
        resume.argtypes = [wintypes.HANDLE]
        if resume(process) < 0:
            raise OSError("the program could not be started: NtResumeProcess refused")

    def end(self, status: int) -> None:
        terminate = _kernel32().TerminateJobObject
        terminate.argtypes = [wintypes.HANDLE, wintypes.UINT]
        _must(terminate(self._handle, status))

    def close(self) -> None:
        """Close the handle; what still runs in the job continues."""
        _close(self._handle)


def bytes_available(fd: int) -> int | None:
    """Return how many bytes wait in a pipe, None when it is empty and has no writer left."""
    peek = _kernel32().PeekNamedPipe
    peek.argtypes = [
        wintypes.HANDLE, wintypes.LPVOID, wintypes.DWORD, wintypes.LPVOID, ctypes.POINTER(wintypes.DWORD),
        wintypes.LPVOID,
    ]  # fmt: skip
    available = wintypes.DWORD()
    if peek(msvcrt.get_osfhandle(fd), None, 0, None, ctypes.byref(available), None):
        return available.value
    if ctypes.get_last_error() in (_BROKEN_PIPE, _NO_DATA):
        return None
    raise ctypes.WinError(ctypes.get_last_error())


def _close(handle: int) -> None:
    close = _kernel32().CloseHandle
    close.argtypes = [wintypes.HANDLE]
    close(handle)
