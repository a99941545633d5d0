"""Data sets and benchmarks: where they come from, what is kept out of them, and how a run's data are published."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "importing": ["counts_text", "import_as_profile_says", "import_dataset"],
        "baselines": ["profile_baselines", "published_baselines", "reproduces"],
        "benchmarks": ["benchmark_rows", "load_benchmark", "read_benchmark"],
        "publish": ["dataset_card", "push"],
        "published": ["adopt_models"],
        "overlap": ["Benchmarks", "code_ngrams"],
        "sources": ["Source", "open_source"],
    },
)
