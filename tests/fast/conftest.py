"""A server, also with TLS."""

from __future__ import annotations

from http_servers import server, tls_server

__all__ = ["server", "tls_server"]
