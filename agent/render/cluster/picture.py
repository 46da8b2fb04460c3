"""A cluster's tree -> the places of a picture: VPC, zones as columns, the group around its members, AWS's VPC behind.

Pure geometry, in pixels from the upper left. Everything is a rectangle, a line or a text with a class, which the style
of the page colours; so it works without scripts, and in print.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.core.plain import printable
from agent.render.cluster.document import blocked_paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MARGIN, _PAD, _GAP = 4, 26, 22
_COLUMN, _CHIP, _ROW, _SMALL_ROW = 252, 40, 46, 30
_SPACE_FOR_LINES = 104
_NARROWEST = 560
# How many of a zone are drawn one by one: the others are a number.
_OUTSIDE, _CLIENTS, _HSMS, _COLUMNS = 2, 5, 4, 8
# of what stops packets: so many have lines, all have rows in the table below
_LINES = 6
# of a zone's HSMs: so many have lines to their interfaces
_LINKS = 12
_ELSEWHERE, _NOWHERE = "other zones", "zone not known"
# Sizes of text in pixels, and how wide its characters are in parts of that, rather too wide than too narrow.
_BIG, _FINE = 13, 11
_MONO = 0.62


@dataclass(frozen=True)
class Box:
    """A rectangle with one or two lines of text; `title` is its whole text, `marks` are the numbers at its edge."""

    x: float
    y: float
    wide: float
    high: float
    kind: str
    first: str = ""
    second: str = ""
    title: str = ""
    marks: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Line:
    """A line, as SVG's path has it."""

    path: str
    kind: str


@dataclass(frozen=True)
class Label:
    """A text that stands free."""

    x: float
    y: float
    text: str
    kind: str
    anchor: str = "start"


@dataclass(frozen=True)
class Mark:
    """The number of what stops packets, on a line."""

    x: float
    y: float
    number: int


@dataclass(frozen=True)
class Picture:
    """All that is drawn, in this order; `description` says it in words, `kinds` are the classes of its chips."""

    wide: float
    high: float
    description: str
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    chips: tuple[Box, ...]
    labels: tuple[Label, ...]
    marks: tuple[Mark, ...]

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(word for each in self.chips for word in each.kind.split())


def draw(tree: Mapping[str, Any]) -> Picture:
    """Return the picture of a cluster."""
    return _Drawing(tree).picture()


def fit(text: str, wide: float, size: float, *, mono: bool = False) -> str:
    """Return as much of a text as surely fits into so many pixels."""
    text = printable(text.replace("\n", " "))
    room = wide / size
    if sum(_em(char, mono=mono) for char in text) <= room:
        return text
    kept, room = "", room - 1
    for char in text:
        room -= _em(char, mono=mono)
        if room < 0:
            break
        kept += char
    return f"{kept.rstrip()}…"


def _em(char: str, *, mono: bool) -> float:
    if unicodedata.east_asian_width(char) in "WF" or not char.isascii():
        return 1.1
    if mono:
        return _MONO
    return 0.95 if char in "mwMW@%" else 0.74 if char.isupper() else 0.6


