"""The stages of AceCoder (arXiv 2502.01718), one flat module each; `notebooks/` teaches them."""

import os

__version__ = "0.1.0"

# Before torch is imported, here and in every process that is started from here: an idle OpenMP thread sleeps. Where it
# spins, as is its way, training beside a single busy program takes many times as long (bench/threads.py). Fewer threads
# would help as well, but their number changes what a training gives: with the load, a seed would mean another result.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
