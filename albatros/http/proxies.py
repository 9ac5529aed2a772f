"""What a reverse proxy says of the client: X-Forwarded-For, -Proto and -Host, believed from trusted proxies alone.

The address is the last in X-Forwarded-For that is no trusted proxy: whoever stands before it may have written the rest.
From anybody else these headers are taken away, so that nothing behind can read them by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from albatros.errors import ConfigError

_FORWARDED = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?", re.ASCII)
MAX_HOPS = 32

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and networks as written in `server.trusted_proxies`. Raises ConfigError."""
    return tuple(map(_parse_network, texts))


def _parse_network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigError(f"server.trusted_proxies: {text!r} is no address or network: {error}") from error


class TrustedProxies:
    """Puts what trusted proxies say in the place of what the connection says."""

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = tuple(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            scope = self._rewrite(scope)
        await self._app(scope, receive, send)

    def _rewrite(self, scope: Scope) -> Scope:
        headers = Headers(scope=scope)
        rest = [(name, value) for name, value in scope["headers"] if name not in _FORWARDED]
        client = scope.get("client")
        if client is None or not self._is_trusted(_parse_address(client[0])):
            return {**scope, "headers": rest}
        changed = {**scope, "headers": rest}
        address = self._client_address(headers.getlist("x-forwarded-for"))
        if address is not None:
            changed["client"] = (str(address), 0)
        protocol = headers.get("x-forwarded-proto", "").strip().lower()
        if protocol in {"http", "https"}:
            changed["scheme"] = protocol
        host = headers.get("x-forwarded-host", "").strip()
        if _HOST.fullmatch(host):
            changed["headers"] = [item for item in rest if item[0] != b"host"] + [(b"host", host.encode("ascii"))]
        return changed

    def _client_address(self, values: Sequence[str]) -> Address | None:
        hops = [hop for value in values for hop in value.split(",")][-MAX_HOPS:]
        found: Address | None = None
        for hop in reversed(hops):
            address = _parse_address(hop.strip())
            if address is None:
                break
            found = address
            if not self._is_trusted(address):
                break
        return found

    def _is_trusted(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def _parse_address(text: str) -> Address | None:
    """An address as it is, as `[v6]:port` or `v4:port`; None for anything else."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
