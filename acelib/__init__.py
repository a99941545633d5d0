"""The stages of AceCoder (arXiv 2502.01718), one flat module each; `notebooks/` teaches them."""

__version__ = "0.1.0"
