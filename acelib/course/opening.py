"""What every notebook opens with: everything is checked, seeded and bounded, and the cost card is printed; and the run
that it then has in hand, which also keeps figures and numbers for the report."""

import logging
import os
import random
import warnings
from pathlib import Path
from typing import Any

from acelib.core import ROOT, Run, Threads, full_disk_explained, load_profile, read_json, write_json


def contain() -> None:
    """Keep caches inside the checkout and hubs and telemetry out, for this process and its children."""
    cache = ROOT / ".cache"
    # The login is no cache: `hf auth login` keeps it where the hub's client looks unless it is told otherwise.
    usual = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    values = {
        "HF_TOKEN_PATH": Path(os.environ.get("HF_HOME", usual), "token").expanduser(),
        "HF_HOME": cache / "huggingface",
        "XDG_CACHE_HOME": cache / "xdg",
        "MPLCONFIGDIR": cache / "matplotlib",
        "IPYTHONDIR": cache / "ipython",
        "JUPYTER_CONFIG_DIR": cache / "jupyter/config",
        "JUPYTER_DATA_DIR": cache / "jupyter/data",
        "JUPYTER_RUNTIME_DIR": cache / "jupyter/runtime",
        "TORCHINDUCTOR_CACHE_DIR": cache / "inductor",
        "HF_HUB_DISABLE_TELEMETRY": 1,
        "DO_NOT_TRACK": 1,
        "TRL_EXPERIMENTAL_SILENCE": 1,
        "TRANSFORMERS_VERBOSITY": "warning",
        "HF_HUB_DISABLE_PROGRESS_BARS": 1,
        "HF_DATASETS_DISABLE_PROGRESS_BARS": 1,
        "PYTHONHASHSEED": 0,
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_USE_FLASHINFER_SAMPLER": 0,  # it would be compiled, which needs CUDA's toolkit; ours is PyTorch's
        "PYDEVD_DISABLE_FILE_VALIDATION": 1,
    }
    for name, value in values.items():
        os.environ.setdefault(name, str(value))
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(ROOT) not in paths:  # kernels find acelib also where it is not installed
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, paths)])


class NotebookRun(Run):
    """A run as notebooks use it: with figures, numbers and costs for the report."""

    meter: Any = None  # acelib.preflight.Meter, set by `open_run`

    def metrics(self, values: dict[str, Any], notebook: str) -> None:
        """Record numbers, or `{"value", "low", "high"}`, for the report; repeated calls add to each other."""
        path = self.dir / "metrics" / f"{notebook}.json"
        write_json(path, read_json(path) | values)

    def spent(self) -> None:
        """The closing line of every notebook: what it took, beside the estimate; both go to the report."""
        text, values = self.meter.compare(self.kept)
        self.metrics(values, self.meter.notebook)
        print(text)

    def figure(self, fig, name: str, caption: str, notebook: str) -> None:
        """Save `fig` for the report and show it here, once, above its caption."""
        import matplotlib.pyplot as plt
        from IPython.display import Image, Markdown, display

        folder = self.dir / "figures" / notebook
        path = folder / f"{name}.png"
        order = {one.stem: i for i, one in enumerate(sorted(folder.glob("*.json"), key=lambda p: p.stat().st_mtime))}
        with full_disk_explained(path):
            folder.mkdir(parents=True, exist_ok=True)
            fig.savefig(path, metadata={"Software": None})
        write_json(folder / f"{name}.json", {"caption": caption, "order": order.get(name, len(order))})
        plt.close(fig)
        display(Image(filename=str(path), alt=caption), Markdown(f"*{caption}*"))


def open_run(profile: str, run_dir: str, notebook: str | None = None) -> NotebookRun:
    """The opening line of every notebook: check the profile, seed everything, bound the threads, print the cost card.
    Raises ProfileError."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm would like widgets
    for name, part in {
        "transformers.trainer_utils": "mtime",  # how the newest checkpoint is found where files have equal times
        "trl.trainer.grpo_trainer": "model_init_kwargs",  # which are meant for the reference
        "bitsandbytes.backends.cpu.ops": "gemm_4bit_forward",  # PEFT imports it where it is installed, wanted or not
    }.items():
        logging.getLogger(name).addFilter(lambda record, part=part: part not in record.getMessage())
    run = NotebookRun(run_dir, load_profile(profile))  # before what takes seconds to import
    import numpy
    import torch

    from acelib.preflight import Meter  # loads transformers, and with it tqdm

    seed = run.profile.seed
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    run.threads = Threads(max(1, min(run.profile.threads, torch.get_num_threads())))
    torch.set_num_threads(run.threads.most)
    run.threads.look()
    if notebook:
        run.meter = Meter(run.profile, notebook, run.remote[1])
        print(run.meter.card())
    return run
