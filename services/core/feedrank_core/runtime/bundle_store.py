"""The bundle store: folders sealed by a manifest, and the pointer to the one that serves."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import orjson

from feedrank_core.contracts.bundle import (
    BUNDLE_ID,
    BUNDLE_SCHEMA_VERSION,
    CURRENT,
    MANIFEST,
    Manifest,
    Part,
    PopularLists,
    Stage,
)
from feedrank_core.runtime.atomic import write_atomically


class BundleError(RuntimeError):
    """A bundle is missing, harmed or of another schema; the message names file and remedy."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Arrays are memory-mapped and read-only."""

    path: Path
    manifest: Manifest

    @property
    def bundle_id(self) -> str:
        """The bundle's id, which is also its folder's name."""
        return self.manifest.bundle_id

    def part(self, part: Part) -> Path:
        """Where a part lies."""
        return self.path / part.value

    def verify(self, name: str) -> None:
        """Hold a file of the bundle against its sha256. Raises: BundleError."""
        file = self.path / name
        if not file.is_file():
            raise BundleError(f"bundle {self.bundle_id}: {file} is missing")
        if sha256_of(file) != self.manifest.files.get(name):
            raise BundleError(
                f"bundle {self.bundle_id}: {file} does not match its sha256;"
                " restore the file or train a new bundle with `feedrank daily`"
            )

    def array(self, part: Part) -> np.ndarray:
        """A `.npy` part, mapped read-only: workers of one machine share its pages."""
        return np.load(self.part(part), mmap_mode="r", allow_pickle=False)

    def json(self, part: Part) -> object:
        """A JSON part."""
        return orjson.loads(self.part(part).read_bytes())

    @cached_property
    def popular(self) -> PopularLists:
        """The popular lists, parsed once."""
        return PopularLists.model_validate_json(self.part(Part.POPULAR).read_bytes())


class BundleStore:
    """Bundles below one folder. Writers seal; readers open; one pointer says which serves."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, bundle_id: str) -> Path:
        """An empty folder to write parts into. It is no bundle until it is sealed."""
        path = self.root / bundle_id
        path.mkdir(parents=True, exist_ok=True)
        return path

    def seal(self, manifest: Manifest) -> Bundle:
        """Hash every file of the bundle and write its manifest last, atomically.

        Sealing again after adding parts (the index) replaces the manifest; `manifest.files` is
        computed here, whatever was passed.
        """
        path = self.root / manifest.bundle_id
        files = {
            str(p.relative_to(path)): sha256_of(p)
            for p in sorted(path.rglob("*"))
            if p.is_file() and p.name != MANIFEST and not p.name.startswith(".")
        }
        sealed = manifest.model_copy(update={"files": files})
        write_atomically(path / MANIFEST, sealed.model_dump_json(indent=2).encode())
        return Bundle(path, sealed)

    def open(self, bundle_id: str, *, verify: bool = True) -> Bundle:
        """The bundle, each file checked against its sha256. Raises: BundleError."""
        path = self.root / bundle_id
        try:
            raw = (path / MANIFEST).read_bytes()
        except OSError as error:
            raise BundleError(
                f"bundle {bundle_id}: {path / MANIFEST} cannot be read ({error.strerror});"
                " train a new bundle with `feedrank daily`"
            ) from error
        try:
            content = orjson.loads(raw)
            if not isinstance(content, dict):
                raise ValueError("not a JSON object")
            version = content.get("schema_version")
            if version != BUNDLE_SCHEMA_VERSION:
                raise BundleError(
                    f"bundle {bundle_id}: schema_version is {version}, this release reads"
                    f" {BUNDLE_SCHEMA_VERSION}; train a new bundle with `feedrank daily`"
                )
            manifest = Manifest.model_validate_json(raw)
        except ValueError as error:
            raise BundleError(f"bundle {bundle_id}: {MANIFEST} is not valid: {error}") from error
        bundle = Bundle(path, manifest)
        for name in manifest.files if verify else ():
            bundle.verify(name)
        return bundle

    def current_id(self) -> str | None:
        """The id of the bundle that serves, or None before the first flip."""
        try:
            return (self.root / CURRENT).read_text().strip() or None
        except FileNotFoundError:
            return None

    def flip(self, bundle_id: str) -> None:
        """Make an indexed bundle the one that serves. Raises: BundleError."""
        bundle = self.open(bundle_id)
        if bundle.manifest.stage is not Stage.INDEXED:
            raise BundleError(
                f"bundle {bundle_id} is {bundle.manifest.stage}, not {Stage.INDEXED};"
                " run the batch ranker on it first"
            )
        write_atomically(self.root / CURRENT, bundle_id.encode())

    def ids(self) -> list[str]:
        """Every sealed bundle, oldest first."""
        return sorted(p.parent.name for p in self.root.glob(f"*/{MANIFEST}"))

    def keep(self, newest: int, also: Set[str]) -> list[str]:
        """Remove all before the newest bundles but `also`, sealed or not; the ids that went.

        Who holds a removed bundle goes on: mapped files live until they are let go.
        """
        found = sorted(p.name for p in self.root.iterdir() if re.fullmatch(BUNDLE_ID, p.name))
        sealed = [name for name in found if (self.root / name / MANIFEST).exists()]
        oldest = min(sealed[-newest:], default="")
        removed = [name for name in found if name < oldest and name not in also]
        for name in removed:
            # First, so that what a crash leaves is no bundle, and goes the next time.
            (self.root / name / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(self.root / name)
        return removed


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
