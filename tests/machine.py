"""One installation for the tests of the whole ring: a home, free ports, and its command line."""

import os
import subprocess
import sys

from feedrank_cli.demo import own_settings
from feedrank_cli.supervision import Supervisor


class Machine:
    """`feedrank`, told of this home and its ports. `more` are variables for every process."""

    def __init__(self, home, more=None):
        self.settings = own_settings(home)
        self.supervisor = Supervisor(self.settings)
        self._more = more or {}

    def feedrank(self, *arguments, code=0, timeout=300):
        done = subprocess.run(
            [sys.executable, "-m", "feedrank_cli", *arguments],
            env=os.environ | self.settings.environment() | self._more,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr
