"""Before the money is spent: does the machine fit, can this learn, and what will it cost?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cost_model": ["ACECODE", "EVALUATES", "CostModel", "at_scale", "fetched_gb", "fits", "models_gb", "shape_of"],
        "costs": ["Meter", "for_one_card"],
        "findings": ["report", "require"],
        "machine": ["check_judge", "check_machine", "preflight", "preflight_gpu"],
        "training": ["preflight_reinforce", "preflight_reward_model"],
    },
)
