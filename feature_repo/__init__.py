"""Feedrank's features as Feast sees them: entities, sources, views, services.

Imports only Feast and the contracts. Importing it costs what importing Feast costs (six seconds),
so whoever needs it imports it late, before anything of Feast; no path of a request does.
"""

import os
import sys


def _import_feast() -> None:
    """Import Feast without what that does to the process: it would import torch, for nothing here.

    It also names a folder of metrics, which every process started from here would then share.
    """
    missing = object()
    torch = sys.modules.get("torch", missing)
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
    try:
        import feast  # noqa: F401
    finally:
        del sys.modules["torch"]
        if torch is not missing:
            sys.modules["torch"] = torch  # pyright: ignore[reportArgumentType]
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


_import_feast()
