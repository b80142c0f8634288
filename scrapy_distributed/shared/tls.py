"""TLS to a server: with which certificate of ours, and what is to be done where it can't be."""

from __future__ import annotations

import re
import ssl
from typing import Any

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.shared.address import CERTIFICATE, KEY, RedisAddress

#: What OpenSSL says of what does not pass by itself, and what to do then.
_REMEDIES = (
    (
        re.compile("certificate verify failed"),
        "check its certificate; where an authority of your own has signed it, or it itself, name the file of that"
        " certificate in the environment: SSL_CERT_FILE=/path/ca.pem",
    ),
    (
        re.compile("alert.*(certificate|unknown ca|handshake)"),
        f"it takes no certificate of ours: name the file of one that it knows in the environment: {CERTIFICATE}, and"
        f" {KEY} where its key is in another file",
    ),
)


def options(address: RedisAddress) -> dict[str, Any]:
    """For a connection to *address*, in the words of redis-py. Raises ``ConfigError`` where our certificate can't be
    used."""
    if not address.tls:
        return {}
    certificate, key = address.certificate or None, address.key or None
    if certificate is None and key is not None:
        raise ConfigError(
            f"{KEY}: found {key!r} and no {CERTIFICATE}, expected files with a certificate and its key: name that of"
            " the certificate as well"
        )
    if certificate is not None:
        try:
            ssl.create_default_context().load_cert_chain(certificate, key, password="")  # it would be asked for
        except OSError as error:
            raise ConfigError(
                f"{CERTIFICATE}, {KEY}: found {certificate!r} and {key or certificate!r}, expected files with a"
                f" certificate and its key: {error}"
            ) from None
    return {"ssl": True, "ssl_check_hostname": True, "ssl_certfile": certificate, "ssl_keyfile": key}


def remedy(words: str) -> str:
    """What to do where a connection has failed with *words*; '' where that may pass."""
    return next((what for pattern, what in _REMEDIES if pattern.search(words)), "")
