"""A server for tests: `transformers serve` on this machine's processors, in the place of vLLM."""

import pytest

from acelib.core.profiles import load_profile
from acelib.engine import serving

PROFILE = load_profile("pocket", {"remote": {"timeout_seconds": 3600, "max_retries": 8, "max_dollars": 0}})
TRANSFORMERS = (
    "-m transformers.cli.transformers serve {model} --host 127.0.0.1 --port {port} --dtype {dtype} --device cpu"
)


def serve(model, scratch, words=TRANSFORMERS, **options):
    """As `serving.serve`, but a Python with `words` is started."""
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "VLLM", words)
        patch.setattr(serving, "find_spec", lambda name: name)
        return serving.serve(PROFILE, str(model), scratch, **options)
