"""A teacher behind a server: paid for once, within the cap, and every failure one sentence with its remedy."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter

import pytest
from fake_server import Behaviour, answer, serving
from small_disk import on_small_disk

from acelib import sampling
from acelib.core import ArtifactError, EngineError, ModelError
from acelib.core.profiles import ROOT, load_profile
from acelib.core.run import Run
from acelib.core.sections import Remote
from acelib.filtering import filter_problems, passed_tests, proxy_programs
from acelib.judge import Judge
from acelib.models.client import remote_replies
from acelib.models.generation import load_policy, load_tokenizer
from acelib.models.params import SamplingParams
from acelib.models.server import connect
from acelib.sampling import judge_programs
from acelib.schema import Problem
from acelib.synthesis import REPLY_SCHEMA, imagine, problems_from_replies

FREE = dict(
    concurrency=4,
    timeout_seconds=60.0,
    max_retries=7,
    max_dollars=0.0,
    dollars_per_million_input=0.0,
    dollars_per_million_output=0.0,
    max_refused=0.1,
)
SAMPLING = dict(n=1, temperature=0.7, top_p=1.0, max_new_tokens=100, batch_size=1, seed=3)
KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def questions(count):
    return {f"q{i}": [{"role": "user", "content": f"question {i}"}] for i in range(count)}


def ask(url, log, asked, **changes):
    """The replies; `changes` go to the limits or to the sampling, wherever they belong, or to `remote_replies`."""
    limits = {name: changes.pop(name) for name in FREE if name in changes}
    params = SamplingParams(**SAMPLING | {name: changes.pop(name) for name in SAMPLING if name in changes})
    return remote_replies(connect(f"{url}#m", Remote(**FREE | limits), log), asked, params, **changes)


def expected(count):
    return {f"q{i}": [f"reply to question {i}"] for i in range(count)}


def records(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_replies_come_in_order_side_by_side_and_once(tmp_path):
    seen, log, steps = Behaviour(delay=0.02), tmp_path / "paid.jsonl", []
    with serving(seen) as url:
        replies = ask(url, log, questions(30), progress=lambda *step: steps.append(step))
        assert list(replies.items()) == list(expected(30).items())
        assert 2 <= seen.most <= 4
        assert steps[-1] == (30, 30) and [done for done, _ in steps] == sorted(done for done, _ in steps)
        assert ask(url, log, questions(30)) == replies and len(seen.requests) == 30
    assert set(seen.paid.values()) == {1} and seen.keys == {f"Bearer {KEY}"}
    line = records(log)[0]
    assert line["usage"]["completion_tokens"] == 50 and line["finish_reason"] == "stop" and line["model"] == "m"
    assert ask("http://another.host.invalid/v1", log, questions(30)) == replies  # a server may move


def test_every_sample_is_its_own_request_and_greedy_ones_are_one(tmp_path):
    seen = Behaviour()
    with serving(seen) as url:
        assert len(ask(url, tmp_path / "log", questions(2), n=3)["q1"]) == 3
        assert sorted(body["seed"] for body in seen.requests) == [3, 3, 4, 4, 5, 5]
        ask(url, tmp_path / "log", questions(2), n=3, temperature=0.0)
        assert len(seen.requests) == 8 and "seed" not in seen.requests[-1]


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.slow
def test_failures_on_the_way_do_not_change_what_comes_out(tmp_path, concurrency):
    busy = (429, {"Retry-After": "0.4"}, "slow down")
    faults = [(503, {}, "starting"), busy, "close", "cut", busy, "junk", (500, {}, "")]
    faults = dict(zip(range(0, 14, 2), faults, strict=True))  # every other request
    seen, log = Behaviour(faults), tmp_path / "log"
    with serving(seen) as url:
        assert ask(url, log, questions(8), concurrency=concurrency) == expected(8)
    assert seen.paid == Counter({f"question {i}": 1 for i in range(8)})
    assert len(seen.requests) == 8 + len(faults)
    lost = sorted(line["error"] for line in records(log) if "error" in line)
    assert lost == ["NoReply", "RemoteProtocolError", "RemoteProtocolError"]  # these may have been paid for
    if concurrency == 1:
        assert seen.early == 0, "a request came before the time that Retry-After named"


def test_a_server_that_hangs_is_asked_again(tmp_path):
    seen, log = Behaviour({0: "hang", 1: "hang"}), tmp_path / "log"
    with serving(seen) as url:
        assert ask(url, log, questions(2), timeout_seconds=1.0, max_retries=8) == expected(2)
    assert [line["error"] for line in records(log)[:2]] == ["ReadTimeout"] * 2


class Unfair(Behaviour):
    """Refuses question 0 five times, each time only after two other questions were answered, which wait for it."""

    refused = 0

    def fault(self, number, body):
        if body["messages"][0]["content"] != "question 0":
            while self.refused < 5 and sum(self.paid.values()) >= 2 * self.refused:
                time.sleep(0.005)
            return None
        if self.refused == 5:
            return None
        self.refused += 1
        while sum(self.paid.values()) < 2 * self.refused:
            time.sleep(0.005)
        return 429, {"Retry-After": "0.01"}, "busy"


def test_a_request_is_not_given_up_while_others_get_through(tmp_path):
    seen = Unfair()
    with serving(seen) as url:
        assert ask(url, tmp_path / "log", questions(14), concurrency=2, max_retries=1) == expected(14)
    assert seen.refused == 5


def test_truncated_and_refused_replies_are_kept_as_they_are(tmp_path):
    cut = '{"question": "Write `f(x)`.", "tests": ["assert f(1) == 2", "assert f(2'
    faults = {0: answer(cut, "length"), 1: answer(None, refusal="I cannot help."), 2: answer("", "content_filter")}
    seeds = [{"id": str(i), "source": "s", "program": f"p{i}"} for i in range(3)]
    params = SamplingParams(temperature=0.7, max_new_tokens=9, batch_size=2, seed=0)
    options = dict(prompt="{program}", log=tmp_path / "unused")
    seen = Behaviour(faults)
    with serving(seen) as url:
        server = connect(f"{url}#m", Remote(**FREE | {"concurrency": 1}), tmp_path / "log")
        replies = imagine(server, None, seeds, params, **options)
        assert imagine(server, None, seeds, params, **options) == replies and len(seen.requests) == 3
    problems, counts = problems_from_replies(replies)
    assert problems[0].tests == ("assert f(1) == 2",) and counts["replies: truncated, salvaged"] == 1
    assert counts["replies: it holds no question with tests"] == counts["replies: it is empty"] == 1
    assert [line["finish_reason"] for line in records(tmp_path / "log")] == ["length", "stop", "content_filter"]
    assert seen.requests[0]["response_format"]["json_schema"]["schema"] == REPLY_SCHEMA


@pytest.mark.parametrize(
    ("refuse", "refused", "format_in_the_end"),
    [
        (lambda body: "no" if body.get("response_format", {}).get("type") == "json_schema" else "", 1, "json_object"),
        (lambda body: "what is response_format?" if "response_format" in body else "", 2, None),
        (lambda body: "use 'max_completion_tokens'" if "max_tokens" in body else "", 1, "json_schema"),
        (lambda body: "unknown field: seed" if "seed" in body else "", 1, "json_schema"),
    ],
    ids=["no schema", "no JSON mode", "another name for max_tokens", "no seed"],
)
def test_what_a_server_lacks_is_found_out_once(tmp_path, refuse, refused, format_in_the_end):
    seen = Behaviour(refuse=refuse)
    with serving(seen) as url:
        assert ask(url, tmp_path / "log", questions(6), json_schema=REPLY_SCHEMA, concurrency=1) == expected(6)
    assert len(seen.requests) == 6 + refused
    last = seen.requests[-1]
    assert last.get("response_format", {}).get("type") == format_in_the_end
    assert last.get("max_tokens") == 100 or last["max_completion_tokens"] == 100


def test_what_one_request_has_to_do_without_the_others_keep(tmp_path):
    third = "question 3"
    seen = Behaviour(refuse=lambda body: "response_format" in body and body["messages"][0]["content"] == third and "no")
    with serving(seen) as url:
        assert ask(url, tmp_path / "log", questions(6), json_schema=REPLY_SCHEMA, concurrency=1) == expected(6)
    formats = [body.get("response_format", {}).get("type") for body in seen.requests]
    assert formats == ["json_schema"] * 4 + ["json_object", None] + ["json_schema"] * 2


SCRIPT = """
import json, pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored from the start where pytest runs behind nohup
from acelib.core.sections import Remote
from acelib.models import SamplingParams, connect, remote_replies
address, log, limits, params, asked = sys.argv[1], pathlib.Path(sys.argv[2]), *map(json.loads, sys.argv[3:])
remote_replies(connect(address, Remote(**limits), log), asked, SamplingParams(**params))
"""


@pytest.mark.parametrize(
    ("concurrency", "stop"), [(1, signal.SIGKILL), (3, signal.SIGKILL), (3, signal.SIGINT)], ids=["1", "3", "Ctrl-C"]
)
@pytest.mark.slow
def test_a_stopped_process_goes_on_without_paying_twice(tmp_path, concurrency, stop):
    seen, log = Behaviour({6: "hang", 7: "hang", 8: "hang"}), tmp_path / "log"
    with serving(seen) as url:
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                SCRIPT,
                f"{url}#m",
                str(log),
                json.dumps(FREE | {"concurrency": concurrency}),
                json.dumps(SAMPLING),
                json.dumps(questions(12)),
            ],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while len(seen.requests) < 6 + concurrency and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(ArtifactError, match="Another process writes to"):
            ask(url, log, questions(12))
        child.send_signal(stop)
        assert child.wait(timeout=120) == -stop
        assert len(records(log)) == 6  # what was answered is there, although nobody was told to stop
        log.write_bytes(log.read_bytes() + b'{"key": "torn')
        seen.faults.clear()
        assert ask(url, log, questions(12)) == expected(12)
    assert seen.paid == Counter({f"question {i}": 1 for i in range(12)})
    assert len(records(log)) == 12


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_cap_stops_before_the_request_that_could_exceed_it(tmp_path, concurrency):
    # One reply costs 100 x $10 + 50 x $1,000 per million, $0.051; at most it can cost about $0.1 + $0.0045.
    prices = dict(dollars_per_million_input=10.0, dollars_per_million_output=1000.0, concurrency=concurrency)
    seen, log = Behaviour(delay=0.01), tmp_path / "log"
    with serving(seen) as url:
        with pytest.raises(
            EngineError, match=r"could cost \$0\.10.*max_dollars = 0\.5 .* raise it .*command .\d of 20 repl"
        ):
            ask(url, log, questions(20), max_dollars=0.5, **prices)
        spent = sum(line["dollars"] for line in records(log))
        assert 0.5 - 0.106 < spent <= 0.5 and len(seen.requests) == len(records(log)) == round(spent / 0.051)
        with pytest.raises(EngineError, match="are spent"):
            ask(url, log, questions(20), max_dollars=0.5, **prices)
        assert len(seen.requests) == len(records(log))
        assert ask(url, log, questions(20), max_dollars=2.0, **prices) == expected(20)
    assert set(seen.paid.values()) == {1}


def test_replies_without_usage_and_lost_ones_count_at_their_highest_price(tmp_path):
    seen, log = Behaviour({0: answer("a", usage=None), 1: "close"}), tmp_path / "log"
    with serving(seen) as url:
        ask(url, log, questions(2), concurrency=1, max_dollars=1, dollars_per_million_output=1000.0)
    assert [line["dollars"] for line in records(log)] == pytest.approx([0.1, 0.1, 0.05])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ((401, {}, f"Incorrect API key provided: {KEY}"), "refuses the key .401.; put a valid one into .*_API_KEY"),
        ((404, {}, "The model does not exist"), "has no model 'm' .404.; the address .* http://host/v1#model"),
        ((429, {}, {"message": "Pay.", "code": "insufficient_quota"}), "no credit left; top it up .*0 of 3 replies"),
        ((405, {}, f"no POST, {KEY}"), r"refuses 'q0' .*no POST, \*\*\*.*; mend the values"),
        ((400, {}, f"what is this, {KEY}"), r"refuses 3 of 3 questions, .*'400: what is this, \*\*\*'; mend"),
        ((400, {}, {"message": "at most 1", "param": "temperature"}), "refuses 'q0' .*at most 1.*; mend the values"),
        ((400, {}, "Model Not Exist"), "has no model 'm' .400.; the address"),
        ((500, {}, "out of memory"), "failed 2 times in a row, last with 500; .* repeat the command"),
        ("close", "failed 2 times in a row, last with RemoteProtocolError; .* repeat the command .0 of 3"),
        ("junk", "failed 2 times in a row, last with NoReply"),
        (
            (429, {"Retry-After": "7200"}, "tomorrow"),
            "failed 1 times in a row, last with 429 and Retry-After: 7200; when it is well",
        ),
    ],
    ids=[
        "401",
        "404",
        "no credit",
        "405",
        "400",
        "bad value",
        "no model",
        "500",
        "closes",
        "no reply in the answer",
        "closed for hours",
    ],
)
def test_what_cannot_be_mended_is_one_sentence_without_the_key(tmp_path, fault, said):
    seen, log = Behaviour(dict.fromkeys(range(9), fault)), tmp_path / "log"
    with serving(seen) as url, pytest.raises(EngineError, match=said) as caught:
        ask(url, log, questions(3), concurrency=1, max_retries=1)
    shown = "".join(traceback.format_exception(caught.value)) + log.read_text()
    assert KEY not in shown and str(caught.value).count(". ") == 0
    assert "During handling" not in shown


FILTERED = {"message": "The prompt triggered our content management policy.", "code": "content_filter"}
TOO_LONG = {"message": "This model's maximum context length is 2048 tokens, not 'max_completion_tokens'", "code": 400}


class Choosy(Behaviour):
    """Refuses the questions in `refused` (number: what is said, or (status, what is said)), each time."""

    def __init__(self, refused, **options):
        super().__init__(**options)
        self.refused = refused

    def fault(self, number, body):
        said = self.refused.get(int(body["messages"][0]["content"].split()[1]))
        return said and ((*said[:1], {}, said[1]) if isinstance(said, tuple) else (400, {}, said))


def test_what_concerns_one_request_is_an_empty_reply_that_is_told_of_and_not_asked_again(tmp_path, capsys):
    refused = {
        0: FILTERED,
        3: TOO_LONG,
        5: "what is this?",
        6: (403, "Your input was flagged"),
        7: (413, "too large"),
        8: (422, FILTERED),
    }
    seen, log = Choosy(refused), tmp_path / "log"
    wanted = expected(30) | {f"q{number}": [""] for number in refused}
    prices = dict(max_dollars=9, dollars_per_million_output=1000.0)
    with serving(seen) as url:
        for _ in range(2):
            assert ask(url, log, questions(30), json_schema=REPLY_SCHEMA, **prices) == wanted
            assert "6 of 30 requests were refused" in (said := capsys.readouterr().out) and "content_filter: " in said
    # What is not known to concern one request may be the schema that the server does not like.
    assert len(seen.requests) == 24 + len(refused) + 2
    why = {line["id"]: line for line in records(log) if "refused" in line}
    assert why.keys() == {f"q{number}" for number in refused} and all(not line["dollars"] for line in why.values())
    assert why["q0"]["refused"] == "content_filter: The prompt triggered our content management policy."
    assert why["q5"]["refused"] == "400: what is this?" and why["q0"]["reply"] == ""


class Failing(Choosy):
    """Fails on question 2; of the others, a few get through after each failure, or all at once."""

    def __init__(self, paced):
        super().__init__({2: (500, "CUDA error")})
        self.paced, self.failed = paced, 0

    def fault(self, number, body):
        if fault := super().fault(number, body):
            self.failed += 1
        while not fault and self.paced and self.failed < min(3, int(body["messages"][0]["content"][9:]) // 10):
            time.sleep(0.005)
        return fault


@pytest.mark.parametrize("paced", [True, False], ids=["among others", "the last of all"])
def test_a_request_on_which_the_server_fails_each_time_is_left_out(tmp_path, paced):
    seen = Failing(paced)
    with serving(seen) as url:
        replies = ask(url, tmp_path / "log", questions(40), concurrency=3, max_retries=2)
    assert replies == expected(40) | {"q2": [""]} and seen.failed == 3
    assert [line["refused"] for line in records(tmp_path / "log") if "refused" in line] == ["3 failures, last 500"]


def test_a_server_that_does_nothing_but_refuse_is_asked_again_when_it_is_mended(tmp_path):
    seen, log = Choosy(dict.fromkeys(range(400), TOO_LONG)), tmp_path / "log"
    with serving(seen) as url:
        with pytest.raises(
            EngineError, match=r"refuses 20 of 400 questions, .*maximum context.* repeat the command .0 of 800 replies"
        ):
            ask(url, log, questions(400), n=2)
        assert len(seen.requests) <= 2 * 24 and not records(log)
        seen.refused = dict.fromkeys(range(5, 400), "the upstream model has gone")
        with pytest.raises(
            EngineError, match=r"refuses 20 of 400 questions, .*gone.* repeat the command .5 of 400 replies"
        ):
            ask(url, log, questions(400), concurrency=1)
        seen.refused = {}
        assert ask(url, log, questions(400)) == expected(400)


def test_many_refusals_among_answers_stop_until_the_profile_allows_them(tmp_path):
    seen, log = Choosy(dict.fromkeys(range(0, 300, 3), FILTERED)), tmp_path / "log"
    with serving(seen) as url:
        for _ in range(2):  # no repetition gets round it
            with pytest.raises(EngineError, match=r"refuses 3\d of 300 questions, .*or raise remote.max_refused"):
                ask(url, log, questions(300))
        replies = ask(url, log, questions(300), max_refused=0.4)
    assert sum(texts == [""] for texts in replies.values()) == 100 and set(seen.paid.values()) == {1}


def test_questions_without_a_reply_are_dropped_and_counted_and_programs_without_one_pass_nothing(tmp_path):
    seeds = [{"id": str(i), "source": "s", "program": f"question {i} "} for i in range(2)]
    params, log = SamplingParams(temperature=0.7, max_new_tokens=9, batch_size=2, seed=0), tmp_path / "unused"
    seen = Choosy({1: FILTERED})
    seen.reply = lambda body: json.dumps({"question": body["messages"][0]["content"], "tests": ["assert f(1) == 2"]})
    with serving(seen) as url:
        server = connect(f"{url}#m", Remote(**FREE), tmp_path / "log")
        problems, counts = problems_from_replies(imagine(server, None, seeds, params, prompt="{program}", log=log))
        assert [one.id for one in problems] == ["0"] and counts["replies: it is empty"] == 1
        seen.refused, seen.reply = {1: TOO_LONG}, lambda body: "def f(x):\n    return x + 1\n"
        problems = [Problem(str(i), f"question {i}", "f", ("assert f(1) == 2",)) for i in range(2)]
        programs = proxy_programs(server, None, problems, params, prompt="{question}", log=log)
    with Judge(workers=1) as judge:
        passed = passed_tests(judge_programs(judge, problems, programs))
    assert passed == [[True], [False]] and filter_problems(problems, passed, 1) == problems[:1]


@pytest.mark.parametrize("choices", [{"a": 1}, [{"message": {"content": [{"text": "x"}]}}], "text"])
def test_an_answer_of_an_odd_form_is_asked_for_again(tmp_path, choices):
    seen = Behaviour({0: {"choices": choices}})
    with serving(seen) as url:
        assert ask(url, tmp_path / "log", questions(2), concurrency=1) == expected(2)
    odd_usage = answer("x") | {"usage": {"prompt_tokens": "many", "completion_tokens": None}}
    with serving(Behaviour({0: odd_usage})) as url:
        assert ask(url, tmp_path / "second", questions(1)) == {"q0": ["x"]}


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(EngineError, match="cannot be reached; start it, or correct its address") as caught:
        ask("http://127.0.0.1:9/v1", tmp_path / "log", questions(3))
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_dies_is_waited_for_and_one_that_comes_back_goes_on(tmp_path):
    seen, log = Behaviour(stop_after=5), tmp_path / "log"
    said = "failed 2 times in a row.*repeat the command .5 of 9 replies are kept in"
    with serving(seen) as url, pytest.raises(EngineError, match=said):
        ask(url, log, questions(9), max_retries=1)
    with serving(again := Behaviour()) as url:
        assert ask(url, log, questions(9)) == expected(9)
    assert seen.paid + again.paid == Counter({f"question {i}": 1 for i in range(9)})


SHORT_LIVED = """
import os, signal, time
from fake_server import Behaviour, serving

