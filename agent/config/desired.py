"""What the caller asked for: options of all sources, or a record, -> Desired."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from agent.cloudhsm.client_options import CLIENT_OPTIONS, ClientOptions
from agent.config.options import BY_KEY, SDKS, CaSource, checksums_of, spelled_address
from agent.core.model import RequestedState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.config.input_errors import InputErrors
    from agent.config.options import Option


@dataclass(frozen=True)
class Desired:
    """What the caller asked for, validated. None and empty: it was not given; but an empty path: none is wanted.

    `sha256` is file -> checksum, `client` what is only passed on to the vendor's tools.
    """

    hsm_ip: tuple[str, ...] = ()
    cluster_id: str | None = None
    region: str | None = None
    ca_cert: CaSource | None = None
    ca_fingerprint: str | None = None
    replace_ca: bool = False
    component: tuple[str, ...] = ()
    client_version: str | None = None
    package_source: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict, hash=False)
    sdk: int | None = None
    platform: str | None = None
    accept_single_hsm: bool = False
    allow_firewall: bool = False
    attach_group: bool = False
    client: ClientOptions = field(default_factory=ClientOptions)
    report_to: tuple[str, ...] = ()
    report_ca: str | None = None
    report_token_file: str | None = None
    timeout: float | None = None

    @property
    def names_hsms(self) -> bool:
        """Whether it says which HSMs: by their addresses, or by their cluster."""
        return bool(self.hsm_ip or self.cluster_id)


_MANY = "tuple[str, ...]"
_PASSED_ON = tuple(option.name for option in CLIENT_OPTIONS)
# option -> its annotation and its default, as JSON and records have it
_FIELDS: Mapping[str, tuple[Any, Any]] = {
    **{each.name: (each.type, each.default) for each in fields(Desired) if each.name != "client"},
    "ca_cert": ("str | None", None),
    "sha256": (_MANY, ()),
    **dict.fromkeys(_PASSED_ON, ("str | None", None)),
}
# the options that name the HSMs, and the one that names the CA
HSMS = (BY_KEY["hsm.ip"], BY_KEY["hsm.cluster_id"])
CA = (BY_KEY["hsm.ca_cert"],)
NO_HSM_IP = "at least one address of an HSM is needed, or `--cluster-id`"
RawOptions = dict[str, Any]


def merged(given: Iterable[RawOptions]) -> Desired:
    """Return what was given, the strongest source first, unchecked."""
    every: RawOptions = {}
    for source in reversed(list(given)):
        every.update(source)
    return with_options(Desired(), every)


def with_options(desired: Desired, given: Mapping[str, Any]) -> Desired:
    """Return what is desired with other values for some options, by their names. Raises TypeError for unknown ones."""
    passed_on = {name: value for name, value in given.items() if name in _PASSED_ON}
    own = {name: value for name, value in given.items() if name not in _PASSED_ON}
    return replace(desired, **own, client=ClientOptions({**desired.client.values, **passed_on}))


def options_of(desired: Desired) -> RawOptions:
    """Return the value of every option that was given, by its name."""
    nothing = Desired()
    return {
        name: getattr(desired, name)
        for name in _FIELDS
        if name not in _PASSED_ON and getattr(desired, name) != getattr(nothing, name)
    } | dict(desired.client.values)


def resolve(given: Iterable[RawOptions], input_errors: InputErrors, *, complete: bool = False) -> Desired:
    """Merge what was given, the strongest source first, and check what only all of it can show.

    `complete`: no record will complete it, so it must name HSMs. Raises AgentError
    `config-invalid` with every complaint so far.
    """
    desired = merged(given)
    if complete and not desired.names_hsms and not is_about(HSMS, input_errors.texts):
        input_errors.add("--hsm-ip", NO_HSM_IP)
    pair = (desired.client["client_cert"], desired.client["client_key"])
    if bool(pair[0]) != bool(pair[1]) or (None in pair and pair != (None, None)):
        input_errors.add("--client-cert, --client-key", "each needs the other")
    if desired.attach_group and desired.hsm_ip and not desired.cluster_id:
        input_errors.add("--attach-group", "it is the group of a cluster: name that with --cluster-id")
    if desired.sdk == 3:
        if desired.package_source is None:
            input_errors.add(
                "--sdk 3", "AWS no longer hosts SDK 3: name your own mirror with --package-source"
            )
        of_sdk5 = ["accept_single_hsm", *(each.name for each in CLIENT_OPTIONS if 3 not in each.sdks)]
        for name in of_sdk5:
            if options_of(desired).get(name):
                input_errors.add("--sdk 3", f"--{name.replace('_', '-')} belongs to SDK 5")
    input_errors.raise_any()
    return desired


def requested_state(desired: Desired, ca_fingerprint: str | None = None) -> RequestedState:
    """Return what was asked for in the words of reports; of the options it holds those that no secret can be in.

    `ca_fingerprint` is that of the CA itself, where it was read.
    """
    return RequestedState(
        addresses=desired.hsm_ip,
        components=desired.component or ("cli",),
        version=desired.client_version,
        sdk=desired.sdk or 5,
        platform=desired.platform,
        ca_fingerprint=ca_fingerprint or desired.ca_fingerprint,
        accept_single_hsm=desired.accept_single_hsm,
        cluster=desired.cluster_id,
    )


def is_about(options: Iterable[Option], complaints: Iterable[str]) -> bool:
    """Tell whether one of the complaints is about one of the options: then it is wrong, and not missing."""
    names = [name for each in options for name in each.spellings]
    return any(name in text for text in complaints for name in names)


def to_json(desired: Desired) -> dict[str, Any]:
    """Return what `from_json` reads back; only what was given."""
    return {name: spelled(value) for name, value in options_of(desired).items()}


def spelled(value: Any) -> Any:
    """Return the value of an option as JSON and configuration files have it."""
    if isinstance(value, CaSource):
        return value.text
    if isinstance(value, dict):
        return [f"{name}={digest}" for name, digest in value.items()]
    return list(value) if isinstance(value, tuple) else value


def from_json(tree: Mapping[str, Any]) -> Desired:
    """Read what `to_json` wrote. Raises TypeError for keys of another version, and for values of another kind.

    An earlier version kept addresses as they were typed; whether one can be an HSM's was judged where it was typed.
    """
    given: RawOptions = {
        key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()
    }
    if given.keys() - _FIELDS.keys():
        raise TypeError(f"unknown: {sorted(given.keys() - _FIELDS.keys())}")
    for name, (annotation, default) in _FIELDS.items():
        value = given.get(name, default)
        if value != default and not _is_of_kind(annotation, value):
            raise TypeError(name)
    if given.get("sdk") not in (None, *SDKS):
        raise TypeError("sdk")
    try:
        values: RawOptions = {
            "hsm_ip": tuple(dict.fromkeys(spelled_address(each) for each in given.get("hsm_ip", ()))),
            "sha256": checksums_of(given.get("sha256", ())),
        }
    except ValueError as error:
        raise TypeError("hsm_ip, sha256") from error
    if given.get("ca_cert") is not None:
        values["ca_cert"] = CaSource.of(given["ca_cert"])
    passed_on = {name: value for name, value in given.items() if name not in _PASSED_ON or value is not None}
    return with_options(Desired(), {**passed_on, **values})


# an annotation of Desired -> of what type a value is, or each of several
_KINDS: Mapping[Any, tuple[type, ...]] = {
    "bool": (bool,),
    "int | None": (int,),
    "float | None": (int, float),
    "str | None": (str,),
    _MANY: (str,),
}


def _is_of_kind(annotation: Any, value: Any) -> bool:
    """Tell whether a value is of the kind that a field of Desired holds; a text is one that a file can hold."""
    if (annotation == _MANY) != isinstance(value, tuple):
        return False
    values = value if isinstance(value, tuple) else (value,)
    return all(type(each) in _KINDS[annotation] and _is_writable(each) for each in values)


def _is_writable(value: Any) -> bool:
    r"""Tell whether a text can be written: JSON may hold half of a pair (\ud800), which is no text of any host."""
    if isinstance(value, str):
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return False
    return True
