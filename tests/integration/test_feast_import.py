"""What a process is like once it has imported the feature repository, and Feast with it."""

import subprocess
import sys

SCRIPT = """
import os, sys
from feature_repo import store
assert "feast" in sys.modules
print("torch" in sys.modules, "PROMETHEUS_MULTIPROC_DIR" in os.environ)
import torch
"""


def test_it_has_no_torch_shares_no_metrics_and_can_still_import_torch():
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
