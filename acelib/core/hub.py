"""What went wrong with the hub, as one sentence with its remedy.

The libraries wrap the same few causes in many errors: `transformers` in OSError, `datasets` in its own, and a hub that
forbids, limits or is not there all become "cannot find the requested files in the local cache". The cause is still in
the chain, and there it is looked for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from acelib.core.errors import CourseError, DataError, ModelError
from acelib.core.files import causes

LOGIN = "log in with `hf auth login` or set HF_TOKEN"


def hub_problem(error: BaseException, name: str, kind: str = "model", writing: bool = False) -> str | None:
    """What is wrong and how to mend it, where the hub is what `error` comes from; else None.

    `name` is the hub name that was asked for, or with `writing` sent something, `kind` "model" or "data set".
    """
    # It reads HF_HOME and HF_HUB_OFFLINE when it is imported, and the runner sets them after this module is.
    import httpx
    from huggingface_hub import constants, get_token, is_offline_mode
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    chain = list(causes(error))
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'data set' else ''}{name}"
    status = next(
        (one.response.status_code for one in chain if isinstance(one, HfHubHTTPError) and one.response is not None), 0
    )
    if any(isinstance(one, GatedRepoError) for one in chain):
        return f"The {kind} {name} is gated; accept its terms at {page} and {LOGIN}."
    if any(isinstance(one, RepositoryNotFoundError) for one in chain):
        return f"There is no {kind} {name} on the hub, or it is private; correct the name, or, if it is yours, {LOGIN}."
    said = {
        401: f"The hub refuses the token it was sent for {name} (401); make a new one, then {LOGIN}.",
        403: f"The hub forbids reading {name} (403); give your token read access to it, then {LOGIN}.",
        429: f"The hub limits how often it is asked for {name} (429); {LOGIN}, and repeat in some minutes.",
    }
    if writing:
        owner = "correct the owner, or allow your token to write and"
        said[403] = f"The hub forbids writing to {name} (403); {owner} {LOGIN}."
        if not get_token():
            said[401] = f"The hub takes nothing for {name} without a token (401); {LOGIN}."
    if status:
        broken = f"The hub fails with {status} for {name}; repeat the command in some minutes."
        return broken if status >= 500 else said.get(status)
    lacking = [one for one in chain if isinstance(one, (LocalEntryNotFoundError, httpx.TransportError))]
    offline = is_offline_mode() and (lacking or any(isinstance(one, ConnectionError) for one in chain))
    if offline and writing:
        return f"HF_HUB_OFFLINE keeps this process from the network and so from {name}; unset it."
    if offline:
        return (
            f"The {kind} {name} is not in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE keeps this process from the "
            f"network; unset it, or fill that folder where there is a network with `hf download {name}`"
            f"{' --repo-type dataset' if kind == 'data set' else ''}."
        )
    if lacking:
        remedy = "and repeat the command" if writing else "or give local files"
        return (
            f"The hub at {constants.ENDPOINT} cannot be reached for {name} ({in_short(lacking[-1])}); check the "
            f"network, a proxy (HTTPS_PROXY) and HF_ENDPOINT, {remedy}."
        )
    return None


def in_short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


@contextmanager
def load_explained(name: str | Path, what: str, remedy: str, kind: str = "model") -> Iterator[None]:
    """Turn whatever goes wrong in loading the model `name`, or another `kind` of thing, into ModelError or DataError:
    what the hub says, else `name what (the cause); remedy.` Full memory stays what it is.

    What others made is broken in any way, and the errors of transformers, safetensors, torch and jinja have no
    ancestor in common.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (CourseError, MemoryError)) or "out of memory" in str(error):
            raise
        said = hub_problem(error, str(name), kind) or f"{name} {what} ({in_short(error)}); {remedy}."
        raise (ModelError if kind == "model" else DataError)(said) from error
