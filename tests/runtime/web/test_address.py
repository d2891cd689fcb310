"""Addresses are taken apart, bound, and refused in one sentence."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.web.address import PageAddress, is_loopback, url_of


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1", 8080),
        ("http://127.0.0.1:8080/", "127.0.0.1", 8080),
        ("HTTP://robot:81", "robot", 81),
        ("127.0.0.1", "127.0.0.1", 8080),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("http://[::1]:9000", "::1", 9000),
    ],
)
def test_address_is_taken_apart(text, host, port):
    assert PageAddress.parse(text) == PageAddress(host, port)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://127.0.0.1:8080", "speaks http, not https"),
        ("rtsp://127.0.0.1", "speaks http, not rtsp"),
        ("", "needs a host"),
        ("http://", "needs a host"),
        (":8080", "needs a host"),
        ("http://127.0.0.1:99999", "no address for a page"),
        ("http://127.0.0.1:http", "no address for a page"),
        ("http://127.0.0.1:8080/camera", "needs a host, may have a port"),
        ("http://127.0.0.1:8080/?token=secret12", "needs a host, may have a port"),
        ("http://user:word@127.0.0.1", "needs a host, may have a port"),
        ("http://[::1", "no address for a page"),
        ("http://two words", "needs a host"),
    ],
)
def test_what_is_no_address_is_refused(text, words):
    with pytest.raises(UserError, match=words) as refused:
        PageAddress.parse(text)
    assert "\n" not in str(refused.value)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_user_error(text):
    try:
        address = PageAddress.parse(text)
    except UserError:
        return
    assert address.host
    assert 0 <= address.port <= 65535


def test_port_in_use_is_said():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is in use by another program; give"):
            PageAddress("127.0.0.1", port).listen()


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("192.0.2.1", "192.0.2.1 is no address of this machine"),  # of TEST-NET-1, RFC 5737: nobody's
        ("no.such.host.invalid", "the host 'no.such.host.invalid' of the page is unknown"),
        ("a" * 80, "of the page is unknown"),  # a label of a name has 63 characters at most
    ],
)
def test_host_that_is_not_ours_is_refused(host, words):
    with pytest.raises(UserError, match=words):
        PageAddress(host, 0).listen()


def test_localhost_is_listened_on_where_tunnels_ask():
    with PageAddress("localhost", 0).listen() as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}/"


def test_url_of_an_address_for_all_names_the_machine():
    with PageAddress("0.0.0.0", 0).listen() as listener:
        assert url_of(listener) == f"http://{socket.gethostname()}:{listener.getsockname()[1]}/"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("localhost.evil", False),
    ],
)
def test_loopback_is_a_number_that_stays_here(host, loopback):
    assert is_loopback(host) is loopback
