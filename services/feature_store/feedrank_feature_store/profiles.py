"""Every profile a reader ever had, so that training knows the one of a label's time, in Ibis."""

# Ibis types a column by its name as Column, without operators; its backend checks them instead.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from feedrank_core.contracts.features import USER_PROFILE_COLUMNS
from feedrank_core.contracts.users import UNKNOWN


def profiles(log: ir.Table, versions: ir.Table) -> ir.Table:
    """One row a version, from `profile_at` on; an unknown one for a reader who only acted."""
    published = versions.select("user_id", *USER_PROFILE_COLUMNS, profile_at=versions.accepted_at)
    nobody = log.anti_join(published, "user_id").group_by("user_id").agg(profile_at=log.at.min())
    strangers = nobody.select(
        "user_id",
        country=ibis.literal(UNKNOWN),
        age_band=ibis.literal(UNKNOWN),
        platform=ibis.literal(UNKNOWN),
        interests=ibis.literal([], type=published.interests.type()),
        profile_at=nobody.profile_at,
    )
    return published.union(strangers).order_by("user_id", "profile_at")
