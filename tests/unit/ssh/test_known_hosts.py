"""The known hosts, looked up by name: the same entries as ssh finds by going through the file line by line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.ssh.known_hosts import HostKey, KnownHostsEntry, KnownHostsFile

HASHED = "|1|RhX5Yb+Yl2vO4Jqz6cH0xGfU0rA=|AAAAAAAAAAAAAAAAAAAAAAAAAAA="
NAMES = st.lists(
    st.sampled_from(["a", "A", "b.example", "!a", "*.example", "!b.example", "?", "[a]:2222", "*", HASHED]),
    min_size=1,
    max_size=3,
)


@given(lines=st.lists(NAMES, max_size=6), asked=st.sets(st.sampled_from(["a", "b.example", "[a]:2222", "c"])))
def test_the_entries_for_a_host_are_found_in_the_order_of_the_file(
    lines: list[list[str]], asked: set[str]
) -> None:
    entries = [
        KnownHostsEntry("", ",".join(names), HostKey("ssh-ed25519", b"%d" % number), f"known_hosts:{number}")
        for number, names in enumerate(lines)
    ]
    assert KnownHostsFile(entries).lookup(asked) == [
        entry for entry in entries if any(entry.fits(name) for name in asked)
    ]
