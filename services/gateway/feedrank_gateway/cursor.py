"""Cursors: a session and how much of it was served, signed, so that nobody else's can be made."""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from dataclasses import dataclass
from hashlib import blake2b

_MAC_BYTES = 16
"""128 bits of keyed BLAKE2b (RFC 7693, section 2.9)."""
_SESSION_BYTES = 16
_NUMBERS = struct.Struct(">III")


class BadCursorError(ValueError):
    """Not a cursor that this installation gave to this user."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a session of `session_id`, 32 hexadecimal digits, stands.

    `num_served` items were shown. The keys of `num_held` are in the cache; `num_popular` are not,
    because the cache was away: they are the first ones of the popular order.
    """

    session_id: str
    num_served: int = 0
    num_held: int = 0
    num_popular: int = 0


class CursorCodec:
    """Writes and reads cursors. The signature covers the user, whose id is not in the text."""

    def __init__(self, secret: bytes) -> None:
        self._key = blake2b(secret).digest()

    def encode(self, cursor: Cursor, user_id: str) -> str:
        """An opaque text, safe in a URL."""
        numbers = _NUMBERS.pack(cursor.num_served, cursor.num_held, cursor.num_popular)
        body = bytes.fromhex(cursor.session_id) + numbers
        return base64.urlsafe_b64encode(body + self._mac(body, user_id)).decode()

    def decode(self, text: str, user_id: str) -> Cursor:
        """The cursor. Raises: BadCursorError for a harmed, forged or other user's one."""
        try:
            raw = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError, ValueError) as error:
            raise BadCursorError("cursor is not one that this service gave out") from error
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if len(body) != _SESSION_BYTES + _NUMBERS.size or not hmac.compare_digest(
            mac, self._mac(body, user_id)
        ):
            raise BadCursorError("cursor is not one that this service gave to this user")
        return Cursor(body[:_SESSION_BYTES].hex(), *_NUMBERS.unpack_from(body, _SESSION_BYTES))

    def _mac(self, body: bytes, user_id: str) -> bytes:
        return blake2b(body + user_id.encode(), key=self._key, digest_size=_MAC_BYTES).digest()
