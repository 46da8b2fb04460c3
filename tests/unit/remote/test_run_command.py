"""The host's side of Run Command: one request out of many, and an answer in one line that shows where it ends."""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from agent.remote.packed import MOST_BYTES, CutError, line_of, pack, text_in, unpack
from agent.remote.protocol import ArchiveRef, Failed, HostRequest, ReportMessage
from agent.remote.run_command import INSTANCE, answer_to
from tests.fakes.vendor import Vendor
from tests.golden.runs import NOW

if TYPE_CHECKING:
    from agent.core.host import Host

HERE = "i-00000000000000001"


def request_for(host: str) -> dict[str, Any]:
    desired = {"hsm_ip": ["10.0.1.6"]}
    asked = HostRequest(
        ArchiveRef("", keep=True), "verify", False, desired, None, f"RUN/{host}/1", False, False, 60.0, ""
    )
    return {**asked._asdict(), "tree": asked.tree._asdict()}


def machine(_request: HostRequest) -> Host:
    return Vendor().machine(NOW)


def test_each_instance_takes_its_own_request() -> None:
    text = pack({"requests": {HERE: request_for("web-1"), "i-2": request_for("web-2")}})
    answer = answer_to(f"{text}\n", {INSTANCE: HERE}, machine)
    assert isinstance(answer, ReportMessage)
    assert (answer.report["request"], answer.report["command"]) == ("RUN/web-1/1", "verify")


def test_a_command_for_one_instance_needs_no_variable() -> None:
    answer = answer_to(pack({"requests": {"i-2": request_for("web-2")}}), {}, machine)
    assert isinstance(answer, ReportMessage)
    assert answer.report["request"] == "RUN/web-2/1"


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("", {}),
        ("{{ request }}", {}),
        (base64.b64encode(b"not compressed").decode(), {}),
        (pack({"requests": {}}), {INSTANCE: HERE}),
        (pack({"requests": {"i-2": request_for("b"), "i-3": request_for("c")}}), {}),
        (pack({"requests": {HERE: {"command": "verify"}}}), {INSTANCE: HERE}),
        (pack({"other": 1}), {INSTANCE: HERE}),
        (base64.b64encode(zlib.compress(b"\0" * (MOST_BYTES + 1))).decode(), {}),
    ],
)
def test_what_is_no_request_runs_nothing(text: str, environ: dict[str, str]) -> None:
    def no_host(_request: HostRequest) -> Host:
        raise AssertionError("nothing may run")

    answer = answer_to(text, environ, no_host)
    assert isinstance(answer, Failed)
    assert answer.code == "far-end-failed"


def test_the_answer_is_found_among_other_output() -> None:
    values = {"event": "report", "report": {"word": "\u2019:end\n"}}
    output = f"noise\r\nhsm-agent-report:QUJD:end\r\n{line_of(values)}later\n"
    assert json.loads(unpack(text_in(output) or "")) == values
    assert text_in("noise\n") is None


@pytest.mark.parametrize("kept", [20, -1, -2])
def test_an_answer_that_was_cut_is_none(kept: int) -> None:
    whole = line_of({"event": "report"}).rstrip()
    with pytest.raises(CutError):
        text_in(whole[:kept])
