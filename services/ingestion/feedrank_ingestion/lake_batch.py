"""What the sink read, as rows of the lake, and what of it can be none. Pure: no bus, no lake."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.bus import Record
from feedrank_core.runtime.dead_letters import reason_of
from feedrank_core.runtime.lake_schema import contract_table
from pydantic import ValidationError

Row = dict[str, Any]


@dataclass
class Batch:
    """Records read, as rows by topic, and where each partition will stand."""

    records: list[Record] = field(default_factory=list)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    positions: dict[str, dict[int, int]] = field(default_factory=dict)
    refused: dict[str, list[tuple[Record, str]]] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Take a record in, as a row or as refused; one that comes again is left out."""
        positions = self.positions.setdefault(record.topic, {})
        # A partition that is lost and had again is read again from what was committed.
        if record.offset < positions.get(record.partition, 0):
            return
        positions[record.partition] = record.offset + 1
        self.records.append(record)
        if record.value is None:
            return
        try:
            row = row_of(record)
        except ValidationError as error:
            self._refuse(record, reason_of(error))
        else:
            self.rows.setdefault(record.topic, []).append(row)

    def refuse_what_does_not_fit(self, topic: str) -> None:
        """Turn rows of the topic that no column can hold into refused records.

        Only asked where the whole did not fit. Raises: ValueError where every row fits by itself.
        """
        records = {(r.partition, r.offset): r for r in self.records if r.topic == topic}
        fitting: list[Row] = []
        for row in self.rows[topic]:
            try:
                contract_table(topic, [row])
                fitting.append(row)
            except ValueError as error:
                place = row["topic_partition"], row["topic_offset"]
                self._refuse(records[place], str(error))
        if len(fitting) == len(self.rows[topic]):
            raise ValueError(f"{topic}: rows that fit one by one do not fit together")
        self.rows[topic] = fitting

    def _refuse(self, record: Record, reason: str) -> None:
        self.refused.setdefault(record.topic, []).append((record, reason))


def row_of(record: Record) -> Row:
    """The record's message as a row of the lake. Raises: ValidationError."""
    message = TOPICS[record.topic].model.model_validate_json(record.value or b"")
    place = {"topic_partition": record.partition, "topic_offset": record.offset}
    return message.model_dump() | place
