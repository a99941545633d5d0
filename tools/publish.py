"""Data sets for others: dataset cards from the templates beside this file and, when asked for, the way to the hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acelib.core import DataError, hub_problem, in_short


def dataset_card(template: str | Path, sources: Sequence[tuple[str, str]], **values: Any) -> str:
    """README.md of a data set from a Jinja template, whose head is the metadata that the hub and `load_dataset` read.

    `sources` are names and versions of what it was made from; those of the hub are linked. No licence is chosen: that
    is for the person to do who publishes. `values` are what the template shows.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    hub = [name for name, _ in sources if name.count("/") == 1 and not Path(name).exists()]
    data = DatasetCardData(source_datasets=hub)
    text = (Path(__file__).parent / template).read_text(encoding="utf-8")
    return f"{DatasetCard.from_template(data, template_str=text, sources=sources, **values)}\n"


def push(folder: Path, repository: str, files: Sequence[str], private: bool) -> str:
    """Uploads those files of a finished folder as a data set of the hub; returns its address.

    `files` may hold patterns; what an earlier push left of them goes. A data set that is there keeps its visibility.
    Raises DataError.
    """
    from huggingface_hub import HfApi

    try:
        api, kind = HfApi(), {"repo_id": repository, "repo_type": "dataset"}
        address = api.create_repo(**kind, private=private, exist_ok=True)
        api.upload_folder(**kind, folder_path=folder, allow_patterns=list(files), delete_patterns=list(files))
        return str(address)
    except Exception as error:  # whatever the network says
        why = hub_problem(error, repository, "data set", writing=True)
        why = why or f"{in_short(error)}; check the name and the network, and repeat the command."
        raise DataError(f"{folder} is complete but could not be pushed to {repository}: {why}") from error
