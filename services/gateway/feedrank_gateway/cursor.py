"""Cursors: a session and how much of it was served, signed, so that nobody else's can be made."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

_MAC_BYTES = 16
"""128 bits of HMAC-SHA256, the shortest truncation RFC 2104 (section 5) recommends."""
_SESSION_BYTES = 16
MAX_CURSOR_LENGTH = 64


class BadCursorError(ValueError):
    """Not a cursor that this installation gave to this user."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """`session_id` is 32 hexadecimal digits; `num_served` items came before."""

    session_id: str
    num_served: int


class CursorCodec:
    """Writes and reads cursors. The signature covers the user, whose id is not in the text."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def encode(self, cursor: Cursor, user_id: str) -> str:
        """An opaque text, safe in a URL."""
        body = bytes.fromhex(cursor.session_id) + cursor.num_served.to_bytes(4, "big")
        return base64.urlsafe_b64encode(body + self._mac(body, user_id)).decode()

    def decode(self, text: str, user_id: str) -> Cursor:
        """The cursor. Raises: BadCursorError for a harmed, forged or other user's one."""
        try:
            raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError, ValueError) as error:
            raise BadCursorError("cursor is not one that this service gave out") from error
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if len(body) != _SESSION_BYTES + 4 or not hmac.compare_digest(
            mac, self._mac(body, user_id)
        ):
            raise BadCursorError("cursor is not one that this service gave to this user")
        return Cursor(body[:_SESSION_BYTES].hex(), int.from_bytes(body[_SESSION_BYTES:], "big"))

    def _mac(self, body: bytes, user_id: str) -> bytes:
        return hmac.digest(self._secret, body + user_id.encode(), "sha256")[:_MAC_BYTES]


def load_secret(path: Path) -> bytes:
    """The secret in this file, made by whoever comes first: all workers get the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()
    return path.read_bytes()
