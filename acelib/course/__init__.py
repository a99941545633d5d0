"""What the first and the last lines of a notebook call: its opening, and the checks of its exercises."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"exercises": ["check"], "opening": ["NotebookRun", "contain", "open_run"]}
)
