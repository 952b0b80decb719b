"""How the user started this command line, so that advice can be typed as it is printed."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

NAME = "feedrank"


def invocation() -> str:
    """`feedrank` where a shell finds this one by that name, else the path it was started by."""
    started, found = Path(sys.argv[0]), shutil.which(NAME)
    is_path = started.name == NAME and started.exists()
    if not is_path or (found is not None and started.samefile(found)):
        return NAME
    return shlex.quote(sys.argv[0])
