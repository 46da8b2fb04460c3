"""The jump host in `ansible_ssh_common_args`, and the other arguments that may be ignored."""

from __future__ import annotations

import re
import shlex

from agent.config.options import InvalidValueError
from agent.fleet.inventory import validators

# These affect how ssh connects, not to which host. Host keys are always verified here, whatever is set.
_HARMLESS_FLAGS = frozenset("ACakqTtnvxXY")
_HARMLESS = frozenset(
    (
        "addkeystoagent",
        "batchmode",
        "checkhostip",
        "ciphers",
        "compression",
        "connectionattempts",
        "connecttimeout",
        "controlmaster",
        "controlpath",
        "controlpersist",
        "forwardagent",
        "forwardx11",
        "gssapiauthentication",
        "gssapidelegatecredentials",
        "hashknownhosts",
        "hostkeyalgorithms",
        "identitiesonly",
        "ipqos",
        "kbdinteractiveauthentication",
        "kexalgorithms",
        "loglevel",
        "macs",
        "numberofpasswordprompts",
        "passwordauthentication",
        "preferredauthentications",
        "pubkeyacceptedalgorithms",
        "pubkeyacceptedkeytypes",
        "pubkeyauthentication",
        "rekeylimit",
        "requesttty",
        "serveralivecountmax",
        "serveraliveinterval",
        "stricthostkeychecking",
        "tcpkeepalive",
        "updatehostkeys",
        "verifyhostkeydns",
        "visualhostkey",
    )
)
# These change the address or the accepted host keys, unless they have one of these values.
_HARMLESS_SO = {
    "addressfamily": ("any",),
    "canonicalizehostname": ("no", "false"),
    "globalknownhostsfile": ("/dev/null", "none"),
    "userknownhostsfile": ("/dev/null", "none"),
}


def jump_in(text: str) -> str | None:
    """Return the jump hosts in ssh's arguments; None without one.

    Understood are `-J HOST`, `-o ProxyJump=HOST` and the old spelling of it, `-o ProxyCommand="ssh -W %h:%p HOST"`.
    Arguments that only affect how ssh connects are ignored. Raises InvalidValueError for all others: without them ssh
    might connect to another host. The arguments are not shown, since they may contain passwords.
    """
    words = _words(text)
    found: str | None = None
    while words:
        word = words.pop(0)
        flag, value = word[:2], word[2:]
        if flag in ("-J", "-o"):
            if not value and not words:
                raise InvalidValueError(f"{flag} at the end needs a value")
            value = value or words.pop(0)
            hops = validators.jump(value) if flag == "-J" else _option(value)
            found = found or hops  # ssh also uses the first one
        elif not (word.startswith("-") and word[1:] and set(word[1:]) <= _HARMLESS_FLAGS):
            what = flag if word.startswith("-") else "a word that is no option"
            raise InvalidValueError(f"{what} is not understood; put it into ssh's configuration file instead")
    return found


def _option(text: str) -> str | None:
    name, _, value = text.replace("=", " ", 1).strip().partition(" ")
    name, value = name.lower(), value.strip()
    if name == "proxyjump":
        return validators.jump(value)
    if name == "proxycommand":
        return _hop_of(value)
    if name in _HARMLESS or value.lower() in _HARMLESS_SO.get(name, ()):
        return None
    raise InvalidValueError(f"-o {name} is not understood; put it into ssh's configuration file instead")


def _hop_of(command: str) -> str:
    words = _words(command)
    number, hop, through = "", "", False
    if words[:1] == ["ssh"]:
        words = words[1:]
        while words:
            word = words.pop(0)
            if word in ("-W", "-p") and words:
                value = words.pop(0)
                through = through or (word == "-W" and value in ("%h:%p", "[%h]:%p"))
                number = value if word == "-p" else number
            elif re.fullmatch(r"-[qATaxk]+", word):
                continue
            elif word.startswith("-") or hop:
                through = False
                break
            else:
                hop = word
    if not through or not hop:
        raise InvalidValueError(
            "this ProxyCommand is not understood: "
            "name the jump host with -J, or put it into ssh's configuration file"
        )
    return validators.jump(f"{hop}:{number}" if number else hop)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidValueError(f"it cannot be split into arguments: {error}") from None
