"""The options that are only passed on to the vendor's configure tools (configure-tool-params5), one row for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.cloudhsm.components import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# What is given to get the package's own value back, and to have no client certificate any more.
DEFAULT = "default"
NONE = ""


@dataclass(frozen=True)
class ClientOption:
    """One option: `name` here, in environment, files and records; `flag` of the tool; `section` and `key` in its file.

    `unset` is the value that takes the option out of the file again, or gives the package's own value back. `words` are
    the values that the tool takes, none for a path; a file may hold those `in_files` as well.
    """

    name: str
    help: str
    metavar: str
    flag: str
    section: str
    key: str
    title: str
    unset: str = DEFAULT
    words: tuple[str, ...] = ()
    in_files: tuple[str, ...] = ()
    sdks: tuple[int, ...] = (5,)
    components: tuple[str, ...] = NAMES

    @property
    def is_path(self) -> bool:
        return not self.words


CLIENT_OPTIONS = (
    ClientOption(
        name="log_level", title="log level", metavar="LEVEL", flag="--log-level", section="logging", key="log_level",
        words=("error", "warn", "info", "debug", "trace"),
        help="passed on to the configure tools; default: the package's own again",
    ),
    ClientOption(
        name="log_file", title="log file", metavar="PATH", flag="--log-file", section="logging", key="log_file",
        help="passed on to the configure tools; default: the package's own again",
    ),
    ClientOption(
        name="log_type", title="log type", metavar="TYPE", flag="--log-type", section="logging", key="log_type",
        words=("term", "file"),
        help="passed on to the configure tools: term or file, or default",
    ),
    ClientOption(
        name="log_rotation", title="log rotation", metavar="EVERY", flag="--log-rotation", section="logging",
        key="log_interval",
        # the tool's help and AWS's page name different words
        words=("never", "hourly", "daily"), in_files=("weekly",),
        help="passed on to the configure tools: never, hourly, daily, or default",
    ),
    ClientOption(
        name="client_cert", title="client certificate", metavar="PATH", flag="--client-cert-hsm-tls-file",
        section="cluster", key="client_cert_hsm_tls_path", unset=NONE,
        help="certificate for mutual TLS with the HSM (path on this host); none takes it out again",
    ),
    ClientOption(
        name="client_key", title="client key", metavar="PATH", flag="--client-key-hsm-tls-file",
        section="cluster", key="client_key_hsm_tls_path", unset=NONE,
        help="its key, without a passphrase (path on this host); none with the certificate",
    ),
)  # fmt: skip


def options_in(section: str) -> tuple[ClientOption, ...]:
    """Return the options that one section of a configuration file holds."""
    return tuple(option for option in CLIENT_OPTIONS if option.section == section)


@dataclass(frozen=True)
class ClientOptions:
    """The values of these options by name, as they were given or as a file holds them; others are absent."""

    values: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __getitem__(self, name: str) -> str | None:
        return self.values.get(name)

    def wanted(self, component: str, fresh: Mapping[str, str]) -> Iterator[tuple[ClientOption, str | None]]:
        """Yield each option that was given for a component, with its value in the file; None is for no such key.

        `fresh` has what the file of a fresh package holds, by its keys.
        """
        for option in CLIENT_OPTIONS:
            value = self[option.name]
            if value is not None and component in option.components:
                yield option, fresh.get(option.key) if value == option.unset else value
