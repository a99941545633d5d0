"""Tests write no cache outside the checkout and reach no hub, like the course itself."""

import os

from acelib.course import contain

contain()
os.environ["HF_HUB_OFFLINE"] = "1"
