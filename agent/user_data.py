"""The desired state and the source of the agent -> EC2 user-data that performs `configure` at first boot."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent import __version__
from agent.aws.access import AwsAccess
from agent.catalogue import load
from agent.cloudhsm.client_options import CLIENT_OPTIONS
from agent.config.ca_source import load_ca
from agent.config.desired import Desired, options_of, spelled
from agent.config.input_errors import InputErrors
from agent.config.options import OPTIONS, CaSource
from agent.core.errors import AgentError
from agent.core.host import READ_LIMIT
from agent.core.system import is_absolute
from agent.core.timeouts import Timeouts
from agent.core.urls import names_user, redact_url, scheme_of, split
from agent.hosts.windows.acl import descriptor
from agent.http.proxies import proxy_for
from agent.render.templates import render
from agent.sinks import file
from agent.sinks.registry import SINKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.cloudhsm.ca import Ca
    from agent.core.host import HostView

FORMATS = ("shell", "cloud-config", "powershell")
# EC2's limit, before it is encoded for the API
MOST_BYTES = 16 * 1024
# In seconds: for the download of the agent, and again for its installation. TIMEOUT is for `configure` without a
# --timeout: at first boot other programs hold the package manager's locks for a long time.
PATIENCE = 600
TIMEOUT = 1800
# the hint if the agent is neither embedded nor fetched from a URL
NOT_BROUGHT = (
    "this user-data does not contain hsm-agent. The image, or a package repository that it uses, must have it (no "
    "distribution has it); otherwise first boot ends with package-not-found. To include it: --agent URL "
    "--agent-sha256 HASH"
)
_KINDS = {".deb": "deb", ".rpm": "rpm", ".tar.gz": "tree", ".msi": "msi"}
# this machine, and the metadata service, which no proxy reaches
_NEVER_BY_PROXY = "localhost,127.0.0.1,::1,169.254.169.254,fd00:ec2::254"
# options that name files on the host itself
_PASSED_ON = {option.name: option for option in CLIENT_OPTIONS if option.is_path}
_PATHS = (*_PASSED_ON, "report_ca", "report_token_file")
_URL = re.compile(r"(https?://|s3://)[A-Za-z0-9._~:/?#@!&()*+,;=%\[\]-]+")
_NAME = re.compile(r"[A-Za-z0-9._~+-]+")


@dataclass(frozen=True)
class AgentSource:
    """Where a host gets the agent. `kind`: package (the distribution's), deb, rpm, tree, msi; `data` is embedded."""

    kind: str = "package"
    name: str = ""
    url: str = ""
    sha256: str = ""
    data: bytes = b""

    @property
    def text(self) -> str:
        return base64.encodebytes(self.data).decode("ascii").strip()

    @property
    def bucket(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def key(self) -> str:
        return urlsplit(self.url).path.lstrip("/")


@dataclass(frozen=True)
class FirstBootOptions:
    """The proxy of a host, and the hosts that it reaches without one."""

    proxy: str = ""
    exceptions: str = _NEVER_BY_PROXY

    @property
    def bypasses(self) -> str:
        """The exceptions as .NET needs them, patterns of a URL without its path; it has no pattern for a range."""
        names = [name.removeprefix("*").strip(".") for name in self.exceptions.split(",") if "/" not in name]
        return ", ".join(
            f"'^https?://([^/]*\\.)?\\[?{re.escape(name)}\\]?(:[0-9]+)?$'" for name in names if name
        )


def first_boot_options(
    proxy: str | None, no_proxy: str | None, input_errors: InputErrors
) -> FirstBootOptions:
    """Return the proxy from the command line. User-data is readable, so its URL may contain no password."""
    try:
        known = proxy_for("http://a.invalid", {"http_proxy": proxy or ""})
    except ValueError:
        known = None
    if proxy and names_user(proxy):
        input_errors.add(
            "--proxy", "user-data must not contain a password: every user of the instance can read it"
        )
    elif proxy and (known is None or not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]_-]+/?", proxy)):
        input_errors.add("--proxy", "http://HOST:PORT is wanted")
    if no_proxy and not proxy:
        input_errors.add("--no-proxy", "it needs --proxy")
    elif no_proxy and not re.fullmatch(r"[A-Za-z0-9.:,*/\[\]_-]+", no_proxy):
        input_errors.add("--no-proxy", "names, addresses and ranges with commas between them are wanted")
    return FirstBootOptions(proxy or "", ",".join((_NEVER_BY_PROXY, *((no_proxy,) if no_proxy else ()))))


def check_fit(desired: Desired, source: AgentSource, form: str, input_errors: InputErrors) -> None:
    """Collect complaints about what no host that reads this form can do: systems, packages, paths, sinks."""
    catalogue = load()
    is_windows = form == "powershell"
    rows = {row.name: row for row in catalogue.rows if (row.format == "msi") == is_windows}
    if desired.platform is not None and desired.platform not in rows:
        input_errors.add(
            "--platform", f"{desired.platform} is not a platform that reads {form}: {', '.join(rows)}"
        )
    elif desired.platform is not None:
        rows = {desired.platform: rows[desired.platform]}
        if source.kind in ("deb", "rpm") and rows[desired.platform].format != source.kind:
            input_errors.add("--agent", f"{desired.platform} does not install a .{source.kind}")
    made = {
        component
        for client in catalogue.clients
        if client.sdk == (desired.sdk or 5) and client.platform in rows
        for component in client.component
    }
    for component in desired.component if made else ():
        if component not in made:
            input_errors.add("--component", f"{component} is not made for {', '.join(rows)}")
    system = "Windows" if is_windows else "Linux"
    given = options_of(desired)
    for name in _PATHS:
        value = given.get(name)
        is_unset = name in _PASSED_ON and value == _PASSED_ON[name].unset
        if value is not None and not is_unset and value.startswith("/") == is_windows:
            input_errors.add(f"--{name.replace('_', '-')}", f"{value!r} is not a path of {system}")
    folder = desired.package_source
    if (
        folder is not None
        and scheme_of(folder) is None
        and (not is_absolute(folder) or folder.startswith("/") == is_windows)
    ):
        input_errors.add(
            "--package-source",
            f"{folder!r} is no directory of the host: an absolute path of {system} is wanted",
        )
    for uri in desired.report_to:
        _check_place(uri, system, input_errors)


def _check_place(uri: str, system: str, input_errors: InputErrors) -> None:
    scheme = uri.partition(":")[0]
    sink, is_windows = SINKS[scheme], system == "Windows"
    if sink.is_linux_only and is_windows:
        input_errors.add("--report-to", f"{scheme}: is for Linux only")
    if sink.names_path and file.path_of(uri).startswith("/") == is_windows:
        input_errors.add("--report-to", f"{uri!r} is not a path of {system}")


def parse_agent_source(view: HostView, text: str, sha256: str | None, form: str) -> AgentSource:
    """Return the source of the agent from the command line. Raises AgentError `config-invalid` with all complaints."""
    input_errors = InputErrors()
    source = read_agent(view, text, sha256, form, input_errors)
    input_errors.raise_any()
    return source


def read_agent(
    view: HostView,
    text: str,
    sha256: str | None,
    form: str,
    input_errors: InputErrors,
    option: str = "--agent",
) -> AgentSource:
    """Return the source of the agent. Raises AgentError `user-data-too-large` for a file that never fits.

    `option` is its name on the command line; that of the SHA-256 begins with it.
    """
    source = AgentSource()
    if text != "package":
        source = _named(view, text, input_errors, option)
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        input_errors.add(f"{option}-sha256", f"{sha256!r} is not a SHA-256: 64 hexadecimal digits are wanted")
    elif source.url and sha256 is None:
        input_errors.add(f"{option}-sha256", "the SHA-256 of what the URL holds is needed: SHA256SUMS has it")
    elif source.url and sha256:
        source = replace(source, sha256=sha256.lower())
    elif source.data and sha256 and hashlib.sha256(source.data).hexdigest() != sha256.lower():
        input_errors.add(f"{option}-sha256", f"{text} has another SHA-256")
    if (form == "powershell") != (source.kind == "msi") or (form == "powershell" and source.data):
        wanted = "the URL of an .msi" if form == "powershell" else "package, or a .deb, .rpm or .tar.gz"
        input_errors.add(option, f"for --format {form} it is {wanted}")
    return source


def user_data(
    view: HostView, desired: Desired, source: AgentSource, form: str, network: FirstBootOptions | None = None
) -> bytes:
    """Return user-data in that form; a CA in a file of this machine is embedded, so it is validated here.

    What https: or AWS keeps is read by the host, at first boot: nothing is asked for it here.
    It is compressed if cloud-init reads it and only compression makes it fit. Raises AgentError `user-data-too-large`,
    and the errors of the CA.
    """
    desired, ca = with_ca(view, desired)
    text = _filled(desired, source, form, ca, network or FirstBootOptions())
    data = text.encode("ascii")
    if len(data) > MOST_BYTES and form != "powershell":
        data = gzip.compress(data, 9, mtime=0)
    if len(data) > MOST_BYTES:
        parts = {
            f"{source.name}, which is embedded": len(source.data),
            "the CA": len(ca.pem) if ca else 0,
            "the other options": len(config_json(replace(desired, ca_cert=None))),
        }
        raise _too_large(len(data), parts)
    return data


def with_ca(view: HostView, desired: Desired) -> tuple[Desired, Ca | None]:
    """Return the options with the CA that is a file of this machine as text, validated, and that CA.

    One that the host reads itself stays a name. Raises the errors of the CA.
    """
    if desired.ca_cert is None or desired.ca_cert.is_remote:
        return desired, None
    # no source that is left here is in AWS
    ca, _ = load_ca(view, desired, Timeouts(), AwsAccess(view, {}))
    return replace(desired, ca_cert=CaSource("inline", ca.pem.decode("ascii"))), ca


def config_json(desired: Desired) -> str:
    """Return the configuration file with the same options, as one line of printable ASCII."""
    tree: dict[str, dict[str, Any]] = {}
    given = options_of(desired)
    for option in OPTIONS:
        value = given.get(option.name)
        if option.key and value not in (None, (), False):
            table, _, key = option.key.partition(".")
            tree.setdefault(table, {})[key] = spelled(value)
    if desired.ca_cert is not None and "-----BEGIN" in desired.ca_cert.value:
        tree["hsm"]["ca_cert"] = desired.ca_cert.value  # as in a file written by hand
    return json.dumps(tree).replace("\x7f", "\\u007f")


def _filled(
    desired: Desired, source: AgentSource, form: str, ca: Ca | None, network: FirstBootOptions
) -> str:
    timeout = int(desired.timeout or TIMEOUT)
    patience = min(PATIENCE, timeout)
    values: dict[str, Any] = {
        "version": __version__,
        "source": source,
        "timeout": timeout,
        "patience": patience,
        "replace_ca": desired.replace_ca,
        "network": network,
    }
    wanted = config_json(desired)
    if form == "powershell":
        digest = hashlib.sha256(f"{wanted} {source.url} {source.sha256}".encode()).hexdigest()
        words = rf'configure --config "FOLDER\first-boot.json" --timeout {timeout}s'
        words += " --replace-ca" if desired.replace_ca else ""
        # the run, and the delivery of its report
        task = render("windows/hsm-agent-first-boot.xml", words=words, limit=timeout + 300)
        return render(
            "user-data/windows.ps1",
            wanted=_base64(wanted),
            task=_base64(task),
            words=words,
            digest=digest[:16],
            closed=descriptor(0o711, folder=True),
            **values,
        )
    script = render(
        "user-data/first-boot.sh",
        wanted=wanted,
        not_before=int(ca.not_before.timestamp()) if ca else 0,
        # the waits before the run, the run, and the delivery of its report
        limit=3 * patience + timeout + 300,
        **values,
    )
    if form == "shell":
        return script
    return render("user-data/cloud-config.yaml", script=script.rstrip("\n"), version=__version__)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("ascii")).decode("ascii")


