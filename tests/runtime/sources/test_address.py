"""Passwords, in the places where people put them, and hosts that are not there."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.runtime import SourceError
from fcnedge.runtime.sources.address import hide_password, host_and_port, split_address, why_no_connection


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("rtsp://me:secret@cam/live", "rtsp://me:***@cam/live"),
        ("rtsp://me:sec@ret@cam:554/live", "rtsp://me:***@cam:554/live"),
        ("rtsp://me:sec/ret@cam/live", "rtsp://me:***@cam/live"),
        ("rtsp://:secret@cam/live", "rtsp://:***@cam/live"),
        ("rtsp://me@cam/live", "rtsp://me@cam/live"),
        ("rtsp://cam:554/live@2", "rtsp://cam:***@2"),  # an @ that may end a password is taken for one
        ("http://cam/v.cgi?user=me&pwd=secret&res=1", "http://cam/v.cgi?user=me&pwd=***&res=1"),
        ("http://cam/v?access_token=secret", "http://cam/v?access_token=***"),
        ("http://cam/v?PASSWORD=secret", "http://cam/v?PASSWORD=***"),
        ("rtspsrc location=rtsp://me:secret@cam/1 ! fakesink", "rtspsrc location=rtsp://me:***@cam/1 ! fakesink"),
        ('rtspsrc user-id=me user-pw="my secret" ! fakesink', "rtspsrc user-id=me user-pw=*** ! fakesink"),
        ("rtspsrc user-pw=secret latency=0", "rtspsrc user-pw=*** latency=0"),
        ("/home/me/film.mp4", "/home/me/film.mp4"),
        ("demo://clip", "demo://clip"),
        ("nvarguscamerasrc ! nvvidconv ! appsink", "nvarguscamerasrc ! nvvidconv ! appsink"),
    ],
)
def test_password_is_hidden_and_the_rest_is_not(typed, shown):
    assert hide_password(typed) == shown


WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'"), min_size=1)


@given(st.from_regex(r"[a-z]+", fullmatch=True), WORD, st.from_regex(r"[a-z0-9.]+", fullmatch=True))
def test_no_password_without_spaces_and_quotes_is_ever_shown(user, password, host):
    marked = f"SECRET{password}SECRET"
    assert "SECRET" not in hide_password(f"rtsp://{user}:{marked}@{host}/live")


@pytest.mark.parametrize("address", ["rtsp://", "rtsp:///live", "rtsp://cam:99999/", "rtsp://cam:x/", "http://a b/"])
def test_address_without_host_or_port_is_refused(address):
    with pytest.raises(SourceError, match="names no camera"):
        split_address(address)


def test_password_with_a_slash_is_told_how_to_write_it():
    with pytest.raises(SourceError, match="%2F") as caught:
        split_address("rtsp://me:sec/ret@cam/live")
    assert "sec/ret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("rtsp://cam/live", ("cam", 554)),
        ("rtsps://cam/live", ("cam", 322)),
        ("http://cam/", ("cam", 80)),
        ("https://me:x@cam/", ("cam", 443)),
        ("rtsp://[::1]:8554/", ("::1", 8554)),
    ],
)
def test_port_is_the_schemes_own_unless_named(address, place):
    assert host_and_port(split_address(address)) == place


def test_reasons_for_no_connection():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert why_no_connection("127.0.0.1", port, 5) is None
    assert why_no_connection("127.0.0.1", port, 5) == f"nothing listens on port {port} of 127.0.0.1"
    for name in ("no-such-host.invalid", "a..b", "x" * 70):
        assert why_no_connection(name, 554, 5) == f"the name {name} is not known"
