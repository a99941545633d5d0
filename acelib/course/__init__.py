"""The course itself: opens, runs, watches, checks and reports the notebooks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "exercises": ["check"],
        "grid": ["CHOICES", "LONG", "MAX_KL", "PUBLISHED", "REWARDS", "read_table", "run_grid"],
        "grid_trainings": ["Policy", "STEPS", "VARIANTS", "train_policy"],
        "opening": ["NotebookRun", "open_run"],
        "report": ["broken_promises", "machine", "scorecard", "scorecard_text", "write_report"],
        "rules": ["lint", "refresh"],
        "runner": ["Course", "contain"],
    },
)
