"""Data sets and benchmarks: where they come from, what is kept out of them, and how a run's data are published."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adoption": ["adopt", "adopt_as_profile_says", "counts_text"],
        "baselines": ["profile_baselines", "published_baselines", "reproduces"],
        "benchmarks": ["load_benchmark", "read_benchmark"],
        "exporting": ["export", "push_export"],
        "harnesses": ["HARNESSES", "WARNING", "collect", "command", "execute", "summary"],
        "ranking": ["picked_correct", "rank", "read_recorded"],
        "seeds": ["PUBLIC", "build_seeds", "counts_table", "push_seeds"],
    },
)
