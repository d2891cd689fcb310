"""Who may look: names of loopback there, whoever knows the token elsewhere."""

import pytest

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.web import access as access_module
from fcnedge.runtime.web.access import Access

TOKEN = "correct-horse.1"
PATHS = ("/", "/status.json", "/stream/layers", "/stream/raw.mjpg", "/nothing")


@pytest.fixture(autouse=True)
def no_delay(monkeypatch):
    monkeypatch.setattr(access_module, "_WRONG_TOKEN_DELAY_S", 0.0)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9999", "localhost", "LOCALHOST:1", "[::1]:80", "127.3.2.1"])
def test_names_of_loopback_are_answered_whatever_the_port_of_a_tunnel(page, ask, host):
    assert ask(page, "/status.json", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "192.168.1.2", "", "localhost:x", "a:b:c"],
)
@pytest.mark.parametrize("path", PATHS)
def test_another_name_for_loopback_is_a_rebinding_and_refused(page, ask, host, path):
    answer = ask(page, path, host=host)
    assert answer.status == 403
    assert answer.body.startswith(b"This page is for the machine it runs on")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::"])
def test_address_that_the_network_reaches_needs_a_token(host):
    with pytest.raises(UserError, match=f"the page on {host} can be reached from the network and needs a token"):
        Access(host, 80, None)
    Access(host, 80, TOKEN)


def test_page_for_the_network_without_token_frees_its_port(open_page):
    with pytest.raises(UserError, match="needs a token"):
        open_page("http://0.0.0.0:0")


@pytest.mark.parametrize(
    "token", ["", "short", "with space in it", "perc%ent12", "ümlaut-umlaut", "a" * 129, "new\nline-12"]
)
def test_token_that_is_weak_or_needs_escapes_is_refused(token):
    with pytest.raises(UserError, match="a token has 8 to 128 characters"):
        Access("127.0.0.1", 80, token)


@pytest.fixture
def guarded(open_page, result):
    page = open_page("http://0.0.0.0:0", token=TOKEN)
    page.url = page.url.replace(page.url.split("/")[2].split(":")[0], "127.0.0.1")  # a client needs a number
    page.publish(result())
    return page


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "query", ["", "?token=", "?token=correct-horse.2", "?token=correct-horse.1x", "?Token=correct-horse.1"]
)
def test_nothing_is_seen_without_the_token(guarded, ask, path, query):
    answer = ask(guarded, path + query, cookie="fcnedge_80=x; a=b")
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "set-cookie" not in answer.headers


def test_token_in_the_address_becomes_a_cookie_that_opens_everything(guarded, ask, connect):
    first = ask(guarded, f"/?token={TOKEN}")
    assert (first.status, first.headers["location"]) == (303, "./")
    cookie, *attributes = first.headers["set-cookie"].split("; ")
    assert attributes == ["HttpOnly", "SameSite=Lax", "Path=/"]
    assert TOKEN not in first.headers["set-cookie"]
    assert ask(guarded, "/", cookie=f"other=1; {cookie}").status == 200
    assert ask(guarded, "/status.json", cookie=cookie).status == 200
    client = connect(guarded)
    assert client.get("/stream/layers", cookie=cookie).status == 200
    assert client.layers()[0]["number"] == 1
    assert ask(guarded, "/", cookie=cookie[:-1]).status == 401


def test_program_without_cookies_sends_the_token_each_time(guarded, ask, connect):
    assert ask(guarded, f"/status.json?token={TOKEN}").status == 200
    assert ask(guarded, "/status.json", authorization=f"Bearer {TOKEN}").status == 200
    assert ask(guarded, "/status.json", authorization=f"Basic {TOKEN}").status == 401
    assert connect(guarded).get(f"/stream/raw.mjpg?token={TOKEN}").status == 200


def test_token_on_loopback_is_asked_for_too_and_the_host_still_checked(open_page, ask):
    page = open_page(token=TOKEN)
    assert ask(page, "/").status == 401
    assert ask(page, f"/?token={TOKEN}", host="evil.example").status == 403


def test_cookie_of_one_run_opens_no_other(open_page, ask):
    cookies = [ask(open_page(token=TOKEN), f"/?token={TOKEN}").headers["set-cookie"].split("; ")[0] for _ in range(2)]
    values = {cookie.split("=")[1] for cookie in cookies}
    assert len(values) == 2
