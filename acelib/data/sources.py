"""Data sets of the hub: which commit is there, and all rows of a split."""

from pathlib import Path

from acelib.core import DataError, Row, in_short, load_explained


def hub_version(name: str) -> str:
    """The commit at which the data set `owner/name` stands now. Raises DataError that says why it cannot be had."""
    from huggingface_hub import HfApi

    with load_explained(name, "cannot be had from the hub", "give a local .jsonl or .parquet file", "data set"):
        return HfApi().dataset_info(name).sha


def read_split(name: str, split: str) -> list[Row]:
    """All rows of one split of a hub data set, or of a folder laid out like one.

    A data set without that split gives its only one. The hub's cache keeps it, so that what was read once can be read
    without a network. Raises DataError.
    """
    from datasets import load_dataset

    try:
        tables = load_dataset(name)
    except Exception as error:  # of Arrow, the hub or the network, which have no common ancestor
        if not Path(name).exists():
            hub_version(name)  # says what is wrong where the hub does
        raise DataError(f"{name} cannot be read ({in_short(error)}); check the network, or give a file.") from error
    if split not in tables and len(tables) > 1:
        raise DataError(f"{name} has no split {split}, only {', '.join(tables)}; give a file of the rows you mean.")
    return tables.get(split, next(iter(tables.values()))).to_list()
