"""The course itself: opens, runs, watches and reports the notebooks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "exercises": ["check"],
        "notebooks": ["MADE_BY_PAPERMILL", "code", "parameters", "read_notebook", "tags"],
        "opening": ["NotebookRun", "open_run"],
        "report": ["broken_promises", "machine", "scorecard", "scorecard_text", "write_report"],
        "runner": ["Course", "NOTEBOOKS", "contain"],
    },
)
