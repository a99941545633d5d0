"""Data sets and benchmarks: where they come from, what is kept out of them, and how a run's data are published."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "baselines": ["profile_baselines", "published_baselines", "reproduces"],
        "benchmarks": ["benchmark_rows", "load_benchmark", "read_benchmark"],
        "sources": ["hub_version"],
    },
)
