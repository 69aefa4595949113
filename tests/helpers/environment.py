"""The environment of all tests, set before any library reads it: offline, but for a Hub on loopback."""

import os
import tempfile

from local_hub import LocalHub

LOCAL_HUB = LocalHub().start()
os.environ |= {
    "HF_ENDPOINT": LOCAL_HUB.endpoint,
    "HF_HOME": tempfile.mkdtemp(prefix="hf-home-"),
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # many small tensors: threads only get in each other's way
os.environ.setdefault("ACCELERATE_USE_CPU", "true")
