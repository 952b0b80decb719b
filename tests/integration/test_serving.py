import os
import signal
import socket
import subprocess
import sys
import time

import httpx

APP = """
from feedrank_core.runtime.http import create_app
from feedrank_core.runtime.logs import configure
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.serving import serve

def create():
    configure("gateway")
    metrics = Metrics("gateway")
    async def ready():
        return None
    app = create_app(title="t", metrics=metrics, ready=ready, public=True)
    @app.post("/count")
    async def count(body: dict) -> int:
        metrics.counter("slates_dropped_total").inc()
        return len(body)
    return app

if __name__ == "__main__":
    serve("served:create", "127.0.0.1", PORT, workers=2)
"""
PATIENCE_S = 30.0
NUM_CALLS = 30
BIG = 64 << 20


def test_workers_sum_their_metrics_and_survive_a_huge_body(tmp_path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "served.py").write_text(APP.replace("PORT", str(port)))
    process = subprocess.Popen(
        [sys.executable, "served.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(base)
        for _ in range(NUM_CALLS):
            assert httpx.post(f"{base}/count", json={}).status_code == 200
        text = httpx.get(f"{base}/metrics").text
        assert f"feedrank_gateway_slates_dropped_total {NUM_CALLS}.0" in text
        refused = httpx.post(f"{base}/count", content=b"x" * BIG, timeout=PATIENCE_S)
        assert refused.status_code == 413
        assert httpx.get(f"{base}/healthz").status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def wait_until_ready(base: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{base}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("no worker became ready")
