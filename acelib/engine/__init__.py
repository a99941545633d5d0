"""Where work runs: launched on several devices, served by vLLM, in shards on a Ray cluster."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "configuration": ["processes_per_machine"],
        "launcher": ["launch"],
        "serving": ["open_sampler", "reply_settings"],
        "shards": ["sample_and_judge"],
    },
)