class _Drawing:
    """One picture in the making: each band is drawn below the one before."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self._tree = tree
        self._blocked = blocked_paths(tree)
        self._zones = _zones_of(tree)
        inner = len(self._zones) * (_COLUMN + _GAP) - _GAP
        self._inner = max(inner, _NARROWEST)
        self._wide = self._inner + 2 * (_MARGIN + _PAD)
        first = _MARGIN + _PAD + (self._inner - inner) / 2
        self._columns = {zone: first + n * (_COLUMN + _GAP) for n, zone in enumerate(self._zones)}
        self._boxes: list[Box] = []
        self._chips: list[Box] = []
        self._labels: list[Label] = []
        self._lines: list[Line] = []
        self._marks: list[Mark] = []
        # where the lines of a zone's clients begin, and those to its HSMs end
        self._client_ends: dict[str, float] = {}
        self._y = float(_MARGIN)

    def picture(self) -> Picture:
        cluster, group = self._tree["cluster"], self._tree["cluster"]["security_group"]
        top = self._y
        self._title(_joined("your VPC", cluster["vpc"]), cluster["region"])
        zones_top = self._y
        self._y += 30
        self._outside()
        group_top = self._y
        name = _joined(f"security group {group['name']}", group["id"])
        self._label(_MARGIN + _PAD, self._y + 22, name, "group-title", self._inner)
        self._y += 36
        self._clients()
        lines_top = self._y
        self._y += _SPACE_FOR_LINES if self._client_ends else 12
        self._interfaces()
        group_bottom = self._y + 12
        bottom = group_bottom + 14
        self._connections(lines_top)
        self._obstacles(group_top)
        self._y = bottom + 42
        aws_top = self._y
        self._hsm_band(bottom)
        edge, wide = _MARGIN, self._wide - 2 * _MARGIN
        self._boxes = [
            Box(edge, aws_top, wide, self._y - aws_top, "aws"),
            Box(edge, top, wide, bottom - top, "vpc"),
            *self._zone_boxes(zones_top, self._y - 34),
            Box(edge + 12, group_top, wide - 24, group_bottom - group_top, "group"),
            *self._boxes,
        ]
        return Picture(
            self._wide, self._y + _MARGIN, self._description(),
            tuple(self._boxes), tuple(self._lines), tuple(self._chips), tuple(self._labels), tuple(self._marks),
        )  # fmt: skip

    # the bands, from above

    def _title(self, text: str, right: str) -> None:
        self._label(_MARGIN + 16, self._y + 26, text, "title", self._inner - 140)
        self._label(self._wide - _MARGIN - 16, self._y + 26, right, "title dim", 130, anchor="end")
        self._y += 40

    def _zone_boxes(self, top: float, bottom: float) -> Iterator[Box]:
        for zone, x in self._columns.items():
            yield Box(x - 6, top, _COLUMN + 12, bottom - top, "zone")
            self._label(x + _COLUMN / 2, top + 19, zone or _NOWHERE, "zone-title", _COLUMN, anchor="middle")

    def _outside(self) -> None:
        """Draw the instances that are not in the group, this host nearest to it."""
        found = [each for each in self._tree["instances"] or () if not each["in_group"]]
        rows = self._stacks(found, _OUTSIDE, self._instance_chip, "outside")
        if rows:
            self._y += rows * _ROW + 14

    def _clients(self) -> None:
        """Draw who is in the group: instances, those that are blocked nearest to the HSMs, and other interfaces."""
        if self._tree["instances"] is None:
            self._label(
                self._wide / 2,
                self._y + 26,
                "who is in the group is not known",
                "dim",
                self._inner,
                anchor="middle",
            )
            self._y += 44
            return
        members = [each for each in self._tree["instances"] if each["in_group"]]
        others = [
            {**each, "id": each["interface"], "blocked": ()} for each in self._tree["other_interfaces"] or ()
        ]
        rows = self._stacks([*members, *others], _CLIENTS, self._instance_chip, "client")
        self._y += max(rows, 1) * _ROW
        for zone, x in self._columns.items():
            if zone not in self._client_ends:
                self._label(
                    x + _COLUMN / 2, self._y - 20, "no client in this zone", "dim", _COLUMN, anchor="middle"
                )

    def _stacks(self, found: Sequence[Mapping[str, Any]], most: int, chip: Any, kind: str) -> int:
        """Draw a stack of chips in each zone, standing on one line; return how many rows the highest has."""
        by_zone = {zone: [each for each in found if self._zone(each) == zone] for zone in self._zones}
        stacks = {zone: _few(each, most) for zone, each in by_zone.items() if each}
        rows = max((len(shown) + bool(more) for shown, more in stacks.values()), default=0)
        for zone, (shown, more) in stacks.items():
            x, y = self._columns[zone], self._y + (rows - len(shown) - bool(more)) * _ROW
            if more:
                text = f"+ {more:,} {'more' if shown else 'instances'}"
                self._chips.append(Box(x, y, _COLUMN, _CHIP, f"more {kind}", text))
                y += _ROW
            for each in shown:
                self._chips.append(chip(each, x, y, kind))
                y += _ROW
            if kind == "client":
                self._client_ends[zone] = y - (_ROW - _CHIP)
        return rows

    def _instance_chip(self, each: Mapping[str, Any], x: float, y: float, kind: str) -> Box:
        if "kind" in each:
            name, state = each["description"] or each["interface"], each["kind"] or "interface"
        else:
            name, state = each["name"] or each["id"], "" if each["state"] == "running" else each["state"]
        numbers = self._numbers_of(each)
        words = ["this host"] if each.get("this_host") else []
        words += [" ".join(each["addresses"][:1]), state]
        classes = [kind, *(["other"] if "kind" in each else [])]
        classes += [
            word
            for word, is_so in (
                ("here", each.get("this_host")),
                ("blocked", numbers),
                ("off", state and "kind" not in each),
            )
            if is_so
        ]
        full = [each.get("name", ""), each["id"], *each["addresses"], each.get("state", ""), each["subnet"]]
        texts = (name, _joined(*words))
        return self._chip((x, y, _COLUMN), " ".join(classes), texts, full, numbers)

    def _numbers_of(self, each: Mapping[str, Any]) -> tuple[int, ...]:
        return tuple(
            number
            for number, (_, instances) in enumerate(self._blocked, 1)
            if any(each is other for other in instances)
        )

    def _chip(
        self,
        place: tuple[float, float, float],
        kind: str,
        texts: tuple[str, str],
        full: Sequence[str],
        numbers: Sequence[int],
    ) -> Box:
        """Return a box with two lines of text at a place: x, y, and how wide it is."""
        x, y, wide = place
        shown = numbers[:3]
        room = wide - 22 - 22 * len(shown)
        marks = tuple((x + wide - 16 - 22 * back, number) for back, number in enumerate(reversed(shown)))
        title = "  ".join(printable(each) for each in full if each)
        first, second = fit(texts[0], room, _BIG), fit(texts[1], room, _FINE, mono=True)
        return Box(x, y, wide, _CHIP, kind, first, second, title, marks)

    def _interfaces(self) -> None:
        """Draw the HSMs' interfaces in their subnets."""
        rows = 0.0
        for zone, hsms in self._hsms_by_zone():
            x = self._columns[zone]
            subnet = _joined(
                *dict.fromkeys(text for each in hsms for text in (each["subnet"], each["range"]))
            )
            self._label(x + 10, self._y + 18, subnet, "subnet-title", _COLUMN - 20)
            rows = max(rows, self._grid(hsms, x, self._y + 26, self._interface_chip))
        high = 26 + rows + 2
        for zone, x in self._columns.items():
            if zone in dict(self._hsms_by_zone()):
                self._boxes.append(Box(x - 1, self._y, _COLUMN + 2, high, "subnet"))
            else:
                self._label(
                    x + _COLUMN / 2, self._y + 30, "no HSM in this zone", "dim", _COLUMN, anchor="middle"
                )
        self._y += high

    def _hsm_band(self, vpc_bottom: float) -> None:
        """Draw AWS's VPC behind, with the HSMs, and what links them to their interfaces."""
        cluster = self._tree["cluster"]
        self._y += 16
        rows = 0.0
        for zone, hsms in self._hsms_by_zone():
            x = self._columns[zone]
            rows = max(rows, self._grid(hsms, x, self._y, self._hsm_chip))
            linked = [each for each in hsms if each["addresses"]][:_LINKS]
            for place, each in enumerate(linked):
                at = x + _COLUMN / 2 + (place - (len(linked) - 1) / 2) * 9
                kind = "link" if each["usable"] else "link weak"
                self._lines.append(Line(f"M{at:g} {vpc_bottom - 26:g}V{self._y:g}", kind))
        if not self._tree["hsms"]:
            self._label(
                self._wide / 2, self._y + 20, "the cluster has no HSM", "dim", self._inner, anchor="middle"
            )
        self._y += max(rows, 30) + 14
        title = _joined("AWS's VPC", cluster["id"], cluster["hsm_type"], cluster["mode"])
        self._label(_MARGIN + 16, self._y + 8, title, "title", self._inner - 10 * len(cluster["state"][:20]))
        kind = "state" if cluster["state"] == "ACTIVE" else "state weak"
        self._label(self._wide - _MARGIN - 16, self._y + 8, cluster["state"], kind, 200, anchor="end")
        self._y += 24

    def _hsms_by_zone(self) -> list[tuple[str, list[Mapping[str, Any]]]]:
        found = [
            (zone, [each for each in self._tree["hsms"] if self._zone(each) == zone]) for zone in self._zones
        ]
        return [(zone, hsms) for zone, hsms in found if hsms]

    def _grid(self, hsms: Sequence[Mapping[str, Any]], x: float, y: float, chip: Any) -> float:
        """Draw a zone's HSMs, below each other or, where they are many, in two small columns; return their height."""
        if len(hsms) <= _HSMS:
            self._chips += [
                chip(each, x + 5, y + n * _ROW, _COLUMN - 10, small=False) for n, each in enumerate(hsms)
            ]
            return len(hsms) * _ROW
        half = (_COLUMN - 16) / 2
        for number, each in enumerate(hsms):
            place = x + 5 + number % 2 * (half + 6)
            self._chips.append(chip(each, place, y + number // 2 * _SMALL_ROW, half, small=True))
        return (len(hsms) + 1) // 2 * _SMALL_ROW

    def _interface_chip(
        self, each: Mapping[str, Any], x: float, y: float, wide: float, *, small: bool
    ) -> Box:
        # a client outside the group is stopped at the group, whatever is behind it
        numbers = tuple(
            number
            for number, (path, instances) in enumerate(self._blocked, 1)
            if each["id"] in path["hsms"] and any(other["in_group"] for other in instances)
        )
        kind = f"eni {_health(each)}" + (" blocked" if numbers else "")
        address = " ".join(each["addresses"][:1]) or "no address yet"
        full = (each["interface"], *each["addresses"], each["subnet"])
        made = self._chip((x, y, wide), kind, (address, each["interface"]), full, () if small else numbers)
        return _small(made, address) if small else made

    def _hsm_chip(self, each: Mapping[str, Any], x: float, y: float, wide: float, *, small: bool) -> Box:
        kind = f"hsm {_health(each)}"
        full = (each["id"], each["state"], each["message"], *each["addresses"])
        made = self._chip((x, y, wide), kind, (each["id"], each["state"]), full, ())
        return _small(made, each["id"]) if small else made

    # what joins them

    def _connections(self, top: float) -> None:
        """Draw what every member of the group may do: a line from each zone's clients to each zone's interfaces."""
        zones = [zone for zone, hsms in self._hsms_by_zone() if any(each["usable"] for each in hsms)]
        if not self._client_ends or not zones:
            return
        y, bottom = top + _SPACE_FOR_LINES - 34, top + _SPACE_FOR_LINES
        ends = [self._middle(zone) for zone in {*self._client_ends, *zones}]
        if min(ends) < max(ends):
            self._lines.append(Line(f"M{min(ends):g} {y:g}H{max(ends):g}", "path"))
        for zone in self._client_ends:
            self._lines.append(Line(f"M{self._middle(zone):g} {self._client_ends[zone]:g}V{y:g}", "path"))
        for zone in zones:
            self._lines.append(Line(f"M{self._middle(zone):g} {y:g}V{bottom - 3:g}", "path arrow"))
        self._label(_MARGIN + _PAD, y - 8, "TCP 2223-2225", "path-title", 110)

    def _obstacles(self, group_top: float) -> None:
        """Draw in red what cannot reach what: from a zone's clients to the interfaces of a zone, or to the group."""
        for number, (path, instances) in enumerate(self._blocked[:_LINES], 1):
            goals = [
                zone
                for zone, hsms in self._hsms_by_zone()
                if any(each["id"] in path["hsms"] for each in hsms)
            ]
            shift = ((number - 1) % _LINES - (_LINES - 1) / 2) * 24 + 6
            inside = dict.fromkeys(self._zone(each) for each in instances if each["in_group"])
            for zone in inside:
                if zone in self._client_ends:
                    self._stopped(zone, goals, shift, number)
            for zone in dict.fromkeys(self._zone(each) for each in instances if not each["in_group"]):
                x, y = self._middle(zone) + shift, group_top
                self._lines.append(Line(f"M{x:g} {y - 20:g}V{y:g}", "stop"))
                self._marks.append(Mark(x, y, number))

    def _stopped(self, zone: str, goals: Sequence[str], shift: float, number: int) -> None:
        x, y = self._middle(zone) + shift, self._client_ends[zone]
        bottom = y + _SPACE_FOR_LINES
        for goal in goals:
            end = self._middle(goal) + shift
            bend = _SPACE_FOR_LINES / 2
            self._lines.append(Line(f"M{end - 5:g} {bottom - 11:g}l10 10m0 -10l-10 10", "cross"))
            self._lines.append(
                Line(
                    f"M{x:g} {y:g}C{x:g} {y + bend:g} {end:g} {bottom - bend:g} {end:g} {bottom - 6:g}",
                    "stop",
                )
            )
        if goals:
            self._marks.append(Mark(x, y + 16, number))

    def _middle(self, zone: str) -> float:
        return self._columns[zone] + _COLUMN / 2

    def _zone(self, each: Mapping[str, Any]) -> str:
        zone: str = each["zone"]
        return zone if zone in self._columns else _ELSEWHERE

    def _label(self, x: float, y: float, text: str, kind: str, room: float, anchor: str = "start") -> None:
        size = {"title": 14, "group-title": 13, "zone-title": 13}.get(kind.partition(" ")[0], 12)
        self._labels.append(Label(x, y, fit(text, room, size), kind, anchor))

    def _description(self) -> str:
        hsms, instances = self._tree["hsms"], self._tree["instances"]
        words = [f"{len(hsms)} HSMs in {len(self._hsms_by_zone())} zones"]
        if instances is not None:
            words.append(
                f"{sum(1 for each in instances if each['in_group'])} of {len(instances)} instances in the group"
            )
        words.append(
            f"{len(self._blocked)} things stop packets"
            if self._blocked
            else "nothing is known to stop a client"
        )
        return ", ".join(words)


def _zones_of(tree: Mapping[str, Any]) -> list[str]:
    """Return the columns: the zones of HSMs first to be kept, then those of others; too many become one."""
    subnets = {each["zone"] for each in tree["cluster"]["subnets"] if each["zone"]}
    of_hsms = {each["zone"] for each in tree["hsms"]} | subnets
    members = {each["zone"] for each in tree["instances"] or () if each["in_group"]}
    rest = {each["zone"] for each in (*(tree["instances"] or ()), *(tree["other_interfaces"] or ()))}
    ranked = [*sorted(of_hsms), *sorted(members - of_hsms), *sorted(rest - members - of_hsms)]
    if len(ranked) > _COLUMNS:
        return [*sorted(ranked[: _COLUMNS - 1]), _ELSEWHERE]
    return sorted(ranked, key=lambda zone: (not zone, zone)) or [""]


def _few(found: Sequence[Mapping[str, Any]], most: int) -> tuple[list[Mapping[str, Any]], int]:
    """Return those that are drawn, the first last, and the number of the others; one more than fit is drawn too."""
    if len(found) <= most + 1:
        return list(reversed(found)), 0
    return list(reversed(found[:most])), len(found) - most


def _joined(*words: str) -> str:
    return " · ".join(filter(None, words))


def _small(box: Box, text: str) -> Box:
    shown = fit(text, box.wide - 14, _FINE, mono=True)
    return Box(box.x, box.y, box.wide, _SMALL_ROW - 6, f"{box.kind} small", shown, "", box.title)


def _health(hsm: Mapping[str, Any]) -> str:
    if not hsm["usable"]:
        return "moving"
    return "well" if hsm["state"] == "ACTIVE" else "weak"
