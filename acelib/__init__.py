"""The stages of AceCoder (arXiv 2502.01718), one flat module each; `notebooks/` teaches them."""

import os

__version__ = "0.1.0"

# Before torch is imported, here and in every process that is started from here: how often an OpenMP thread looks for
# work before it sleeps. With libgomp's 300,000 a busy program beside us costs tens of times the time until
# `acelib.core.threads` takes one thread; asleep at once, threads nearly double the time of an idle machine.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")
