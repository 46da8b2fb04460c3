"""Where the value of each option comes from on this host, as `config show` prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from agent.cloudhsm.ca import find_certificates, written
from agent.config.desired import merged, options_of, resolve, spelled
from agent.config.input_errors import InputErrors
from agent.config.options import OPTIONS, SECRET_VARIABLES, CaSource
from agent.config.readers import configuration_files, places_of
from agent.config.recorded import resolve_desired
from agent.config.sources import read_sources
from agent.core.errors import AgentError
from agent.core.model import Notice
from agent.core.urls import redact_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.config.desired import Desired, RawOptions
    from agent.config.options import Option
    from agent.core.host import HostView

Origin = Literal["flag", "environment", "file", "last-configure", "default"]

# what holds where nothing was given and a value can be named; what it is without a value, the option's help says
_DEFAULTS: Mapping[str, Any] = {"sdk": 5, "component": ("cli",)}
HIDDEN = "(hidden)"


@dataclass(frozen=True)
class EffectiveOption:
    """An option with the value that counts, as JSON has it and without secrets, and where that comes from.

    `where` is the spelling of the flag, the variable, the file with its line, or the record; empty for a default.
    """

    name: str
    key: str | None
    value: Any
    origin: Origin
    where: str = ""


@dataclass(frozen=True)
class EffectiveOptions:
    """What counts on this host, and what could not be read."""

    options: tuple[EffectiveOption, ...]
    notices: tuple[Notice, ...] = ()


def effective_options(
    view: HostView, given: Mapping[str, Any], config: str | None, environ: Mapping[str, str]
) -> EffectiveOptions:
    """Return the value of every option of `configure`, as it would have it now, and its origin.

    Raises AgentError `config-invalid` as `configure` does. A record that cannot be read is a notice.
    """
    input_errors = InputErrors()
    flags, variables, files = read_sources(view, given, config, input_errors)
    desired = resolve((flags, variables, files), input_errors)
    notices: tuple[Notice, ...] = ()
    try:
        whole = resolve_desired(view, desired)
    except AgentError as error:
        # options that no record completes are what `configure` refuses; here they are shown
        if error.ends_run:
            raise
        whole = desired
        if error.code.name not in ("nothing-recorded", "config-invalid"):
            text = f"what the last `configure` was asked for was not read: {error.saw}; {error.hint or error.want}"
            notices = (Notice("record-unread", text),)
    places = _places(view, config) if files else {}
    found = [
        *(_effective(each, flags, variables, files, places, whole, view) for each in OPTIONS),
        *(
            EffectiveOption(name.partition("HSM_AGENT_")[2].lower(), None, HIDDEN, "environment", name)
            for name in SECRET_VARIABLES
            if environ.get(name)
        ),
    ]
    return EffectiveOptions(tuple(_with_region(each, environ) for each in found), notices)


def _effective(
    option: Option,
    flags: RawOptions,
    variables: RawOptions,
    files: RawOptions,
    places: Mapping[str, str],
    whole: Desired,
    view: HostView,
) -> EffectiveOption:
    sources: Iterable[tuple[RawOptions, Origin, str]] = (
        (flags, "flag", option.switch),
        (variables, "environment", option.variable),
        (files, "file", places.get(option.name, "")),
    )
    for source, origin, where in sources:
        if option.name in source:
            value = options_of(merged([source])).get(option.name, source[option.name])
            return EffectiveOption(option.name, option.key, _public(value), origin, where)
    recorded = options_of(whole)
    if option.name in recorded:
        value = _public(recorded[option.name])
        return EffectiveOption(option.name, option.key, value, "last-configure", view.system.desired)
    default = _DEFAULTS.get(option.name, False if option.flag else None)
    return EffectiveOption(option.name, option.key, spelled(default), "default")


def _with_region(option: EffectiveOption, environ: Mapping[str, str]) -> EffectiveOption:
    """Return the region that AWS's own variables name, where no option does."""
    from agent.aws.session import REGIONS  # noqa: PLC0415 -- 10 ms that only this command pays

    name = next((each for each in REGIONS if environ.get(each)), None)
    if option.name != "region" or option.origin != "default" or name is None:
        return option
    return EffectiveOption(option.name, option.key, environ[name], "environment", name)


def _places(view: HostView, config: str | None) -> dict[str, str]:
    """Return where each option stands in the files that were read."""
    if config == "-":
        return dict.fromkeys((each.name for each in OPTIONS), "standard input")
    places: dict[str, str] = {}
    for path in (config,) if config is not None else configuration_files(view):
        data = view.read(path)
        if data is not None:
            places.update(places_of(data, path))
    return places


def _public(value: Any) -> Any:
    """Return a value as JSON has it, with nothing in it that may be a secret."""
    if isinstance(value, CaSource):
        return _public_ca(value)
    if isinstance(value, str):
        return redact_url(value)
    if isinstance(value, tuple):
        return [redact_url(each) for each in value]
    return spelled(value)


def _public_ca(source: CaSource) -> str:
    if source.kind != "inline":
        return redact_url(source.text) if source.kind == "https" else source.text
    data = source.value.encode("utf-8", "surrogateescape")
    try:
        found = find_certificates(data)
    except AgentError:  # a private key
        return HIDDEN
    return written(found.fingerprints) if found.fingerprints else f"text of {len(data)} bytes that is no CA"
