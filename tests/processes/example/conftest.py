"""The FTP server."""

from __future__ import annotations

from ftp_clients import running, server

__all__ = ["running", "server"]
