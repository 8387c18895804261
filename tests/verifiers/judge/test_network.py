"""Proxies and certificates between here and a judge: honoured, and named where they cannot be used.

Run: pytest tests/verifiers/judge/test_network.py
"""

import ssl
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fake_endpoint import PROBLEMS, FakeEndpoint, Reply, judge_at, served

from powerbench.models.endpoint.failures import FailureKind
from powerbench.models.endpoint.network import bypassed, of_connection
from powerbench.verifiers.common import CannotScore

AFAR = "http://judge.invalid/v1"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with served(FakeEndpoint()) as fake:
        yield fake


def refusal(url: str, cache: Path, retries: int = 0) -> str:
    with pytest.raises(CannotScore) as ended:
        judge_at(FakeEndpoint(url=url), cache, retries=retries).score(PROBLEMS[0], "CANDIDATE")
    assert "\n" not in str(ended.value)
    return str(ended.value)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_is_used(
    endpoint: FakeEndpoint, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = endpoint.url.removesuffix("/v1")
    monkeypatch.setenv(name, proxy if name == "HTTP_PROXY" else proxy.removeprefix("http://"))
    judge = judge_at(FakeEndpoint(url=AFAR), tmp_path)
    assert judge.score(PROBLEMS[0], "CANDIDATE").value == 0.5
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1:bad", "ftp://127.0.0.1"]
)
@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "localhost,127.0.0.0/8", "*"])
def test_a_proxy_that_cannot_be_used_does_not_matter_where_it_is_not_used(
    endpoint: FakeEndpoint,
    tmp_path: Path,
    proxy: str,
    no_proxy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert judge_at(endpoint, tmp_path).score(PROBLEMS[0], "CANDIDATE").value == 0.5


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("http://me:secret@127.0.0.1:bad", "the proxy http://127.0.0.1:bad has no address"),
        ("http://127.0.0.1:99999", "the proxy http://127.0.0.1:99999 has no address"),
        ("ftp://127.0.0.1:21", "the proxy ftp://127.0.0.1:21 has no address"),
        ("http://", "the proxy http:// has no address"),
        ("socks5://me:secret@127.0.0.1:1", "the proxy socks5://127.0.0.1:1 needs a package"),
    ],
)
def test_a_proxy_that_cannot_be_used_ends_judging_in_one_line(
    tmp_path: Path, proxy: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", proxy)
    line = refusal(AFAR, tmp_path, retries=3)
    assert f"in 1 attempt: {said}" in line
    assert "or name judge.invalid in NO_PROXY" in line
    assert "secret" not in line


def test_a_proxy_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:1")
    line = refusal(AFAR, tmp_path, retries=1)
    assert "in 2 attempts: by the proxy http://127.0.0.1:1: " in line
    assert "or name judge.invalid in NO_PROXY" in line
    assert "secret" not in line


@pytest.mark.parametrize("url", [AFAR, "https://judge.invalid/v1"])
def test_a_proxy_that_wants_a_password_ends_judging(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            self.send_error(407)

        def do_POST(self) -> None:
            self.send_error(407)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("ALL_PROXY", f"127.0.0.1:{server.server_port}")
        line = refusal(url, tmp_path, retries=3)
        server.shutdown()
    assert "in 1 attempt: " in line
    assert "407 Proxy Authentication Required" in line
    assert "http://name:password@host:port" in line


@pytest.mark.parametrize(
    ("no_proxy", "url", "expected"),
    [
        ("localhost", "http://localhost:8000", True),
        ("localhost", "http://127.0.0.1:8000", False),
        ("::1, [::2]", "http://[::1]:8000", True),
        ("::1, [::2]", "http://[::2]", True),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        (".example.com", "https://api.example.com", True),
        ("*.example.com", "https://api.example.com", True),
        ("example.com", "https://API.example.com", True),
        ("example.com", "https://notexample.com", False),
        ("http://example.com", "http://example.com", True),
        ("example.com:443", "https://example.com", True),
        ("example.com:80", "https://example.com", False),
        ("[::1]:8000", "http://[::1]:8000", True),
        ("a.b c.d", "http://c.d", True),
        ("*", "http://c.d", True),
        ("", "http://c.d", False),
        (" , ,", "http://c.d", False),
    ],
)
def test_no_proxy_names_hosts_domains_and_networks(no_proxy: str, url: str, expected: bool) -> None:
    assert bypassed(urlsplit(url), no_proxy) is expected


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_that_are_not_there_are_named(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = str(tmp_path / "missing.pem")
    monkeypatch.setenv(name, missing)
    line = refusal("https://judge.invalid/v1", tmp_path, retries=3)
    assert f"in 1 attempt: {name} names {missing}, which is not there; correct or unset" in line


def test_a_file_without_certificates_is_named(
    endpoint: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificates\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(empty))
    line = refusal("https://judge.invalid/v1", tmp_path)
    assert f"SSL_CERT_FILE names {empty}, which holds no certificates" in line
    assert judge_at(endpoint, tmp_path).score(PROBLEMS[0], "CANDIDATE").value == 0.5  # by http


def test_https_against_a_server_without_it_is_no_passing_failure(
    endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    line = refusal(endpoint.url.replace("http://", "https://"), tmp_path, retries=3)
    assert "in 1 attempt: [SSL" in line
    assert "should begin with http or https" in line


def test_a_certificate_that_is_not_trusted_names_the_remedy() -> None:
    said = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate"
    failed = of_connection(ssl.SSLError(), "https://judge.invalid/v1", said)
    assert failed.kind is FailureKind.PERMANENT
    assert "set SSL_CERT_FILE to a file with the certificates to trust" in failed.remedy


def test_a_status_of_a_proxy_is_read_like_an_endpoints(
    endpoint: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", endpoint.url.removesuffix("/v1"))
    endpoint.reply = lambda question: Reply(502) if len(endpoint.requests) < 2 else None
    judge = judge_at(FakeEndpoint(url=AFAR), tmp_path, retries=1)
    assert judge.score(PROBLEMS[0], "CANDIDATE").value == 0.5
