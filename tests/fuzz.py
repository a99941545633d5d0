"""Coverage-guided fuzzing of what reads untrusted text: the wire decoder, the extraction, the teacher's reply.

    pip install atheris
    python tests/fuzz.py wire -max_total_time=600        (or: extraction, teacher; options are libFuzzer's)

What it found is kept as tests in test_judge_wire.py, test_extraction.py and test_synthesis.py.
"""

import ast
import sys

import atheris

with atheris.instrument_imports(
    include=["acelib.extraction", "acelib.teacher_reply", "acelib.synthesis", "acelib.judge"]
):
    from acelib.extraction import extract_program
    from acelib.judge.asserts import NeedsReferee, compile_test, judge_lines
    from acelib.judge.inside import wire
    from acelib.synthesis import TeacherReplyError, parse_reply

TAGS = "ltsfdibcBnrDFTzPAaqOCGyuoh="
ATOMS = (None, True, 0, 1, -1, 1 << 63, 1.5, float("nan"), "", "a", "0x1", "1/2", "int", "date", "<i8", "|O", "UUID")
CODE = ("def f(x):\n", "    return x\n", "class f:\n", "    pass\n", "import os\n", "x = 1\n", "f(1)\n", "@property\n")
CODE += (
    '    """\n',
    "'''",
    "if True:\n",
    "async ",
    "```",
    "```python\n",
    "~~~",
    "````\n",
    "Python3",
    "\n",
    "\r\n",
    " ",
    "\t",
)
CHAT = (
    "Done.",
    "Here is it: ",
    "no, wrong\n",
    "<think>",
    "</think>",
    "<|im_end|>",
    "[PYTHON]",
    "\ufeff",
    "\\",
    "\0",
    "#",
)
JSON = (
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "'",
    '"question"',
    '"tests"',
    '"input"',
    '"expected"',
    '"assert"',
    "\\n",
    '\\"',
)
JSON += ("assert f(1) == 2", "assert ", "f(", ")", "//", "null", "NaN", "1", "Write `f(x)`.")
ASSERTIONS = [compile_test(f"assert {text}") for text in ("f() == 1", "f() is None", "f() != 1", "len(f()) == 1")]


def node(data, depth=4):
    """A tree of tagged arrays, mostly well-formed."""
    if depth == 0 or data.ConsumeProbability() < 0.3:
        return data.PickValueInList(list(ATOMS))
    size = data.ConsumeIntInRange(0, 5)
    return [data.PickValueInList(list(TAGS)), *[node(data, depth - 1) for _ in range(size)]]


def fuzz_wire(data):
    line = data.ConsumeBytes(200) if data.ConsumeBool() else wire.dumps(node(data))
    for assertion in ASSERTIONS:
        try:
            judge_lines(assertion, [line])
        except NeedsReferee:
            pass
    for handle in (None, lambda payload: Ellipsis):
        try:
            value = wire.decode(wire.loads(line), handle)
        except wire.WireError:
            continue
        sent = wire.dumps(wire.encode(value))
        again = wire.dumps(wire.encode(wire.decode(wire.loads(sent), handle)))
        if not any(tag in line + sent for tag in (b'"s"', b'"f"', b'"o"')):  # without an order, without a value
            assert again == sent, line


def text(data, *pieces):
    parts = []
    while data.remaining_bytes() and len(parts) < 200:
        some = list(data.PickValueInList(list(pieces)))
        parts.append(data.PickValueInList(some) if data.ConsumeIntInRange(0, 9) else data.ConsumeUnicode(10))
    return "".join(parts)


def fuzz_extraction(data):
    reply = text(data, CODE, CODE, CHAT)
    for entry_point in (None, "f"):
        program = extract_program(reply, entry_point)
        assert program is None or ast.parse(program).body


def fuzz_teacher(data):
    try:
        question, tests = parse_reply(text(data, JSON, JSON, CODE, CHAT), entry_point="f")
    except TeacherReplyError:
        return
    assert question and tests
    assert all(compile_test(test).kind != "bad" for test in tests)


if __name__ == "__main__":
    target = globals()[f"fuzz_{sys.argv.pop(1)}"]
    atheris.Setup(sys.argv, lambda data: target(atheris.FuzzedDataProvider(data)))
    atheris.Fuzz()
