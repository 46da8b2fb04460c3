"""What is told of a URL: no secret of it is shown, and which ones are this machine's own or go through a proxy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.aws.access import AwsAccess
from agent.config.ca_source import read_source
from agent.config.options import OPTIONS, InvalidValueError
from agent.core.errors import AgentError
from agent.core.timeouts import Timeouts
from agent.core.urls import below, is_loopback, redact_url
from agent.hosts.posix import Posix
from agent.http.proxies import proxy_for

PARSE = {option.name: option.parse for option in OPTIONS}
SECRET = "s3cr3t"
HARD = st.sampled_from(["", "/", "?", "#", "[", "]", ":", "\\", "%", "\x1b", "\n", " ", "é"])


@settings(deadline=None)
@given(
    scheme=st.sampled_from(["https", "http", "HTTPS"]),
    gap=st.sampled_from(["://", ":", ":/", ":///", ":\\\\"]),
    before=HARD,
    after=HARD,
    host=st.sampled_from(["h.example", "[::1]", "[::1", "h:80", "h:port"]),
)
def test_no_password_is_ever_shown(scheme: str, gap: str, before: str, after: str, host: str) -> None:
    text = f"{scheme}{gap}user:{before}{SECRET}{after}@{host}/path"
    assert SECRET not in redact_url(text)
    assert redact_url(text).isprintable()
    for name in ("package_source", "ca_cert", "report_to"):
        if name == "ca_cert" and scheme.lower() == "https" and not gap.startswith("://"):
            # a file of that name, for all that is known; that there is none is told without it
            with pytest.raises(AgentError) as missing:
                read_source(Posix(), PARSE[name](text), Timeouts(), AwsAccess(Posix(), {}))
            assert SECRET not in f"{missing.value.sentence} {missing.value.saw}"
            continue
        with pytest.raises(InvalidValueError) as caught:
            PARSE[name](text)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://u:p@h:8443/a/b?sig=1#x", "https://h:8443/a/b"),
        ("https://h/a@b/c", "the URL"),
        ("https://h/a%40b/c?d=e@f", "https://h/a%40b/c"),
        ("/srv/a?b#c@d", "/srv/a?b#c@d"),
        ("C:\\a?b", "C:\\a?b"),
        ("file:///srv/a%20b", "file:///srv/a%20b"),
        ("https://h/\x1b[2J", "https://h/?[2J"),
        ("https://h/" + "a" * 9000, "https://h/" + "a" * 490 + "…"),
        ("https://h:port/", "the URL"),
    ],
)
def test_the_rest_is_shown(url: str, seen: str) -> None:
    assert redact_url(url) == seen


@pytest.mark.parametrize(
    ("base", "whole"),
    [
        ("/srv/x", "/srv/x/N/f.deb"),
        ("https://m/x", "https://m/x/N/f.deb"),
        ("https://m/x/?sig=a%2Fb", "https://m/x/N/f.deb?sig=a%2Fb"),
        ("/srv/a?b", "/srv/a?b/N/f.deb"),
    ],
)
def test_what_lies_below_a_mirror_keeps_its_query(base: str, whole: str) -> None:
    assert below(base, "N/f.deb") == whole


@pytest.mark.parametrize("name", ["package_source", "ca_cert", "report_to"])
@pytest.mark.parametrize("user", ["u:s3cr3t@", "s3cr3t@", ":s3cr3t@", "u%40x:s3cr3t@", "@"])
@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_a_url_with_a_password_is_refused_with_a_way_out(name: str, user: str, scheme: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        PARSE[name](f"{scheme}://{user}mirror.example/x?s3cr3t")
    assert "s3cr3t" not in str(caught.value)
    if scheme == "https":
        assert "file" in str(caught.value) or "directory" in str(caught.value)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]
)
def test_this_machine_is_known_and_never_asked_through_a_proxy(host: str) -> None:
    assert is_loopback(host)
    named = f"[{host}]" if ":" in host else host
    every = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://proxy:3128")
    for scheme in ("http", "https"):
        assert proxy_for(f"{scheme}://{named}:8080/x", every) is None


@pytest.mark.parametrize("host", ["localhost.example", "128.0.0.1", "0.0.0.0", "::2", "127.0.0.1.example"])
def test_another_machine_is_none_of_it(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "no_proxy", "direct"),
    [
        ("http://10.1.2.3/", "10.0.0.0/8", True),
        ("http://11.1.2.3/", "10.0.0.0/8", False),
        ("http://[fd00:ec2::9]/", "fd00:ec2::/32", True),
        ("http://[fd00:ec2::9]/", "[fd00:ec2::]/32", True),
        ("http://[fd00:ec2::9]/", "fd00:ec2::9", True),
        ("http://[fd00:ec2::9]:80/", "[fd00:ec2::9]:80", True),
        ("http://[fd00:ec2::9]:81/", "[fd00:ec2::9]:80", False),
        ("http://[fd01::9]/", "fd00::/16", False),
        ("http://mirror.corp/", ".corp", True),
        ("http://mirror.corp/", "corp", True),
        ("http://mirror.corp/", "*.corp", True),
        ("http://MIRROR.Corp./", "mirror.CORP", True),
        ("http://notcorp/", "corp", False),
        ("http://corp.example/", "corp", False),
        ("http://mirror.corp:8080/", "mirror.corp:8080", True),
        ("http://mirror.corp:8081/", "mirror.corp:8080", False),
        ("http://mirror.corp/", "mirror.corp:80", True),
        ("http://mirror.corp/", "other, mirror.corp", True),
        ("http://mirror.corp/", "other mirror.corp", True),
        ("http://mirror.corp/", "*", True),
        ("http://mirror.corp/", " ,, ", False),
        ("http://mirror.corp/", "[", False),
        ("http://mirror.corp/", ".", False),
        ("http://10.1.2.3/", "10.1.2.3/99", False),
    ],
)
def test_no_proxy_is_read_as_people_write_it(url: str, no_proxy: str, direct: bool) -> None:
    environ = {"http_proxy": "http://u:p@proxy:3128", "no_proxy": no_proxy}
    found = proxy_for(url, environ)
    assert (found is None) == direct
    assert found is None or (found.place, found.variable, found.knows_us) == (
        "proxy:3128",
        "http_proxy",
        True,
    )
    assert "u:p" not in repr(found)
