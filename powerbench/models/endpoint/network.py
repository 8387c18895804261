"""The way to an endpoint: proxies and certificates, by the environment variables that curl reads.

HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY (also in small letters), SSL_CERT_FILE, SSL_CERT_DIR. They
are read here because httpx opens every proxy that is named, also one that NO_PROXY keeps from the host.
"""

import os
import ssl
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies

from powerbench.models.endpoint.failures import FailureKind, RequestFailed, one_line

PROXY_VARIABLES = "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"
PROXIES = ("http", "https", "socks5", "socks5h")


def http_client(base_url: str) -> Any:
    """An HTTP client for openai's. Raises RequestFailed, for good, if the environment forbids it."""
    from openai import DefaultHttpxClient  # slow to import

    url = urlsplit(base_url)
    proxy = proxy_of(url)
    verify = certificates() if "https" in (url.scheme, urlsplit(proxy or "").scheme) else True
    try:
        return DefaultHttpxClient(proxy=proxy, verify=verify, trust_env=False)
    except ImportError as error:
        raise _permanent(
            f"the proxy {shown(proxy)} needs a package that is not installed",
            f"pip install socksio, or name {url.hostname} in NO_PROXY",
        ) from error


def proxy_of(url: SplitResult) -> str | None:
    """The proxy through which to go to a URL; None for none. Raises RequestFailed if it cannot be one."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or bypassed(url, proxies.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in PROXIES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise _permanent(
            f"the proxy {shown(proxy)} has no address that can be used",
            f"set {PROXY_VARIABLES} to http://host:port, or name {url.hostname} in NO_PROXY",
        )
    return proxy


def bypassed(url: SplitResult, no_proxy: str) -> bool:
    """Whether NO_PROXY names the URL's host: itself, a domain above it, a network, or all by `*`."""
    host = (url.hostname or "").lower()
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    for entry in no_proxy.lower().replace(",", " ").split():
        name = entry.partition("://")[2] or entry
        if name.count(":") == 1 or "]:" in name:
            name, _, only = name.rpartition(":")
            if only != str(port):
                continue
        name = name.strip("[]")
        domain = name.removeprefix("*").lstrip(".")
        if name == "*" or host == domain or host.endswith(f".{domain}") or _within(host, name):
            return True
    return False


def _within(host: str, network: str) -> bool:
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False


def certificates() -> ssl.SSLContext | bool:
    """Those that SSL_CERT_FILE and SSL_CERT_DIR name; True for the usual ones. Raises RequestFailed."""
    named = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    for name, path in named.items():
        if path and not all(Path(each).exists() for each in _paths(name, path)):
            raise _permanent(f"{name} names {path}, which is not there", f"correct or unset {name}")
    file, folder = named.values()
    if not file and not folder:
        return True
    try:
        context = ssl.create_default_context(cafile=file or None)
        for each in _paths("SSL_CERT_DIR", folder or ""):
            context.load_verify_locations(capath=each)
    except OSError as error:
        raise _permanent(
            f"SSL_CERT_FILE names {file}, which holds no certificates ({one_line(str(error))})",
            "correct or unset SSL_CERT_FILE",
        ) from error
    return context


def _paths(name: str, value: str) -> list[str]:
    return [each for each in value.split(os.pathsep) if each] if name.endswith("DIR") else [value]


def of_connection(error: BaseException, base_url: str, reason: str) -> RequestFailed:
    """What it means that there is no connection, by the error beneath and its words."""
    words = f"{type(error).__name__} {reason}"
    proxy = proxy_of(urlsplit(base_url))
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return _permanent(
            reason, "set SSL_CERT_FILE to a file with the certificates to trust (your proxy's, too)"
        )
    if "[SSL" in words:
        return _permanent(reason, "see whether {section}.base_url should begin with http or https")
    if "ProxyError" in words and "407" in words:
        return _permanent(
            f"the proxy {shown(proxy)} says: {reason}",
            f"give its name and password in {PROXY_VARIABLES} (http://name:password@host:port)",
        )
    if proxy is not None:
        host = urlsplit(base_url).hostname
        return RequestFailed(
            f"by the proxy {shown(proxy)}: {reason}",
            FailureKind.TRANSIENT,
            f"see that the proxy ({PROXY_VARIABLES}) runs, or name {host} in NO_PROXY",
        )
    remedy = "see that it runs, and that {section}.base_url is right"
    return RequestFailed(reason, FailureKind.TRANSIENT, remedy)


def shown(proxy: str | None) -> str:
    """A proxy's address without name and password."""
    scheme, mark, rest = (proxy or "").partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def _permanent(reason: str, remedy: str) -> RequestFailed:
    return RequestFailed(reason, FailureKind.PERMANENT, remedy)
