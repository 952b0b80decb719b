"""Cursors: a session and how much of it was served, signed, so that nobody else's can be made."""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass
from hashlib import blake2b

_MAC_BYTES = 16
"""128 bits of keyed BLAKE2b (RFC 7693, section 2.9)."""
_SESSION_BYTES = 16


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
        self._key = blake2b(secret).digest()

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
        return blake2b(body + user_id.encode(), key=self._key, digest_size=_MAC_BYTES).digest()