def _named(view: HostView, text: str, input_errors: InputErrors, option: str) -> AgentSource:
    """Return the source for a URL or a file of this machine."""
    is_url = "://" in text
    if is_url and not _is_usable_url(text):
        input_errors.add(option, "an http, https or s3 URL is wanted, with other characters percent-encoded")
        return AgentSource("msi" if text.endswith(".msi") else "package")
    name = (urlsplit(text).path if is_url else text).rpartition("/")[2]
    kind = next((kind for ending, kind in _KINDS.items() if name.endswith(ending)), None)
    if kind is None or not _NAME.fullmatch(name):
        input_errors.add(option, f"{name!r} does not end in {', '.join(_KINDS)}")
    elif is_url and "@" in urlsplit(text).netloc:
        input_errors.add(
            option, "user-data must not contain a password: every user of the instance can read it"
        )
    elif is_url:
        return AgentSource(kind, name, url=text)
    else:
        seen = view.stat(text)
        if seen is not None and seen.kind == "file" and seen.size > READ_LIMIT:
            raise _too_large(seen.size, {f"{name}, which is embedded": seen.size})
        data = view.read(text, limit=READ_LIMIT)
        if data is None:
            input_errors.add(option, f"there is no file {redact_url(text)}")
        elif not data:
            input_errors.add(option, f"{text} is empty")
        return AgentSource(kind, name, data=data or b"")
    return AgentSource("msi" if kind == "msi" else "package")


def _is_usable_url(text: str) -> bool:
    with contextlib.suppress(ValueError):  # brackets that hold no address
        return bool(_URL.fullmatch(text) and split(text).hostname)
    return False


def _too_large(size: int, parts: Mapping[str, int]) -> AgentError:
    largest = max(parts, key=lambda name: parts[name])
    remedies = {
        "the CA": "leave out intermediate certificates, or name an https: source with --ca-cert and --ca-fingerprint",
        "the other options": "a --client-version of the catalogue needs no --sha256; other text can be shorter",
    }
    remedy = "put it into a bucket and name the bucket: --agent s3://BUCKET/KEY --agent-sha256 HASH"
    saw = ", ".join(f"{name}: {bytes_} bytes" for name, bytes_ in parts.items() if bytes_)
    return AgentError(
        "user-data-too-large",
        "this does not fit into user-data",
        saw=f"{size} bytes after compression; of them {saw}",
        want=f"at most {MOST_BYTES} bytes",
        hint=f"{largest} is too big: {remedies.get(largest, remedy)}",
    )
