"""Data sets for others: the front of a dataset card and, when asked for, the way to the hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from acelib.core import DataError, hub_problem


def dataset_card(text: str, sources: Sequence[str], **more: Any) -> str:
    """README.md of a data set: the YAML that the hub and `datasets.load_dataset` read, and the Markdown `text`.

    `sources` are names of what it was made from; those of the hub are linked. No licence is chosen: that is for the
    person to do who publishes. `more` are further fields of the hub's metadata, such as `configs`, or other values.
    """
    hub = [name for name in sources if name.count("/") == 1 and not Path(name).exists()]
    front = {
        "license": "other",
        "license_name": "see-the-source-sets",
        "language": ["code", "en"],
        "tags": ["code"],
        "source_datasets": hub,
    } | more
    return f"---\n{yaml.safe_dump(front, sort_keys=False).strip()}\n---\n{text.strip()}\n"


def sources_list(sources: Sequence[tuple[str, str]]) -> str:
    """Names and versions as a Markdown list that sends the reader to their licences."""
    return "\n".join(f"- `{name}` at `{version[:12]}`; licence: see the source set" for name, version in sources)


def push(folder: Path, repository: str, files: Sequence[str], private: bool) -> str:
    """Uploads those files of a finished folder as a data set of the hub; returns its address.

    `files` may hold patterns; what an earlier push left of them goes. A data set that is there keeps its visibility.
    Raises DataError.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        address = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=list(files),
            delete_patterns=list(files),
        )
    except Exception as error:  # whatever the network says
        said = " ".join(str(error).split())[:200].rstrip(".")
        why = hub_problem(error, repository, "data set", writing=True)
        why = why or f"{said}; check the name and the network, and repeat the command."
        raise DataError(f"{folder} is complete but could not be pushed to {repository}: {why}") from error
    return str(address)
