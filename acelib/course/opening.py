"""The first line of every notebook: everything is checked, seeded and bounded, and the cost card is printed."""

import logging
import os
import random
import warnings

from acelib.core import Run, load_profile
from acelib.preflight import Meter


def open_run(profile: str, run_dir: str, notebook: str | None = None) -> Run:
    """The opening line of every notebook: check the profile, seed everything, bound the threads, print the cost card.

    Raises ProfileError.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm would like widgets
    # How the trainer recognises its newest checkpoint where files written in quick succession have equal times.
    logging.getLogger("transformers.trainer_utils").addFilter(lambda record: "mtime" not in record.getMessage())
    import numpy
    import torch

    run = Run(run_dir, load_profile(profile))
    seed = run.profile.seed
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(max(1, min(run.profile.threads, torch.get_num_threads())))
    if notebook:
        run.meter = Meter(run.profile, notebook, run.remote[1])
        print(run.meter.card())
    return run
