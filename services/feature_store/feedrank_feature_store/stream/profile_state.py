"""A reader's profile as last published, as the state packs it."""

from __future__ import annotations

import msgspec
from feedrank_core.contracts.bundle import segment_of
from feedrank_core.contracts.users import UNKNOWN, AgeBand, Platform


class Profile(msgspec.Struct, array_like=True, frozen=True):
    """One version of a profile; `gone` withdraws it. Units: `at_us` in microseconds.

    An `inherited` one is of somebody who was merged into the reader.
    """

    user_id: str
    country: str = UNKNOWN
    age_band: str = AgeBand.UNKNOWN.value
    platform: str = Platform.UNKNOWN.value
    interests: tuple[str, ...] = ()
    at_us: int = 0
    offset: int = 0
    gone: bool = False
    inherited: bool = False

    @property
    def segment(self) -> str:
        """The segment its reader belongs to."""
        return segment_of(self.country, self.platform)

    def named(self, user_id: str) -> Profile:
        """The same as that of whoever the reader was merged into, or of the reader still."""
        inherited = self.inherited or user_id != self.user_id
        return msgspec.structs.replace(self, user_id=user_id, inherited=inherited)


_DECODER = msgspec.msgpack.Decoder(Profile)
_ENCODER = msgspec.msgpack.Encoder()


def pack_profile(profile: Profile) -> bytes:
    """The profile as bytes."""
    return _ENCODER.encode(profile)


def unpack_profile(packed: bytes) -> Profile | None:
    """The profile of these bytes, None of none."""
    return _DECODER.decode(packed) if packed else None


def newest(held: bytes, profile: Profile) -> bytes | None:
    """What to hold after one more version; None where what is held counts more.

    What a reader said of themselves counts before all that was inherited.
    """
    before = unpack_profile(held)
    if profile.gone:
        return b""
    if before is not None and _rank(before) > _rank(profile):
        return None
    return pack_profile(profile)


def _rank(profile: Profile) -> tuple[bool, int, int]:
    return not profile.inherited, profile.at_us, profile.offset
