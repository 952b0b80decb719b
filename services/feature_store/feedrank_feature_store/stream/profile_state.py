"""A reader's profile as last published, as the state packs it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from feedrank_core.contracts.bundle import segment_of
from feedrank_core.contracts.users import UNKNOWN, AgeBand, Platform


class Profile(msgspec.Struct, array_like=True, frozen=True):
    """One version of a profile; `gone` withdraws it. Units: `at_us` in microseconds.

    An `inherited` one is of somebody who was merged into the reader. The latest of these stays
    `beside` the reader's own: for whoever the reader is merged into, the later of both counts.
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
    beside: Profile | None = None

    @property
    def segment(self) -> str:
        """The segment its reader belongs to."""
        return segment_of(self.country, self.platform)

    def left_to(self, user_id: str) -> Profile:
        """What whoever has it in the end inherits: the reader too, where it came back to them."""
        latest = max(self, self.beside or self, key=_age)
        return msgspec.structs.replace(latest, user_id=user_id, inherited=True, beside=None)


_DECODER = msgspec.msgpack.Decoder(Profile)
_ENCODER = msgspec.msgpack.Encoder()


def pack_profile(profile: Profile) -> bytes:
    """The profile as bytes."""
    return _ENCODER.encode(profile)


def unpack_profile(packed: bytes) -> Profile | None:
    """The profile of these bytes, None of none."""
    return _DECODER.decode(packed) if packed else None


def newest(held: bytes, profile: Profile) -> bytes | None:
    """What to hold after one more version; None where it changes nothing.

    What a reader said of themselves counts before all that was inherited.
    """
    if profile.gone:
        return b""
    before = unpack_profile(held)
    held_ones = (before, before.beside) if before is not None else ()
    known = [one for one in (profile, *held_ones) if one is not None]
    own = _latest(one for one in known if not one.inherited)
    inherited = _latest(one for one in known if one.inherited)
    after = msgspec.structs.replace(own, beside=inherited) if own else inherited
    return None if after is None or after == before else pack_profile(after)


def _latest(profiles: Iterable[Profile]) -> Profile | None:
    return max(profiles, key=_age, default=None)


def _age(profile: Profile) -> tuple[int, int]:
    return profile.at_us, profile.offset
