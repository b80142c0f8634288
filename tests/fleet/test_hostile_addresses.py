"""Addresses of nodes that nobody can mean: refused, and no refusal tells a password."""

from __future__ import annotations

import pytest
from hostile import SECRET, characters, is_fit_to_print
from hypothesis import given, settings
from hypothesis import strategies as st

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.addresses import Target, addresses


@pytest.mark.parametrize("entry", [
    "http://ho\nst:6800", "a\0b", "a\x7fb", "http://a/\0b", f"user:{SECRET[:3]}\n{SECRET[3:]}@host", "\ud800",
    f"http://user:{SECRET}\0@host", f"http://user:{SECRET}@b\ud800:1", f"http://user:{SECRET}\t@host", "http://a/\u2028b",
])  # fmt: skip
def test_a_control_character_is_not_dropped_without_a_word(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"control character|can't be read") as caught:
        addresses([entry], targets={})
    assert is_fit_to_print(str(caught.value))
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError):
        addresses(["t"], targets={"t": Target(name="t", url=entry)})


@settings(derandomize=True)
@given(
    st.sampled_from(["", "http://", "https://", "ftp://", "x:", "//"]), st.text(characters, max_size=6),
    st.text(characters, max_size=6), st.sampled_from(["a", "a:1", "a:99999", "[::1", "", "a b", "a/b?c#d", "\u2100"]),
)  # fmt: skip
def test_no_refusal_tells_a_password(scheme: str, before: str, after: str, host: str) -> None:
    entry = f"{scheme}user:{before}{SECRET}{after}@{host}"
    try:
        (address,) = addresses([entry], targets={})
        told = address.url + address.name + repr(address)
    except ConfigError as error:
        told = str(error)
    assert SECRET not in told
    assert is_fit_to_print(told)
