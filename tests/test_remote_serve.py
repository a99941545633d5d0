"""The pocket teacher behind `transformers serve`: the same questions as from the same weights in this process."""

import pytest
from served import serve

from acelib.core.profiles import load_profile
from acelib.models.generation import load_policy, load_tokenizer
from acelib.models.params import SamplingParams
from acelib.synthesis import imagine, load_seeds, problems_from_replies


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    profile = load_profile("pocket")
    model = profile.resolve(profile.models.teacher)
    server = serve(model, tmp_path_factory.mktemp("serve"), start_seconds=240)
    yield f"{server.url}#{model}"
    server.close()


@pytest.mark.slow
def test_the_same_questions_over_http_as_from_the_folder(address, tmp_path):
    profile = load_profile("pocket", {"remote.concurrency": 2})
    seeds = load_seeds(profile.resolve(profile.data.seeds))[:2]
    found = []
    for name in (profile.resolve(profile.models.teacher), address):
        replies = imagine(
            load_policy(name, "float32", "cpu", (profile.remote, tmp_path / "paid.jsonl")),
            load_tokenizer(name),
            seeds,
            SamplingParams(temperature=0.0, max_new_tokens=500, batch_size=2, seed=0),
            prompt=profile.prompts.teacher,
            log=tmp_path / "replies.jsonl",
        )
        found.append(problems_from_replies(replies))
    assert found[0] == found[1] and len(found[0][0]) == 2