class Mortal(Behaviour):
    def fault(self, number, body):
        if sum(self.paid.values()) >= 3000:
            os.kill(os.getpid(), signal.SIGKILL)

with serving(Mortal()) as url:
    print(url, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_server_that_dies_among_thousands_costs_the_requests_in_flight(tmp_path):
    count, log, concurrency = 4000, tmp_path / "log", 8
    server = subprocess.Popen([sys.executable, "-c", SHORT_LIVED], cwd=ROOT / "tests", stdout=subprocess.PIPE)
    url = server.stdout.readline().decode().strip()
    said = "failed 2 times in a row, last with ConnectError; when it is well again repeat .* of 4,000 replies"
    with server, pytest.raises(EngineError, match=said):
        ask(url, log, questions(count), concurrency=concurrency, max_retries=1)
    kept = {line["id"] for line in records(log) if "reply" in line}
    # Replies that other threads had begun may still get out, or be lost.
    assert server.returncode == -signal.SIGKILL and abs(len(kept) - 3000) <= concurrency
    with serving(again := Behaviour()) as url:
        assert ask(url, log, questions(count), concurrency=concurrency) == expected(count)
    missing = questions(count).keys() - kept
    assert again.paid == Counter({f"question {name[1:]}": 1 for name in missing})


FULL = """
import sys
from collections import Counter
from pathlib import Path
from test_remote import Behaviour, ask, questions, serving
from acelib.core.errors import FullDiskError
from acelib.core.files import full_disk_explained
disk, count, concurrency = Path(sys.argv[1]), 30, 3
filler, seen = disk / "filler", Behaviour()
seen.reply = lambda body: "x" * 50_000
filler.write_bytes(bytes(2**20 - 400_000))  # room for seven replies or eight
with serving(seen) as url:
    try:
        with full_disk_explained(disk / "log"):
            ask(url, disk / "log", questions(count), concurrency=concurrency)
    except FullDiskError as error:
        print(error)
    first = seen.paid.total()
    filler.unlink()
    try:
        ask(url, disk / "log", questions(15), concurrency=concurrency)
    finally:
        print(first, max(seen.paid.values()), sum(paid - 1 for paid in seen.paid.values()))
"""


@pytest.mark.slow
def test_replies_that_a_full_disk_cannot_take_are_those_in_flight(tmp_path):
    disk = tmp_path / "disk"
    ended = subprocess.run(
        [*on_small_disk(disk, mebibytes=1), sys.executable, "-c", FULL, str(disk)],
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    said, counts = ended.stdout.splitlines()
    assert said.startswith("The disk is full: log could not be written to") and "Make room there" in said
    first, most, twice = map(int, counts.split())
    assert 7 <= first < 15 and most <= 2 and twice <= 3


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://host:8000/v1", "names no model; write http://host:8000/v1#model"),
        ("http:///v1#m", "names no model"),
        ("http://host:abc/v1#m", "is no address .*; write http://host:8000/v1#model"),
        ("http://[::1/v1#m", "is no address"),
        ("https://user:pass@host/v1#m", "OPENAI_API_KEY"),
        ("https://host/v1?api_key=pass#m", "OPENAI_API_KEY"),
    ],
)
def test_addresses_say_which_model_and_nothing_secret(tmp_path, address, said):
    with pytest.raises(EngineError, match=said) as caught:
        connect(address, Remote(**FREE), tmp_path / "log")
    assert "pass" not in str(caught.value)


