"""The four encodings of AWS's API: parameters -> request, answer -> tree of texts; pure.

Parameters have the names of the API reference: of EC2 and query services those that go over the wire (`Filter`, a list,
becomes `Filter.1`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_plus, urlencode

from agent.aws.operations import Protocol
from agent.core.plain import cut, printable
from agent.http.exchange import ApiRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.aws.operations import Operation
    from agent.http.exchange import ApiResponse

_FORM = "application/x-www-form-urlencoded; charset=utf-8"
_LISTS = frozenset(("item", "member"))
# headers of an object, by their names in the API reference
_OBJECT_HEADERS = {"ContentRange": "content-range", "ETag": "etag"}
_REQUEST_HEADERS = {"ContentType": "Content-Type", "IfMatch": "If-Match", "Range": "Range"}
_MESSAGE = 500


class UnreadableAnswerError(ValueError):
    """What came back is no answer of this API; the text says why, without quoting it."""


@dataclass(frozen=True)
class Refusal:
    """Why AWS does not do what was asked: its own code and sentence, either of them empty where it sent none.

    `region` is where a bucket lies that was asked for elsewhere.
    """

    status: int
    code: str
    message: str
    region: str = ""

    def __str__(self) -> str:
        return ": ".join(each for each in (self.code or f"HTTP {self.status}", self.message) if each)


def encode(operation: Operation, url: str, params: Mapping[str, Any]) -> ApiRequest:
    """Return the request of an operation at an endpoint, without its signature."""
    service = operation.service
    if service.protocol is Protocol.JSON:
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"{service.version}.{operation.name}",
        }
        return ApiRequest("POST", f"{url}/", headers, json.dumps(params).encode())
    if service.protocol is Protocol.S3:
        return _listing_request(url, params) if operation.page else _object_request(url, params)
    form = {"Action": operation.name, "Version": service.version}
    lists = "" if service.protocol is Protocol.EC2 else ".member"
    form.update(_flattened(params, lists))
    return ApiRequest("POST", f"{url}/", {"Content-Type": _FORM}, urlencode(form).encode())


def decode(operation: Operation, response: ApiResponse) -> Mapping[str, Any]:
    """Return what an answer holds: of S3 the bytes as `Body`, and its headers. Raises UnreadableAnswerError."""
    protocol = operation.service.protocol
    if protocol is Protocol.S3 and operation.page:
        return _listing(response.body)
    if protocol is Protocol.S3:
        said = {name: response.headers.get(header, "") for name, header in _OBJECT_HEADERS.items()}
        return {"Body": response.body, **said}
    if protocol is Protocol.JSON:
        return _json_tree(response.body)
    tree = _xml_tree(response.body, f"{operation.name}Response")
    return tree if protocol is Protocol.EC2 else tree.get(f"{operation.name}Result") or {}


def refusal_of(response: ApiResponse) -> Refusal:
    """Return AWS's own words for an answer that is none.

    Of the sentence the first line alone: for a wrong signature AWS repeats the request in it, with its token.
    """
    text = response.body[: 64 * 1024].decode("utf-8", "replace")
    code, message = _json_words(text) if text.lstrip()[:1] == "{" else _xml_words(text)
    code = code or response.headers.get("x-amzn-errortype", "")
    code = re.sub(r"[^\w.-]", "", code.partition(":")[0].rpartition("#")[2])[:100]
    line = next((each.strip() for each in message.splitlines() if each.strip()), "")
    return Refusal(response.status, code, cut(printable(line), _MESSAGE), _region_in(response, text))


def _region_in(response: ApiResponse, text: str) -> str:
    """Return the region of a bucket that S3 names, with a redirect or for a signature of another region."""
    found = re.search(r"<Region>([a-z0-9-]{1,40})</Region>", text)
    named = found[1] if found else response.headers.get("x-amz-bucket-region", "")
    return named if re.fullmatch(r"[a-z0-9-]{1,40}", named) else ""


def _object_request(url: str, params: Mapping[str, Any]) -> ApiRequest:
    """Return the request for an object, its bucket in the path: so it works at every endpoint and with any name.

    With a `Body` the object is written.
    """
    path = quote(f"{params['Bucket']}/{params['Key']}", safe="/-_.~")
    version = quote(params.get("VersionId", ""), safe="-_.~")
    headers = {header: params[name] for name, header in _REQUEST_HEADERS.items() if params.get(name)}
    method = "PUT" if "Body" in params else "GET"
    whole = f"{url}/{path}" + (f"?versionId={version}" if version else "")
    return ApiRequest(method, whole, headers, params.get("Body", b""))


def _listing_request(url: str, params: Mapping[str, Any]) -> ApiRequest:
    """Return the request for a page of the objects that begin with `Prefix` and have no slash behind it."""
    query = {
        "list-type": "2",
        "delimiter": "/",
        "encoding-type": "url",  # XML cannot hold every character of a key
        "max-keys": str(params["MaxKeys"]),
        "prefix": params["Prefix"],
    }
    if params.get("ContinuationToken"):
        query["continuation-token"] = params["ContinuationToken"]
    words = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))
    return ApiRequest("GET", f"{url}/{quote(params['Bucket'], safe='-_.~')}?{words}")


def _listing(body: bytes) -> Mapping[str, Any]:
    """Return a page of objects: `Contents`, in order, and the token of the next page, empty on the last one."""
    root = _xml_root(body, "ListBucketResult")
    objects = [_read_element(each) for each in root if _local_name(each) == "Contents"]
    texts = {_local_name(each): each.text or "" for each in root if not list(each)}
    if not all(isinstance(each, dict) and {"Key", "Size", "LastModified"} <= each.keys() for each in objects):
        raise UnreadableAnswerError("the answer lists what is no object")
    token = texts.get("NextContinuationToken", "") if texts.get("IsTruncated") == "true" else ""
    return {"Contents": [{**each, "Key": unquote_plus(each["Key"])} for each in objects], "NextToken": token}


def _flattened(value: Any, lists: str, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the fields of a form for a value, whatever lies in it."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _flattened(each, lists, f"{name}.{key}" if name else key)
    elif isinstance(value, (list, tuple)):
        for number, each in enumerate(value, 1):
            yield from _flattened(each, lists, f"{name}{lists}.{number}")
    elif isinstance(value, bool):
        yield name, "true" if value else "false"
    else:
        yield name, str(value)


def _json_tree(body: bytes) -> Mapping[str, Any]:
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        raise UnreadableAnswerError("the answer is not JSON") from None
    if not isinstance(tree, dict):
        raise UnreadableAnswerError("the answer is no JSON object")
    return tree


def _xml_tree(body: bytes, root: str) -> Mapping[str, Any]:
    """Return an XML answer as dicts, lists and texts, without its namespaces."""
    try:
        tree = _read_element(_xml_root(body, root))
    except RecursionError:
        raise UnreadableAnswerError("the answer is not XML") from None
    if not isinstance(tree, dict):
        raise UnreadableAnswerError(f"the answer is no {root}")
    return tree


def _xml_root(body: bytes, root: str) -> Any:
    """Return the element of an XML answer with this name.

    A document type is refused, and with it every entity: AWS sends none, and a few lines of them fill the memory. What
    is parsed is text already, so that no encoding of the document's own choice can hide one.
    """
    from xml.etree import ElementTree  # noqa: PLC0415 -- 10 ms that only XML services cost

    try:
        text = body.decode("utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise UnreadableAnswerError("the answer has a document type, which AWS never sends")
        element = ElementTree.fromstring(text)  # noqa: S314 -- see above
    except UnreadableAnswerError:
        raise
    except (ValueError, ElementTree.ParseError, RecursionError):
        raise UnreadableAnswerError("the answer is not XML") from None
    if _local_name(element) != root:
        raise UnreadableAnswerError(f"the answer is no {root}")
    return element


def _read_element(element: Any) -> Any:
    """Return what lies in an element. An answer about 300 instances has 32,000, so it is called for no leaf."""
    if not len(element):
        return element.text or ""
    names = [_local_name(each) for each in element]
    values = [_read_element(each) if len(each) else each.text or "" for each in element]
    return values if _LISTS.issuperset(names) else dict(zip(names, values))


def _local_name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def _json_words(text: str) -> tuple[str, str]:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return "", ""
    return str(tree.get("__type") or ""), str(tree.get("message") or tree.get("Message") or "")


def _xml_words(text: str) -> tuple[str, str]:
    from html import unescape  # noqa: PLC0415 -- only for a refusal

    found = (re.search(rf"<{name}>([^<]*)</{name}>", text) for name in ("Code", "Message"))
    code, message = (unescape(each[1]) if each else "" for each in found)
    return code, message