def test_a_damaged_log_is_named(tmp_path):
    (tmp_path / "log").write_text("not a record\n")
    with pytest.raises(ArtifactError, match="has a line that is no record, .*not a record.*; remove it"):
        ask("http://127.0.0.1:9/v1", tmp_path / "log", questions(1))
    (tmp_path / "log").write_text('{"id": "q0", "replies": ["x"]}\n')
    with pytest.raises(ArtifactError, match="has a line that is no reply, .*q0.*; remove it"):
        ask("http://127.0.0.1:9/v1", tmp_path / "log", questions(1))


def test_a_profile_decides_and_the_notebooks_code_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "generate", lambda *_, **__: pytest.fail("the local engine was asked"))
    seen = Behaviour()
    seen.reply = lambda body: json.dumps({"question": body["messages"][0]["content"], "tests": ["assert f(1) == 2"]})

    def replies(url, prompt="{program}", **limits):
        overrides = {"models.teacher": f"{url}#org/m", "prompts.teacher": prompt}
        overrides |= {f"remote.{name}": value for name, value in (FREE | limits).items()}
        run = Run(tmp_path, load_profile("pocket", overrides))

        def ask_teacher(scratch):  # as in notebook 1
            models = run.profile.models
            name = run.profile.resolve(models.teacher)
            return imagine(
                load_policy(name, models.dtype, models.device, run.remote),
                load_tokenizer(name),
                [{"id": "a", "source": "s", "program": "x"}],
                SamplingParams.of(run.profile.synthesis, seed=run.profile.seed),
                prompt=run.profile.prompts.teacher,
                log=scratch / "replies.jsonl",
            )

        return run.table("replies", ask_teacher)

    with serving(seen) as url:
        first = replies(url)
        assert problems_from_replies(first)[0][0].question.startswith("x.") and seen.requests[0]["model"] == "org/m"
        assert replies(url, concurrency=2, max_dollars=9) == first and len(seen.requests) == 1
        assert replies(url, prompt="new {program}") != first and len(seen.requests) == 2
        assert replies(url) == first and len(seen.requests) == 2, "the log outlives the artefact"
    with pytest.raises(ModelError, match="this stage needs the weights; name a model folder"):
        load_policy(f"{url}#m")


def test_it_works_inside_a_running_event_loop_as_notebooks_have_one(tmp_path):
    async def cell(url):
        return ask(url, tmp_path / "log", questions(3))

    with serving(Behaviour()) as url:
        assert asyncio.run(cell(url)) == expected(3)
