import ast

import pytest

from acelib.core import CourseError
from acelib.extraction import EXTRACTIONS, extract_program

CODE = "def f(x):\n    return x + 1\n"


@pytest.mark.parametrize(
    "reply",
    [
        CODE,
        f"```python\n{CODE}```",
        f"```\n{CODE}```",
        f"~~~python\n{CODE}~~~",
        f"Sure! Here is the function:\n\n```python\n{CODE}```\nIt adds one to its argument. Hope this helps!",
        f"Sure! Here is the function:\n\n{CODE}\nThis function adds one to x.\n",
        f"```python\n{CODE}",
        f"```python\r\n{CODE.replace(chr(10), chr(13) + chr(10))}```",
        f"1. The code:\n\n    ```python\n{'    ' + CODE.strip().replace(chr(10), chr(10) + '    ')}\n    ```\n",
        f"<think>maybe\n```python\ndef f(x): return 0\n```\n</think>```python\n{CODE}```",
        f"```python\n{CODE}```\nUsage:\n```python\nprint(f(1))\n```",
        f"Install it:\n```bash\npip install nothing\n```\n```python\n{CODE}```",
        f"First try:\n```python\ndef f(x):\n    return x\n```\nThat is wrong, so:\n```python\n{CODE}```",
        f"Helper:\n```python\ndef g(x):\n    return x\n```\nAnswer:\n```python\n{CODE}```",
    ],
)
def test_one_program_in_many_wrappings(reply):
    assert extract_program(reply, "f").strip() == CODE.strip()


def test_without_entry_point_the_first_defining_block_is_taken():
    assert extract_program(f"```python\nprint(1)\n```\n```python\n{CODE}```") == CODE


def test_fences_in_a_docstring_of_bare_code_are_no_blocks():
    code = 'def f(x):\n    """Add one.\n\n    ```\n    f(1)\n    ```\n    """\n    return x + 1\n'
    assert extract_program(code, "f") == extract_program(code) == code
    assert extract_program(f"Here it is:\n{code}That is all.", "f") == code


@pytest.mark.parametrize("piece", ["```\n", "````\n", "```python\nx x\n```\n", "def f(x):\n  ```\n"])
def test_a_loop_of_fences_is_not_parsed_again_and_again(piece, monkeypatch):
    calls, parse = [], ast.parse
    monkeypatch.setattr(ast, "parse", lambda *args, **named: calls.append(1) or parse(*args, **named))
    extract_program("```python\nif True:\nno no\n" + 500 * piece, "f")
    assert len(calls) < 10_000


@pytest.mark.parametrize("tag", ["ipython", "code", "text"])
def test_without_entry_point_a_block_in_another_language_is_better_than_none(tag):
    assert extract_program(f"```{tag}\n{CODE}```") == CODE


def test_rambling_after_the_function_is_cut():
    reply = CODE + "\nThe answer is therefore 3 and\nHuman: now write another one\ndef g(:\n"
    assert extract_program(reply, "f").strip() == CODE.strip()


def test_a_broken_off_reply_keeps_its_complete_beginning():
    reply = f"```python\n{CODE}\n@cache\ndef g(x):\n    return [x,"
    program = extract_program(reply, "f")
    assert program.startswith(CODE) and "@cache" not in program


def test_imports_and_helpers_stay_with_the_function():
    code = "import math\n\nK = 3\n\ndef helper(x):\n    return math.sqrt(x)\n\ndef f(x):\n    return helper(x) * K\n"
    assert extract_program(f"Here:\n{code}", "f") == code


@pytest.mark.parametrize(
    "reply", ["", "   \n", "I cannot do that.", "```\n```", "<think>endless", "```json\n{}\n```", "hello", "x\x00y"]
)
def test_no_program(reply):
    assert extract_program(reply, "f") is None


def test_deep_nesting_is_no_crash():
    assert extract_program("x = " + "(" * 100_000, "f") is None


def test_surrogates_and_null_bytes_are_no_crash():
    assert extract_program("```python\ndef f(x):\n    return '\ud800'\n```", "f") is None
    assert extract_program("def f(x):\n    return '\x00'\n", "f") is None


@pytest.mark.parametrize(
    "reply",
    [
        f"{CODE}```\n",
        f"{CODE}```\nUsage:\n```\nf(1)\n```\n",
        f"```\n```\n{CODE}```\n```",
        f"{CODE.rstrip()}```",
        f"```python\n{CODE.rstrip()}```",
        f"Maybe\n```python\ndef f(x): return 0\nhmm\n</think>\nSo:\n```python\n{CODE}```",
        f"```\n1 2\n```\nso\n</thinking>\n{CODE}",
        f"<Reasoning>\ndef f(x): return 0\n</Reasoning>\n{CODE}",
        f"```Python3\n{CODE}```\nCall:\n```\nf(1)\n```",
        f"```py title=a.py\n{CODE}```",
        f"```python here you are\n{CODE}```",
        f"```python {CODE}```",
        f"```text\n{CODE}```",
        f"````markdown\n```python\n{CODE}```\n````",
        f"\ufeff{CODE}",
        f"```python\n\ufeff{CODE}```",
        f"{CODE}<|im_end|>",
        f"{CODE.rstrip()}<|endoftext|>\n",
        f"[CODE]\n{CODE}[/CODE]",
        f"{CODE}\nFertig\n",
        f"{CODE}\n結束\n",
        f"{CODE}\n以上です。\n",
        f"{CODE}\nno, wrong\nAnswer: correct\n",
        f"{CODE}return f(1)\n",
        f"```python\n{CODE}```\nTemplate:\n```python\ndef f(x):\n    pass\n```",
        f"import math\nThe function is:\n{CODE}",
    ],
)
def test_stray_fences_markers_and_words(reply):
    assert extract_program(reply, "f").strip() == CODE.strip()


def test_a_fence_inside_a_docstring_is_part_of_the_code():
    for indent in ("    ", ""):
        code = f'def f(x):\n    """Add one.\n\n{indent}```\n    f(1)\n{indent}```\n    """\n    return x + 1\n'
        assert extract_program(f"```python\n{code}```\nThat is all.", "f") == code


@pytest.mark.parametrize(
    ("helper", "body"),
    [("def g(x):\n    return x\n", "g(x)"), ("K = 3\n", "x + K"), ("import numpy as np\n", "np.add(x, 1)")],
)
def test_what_the_chosen_piece_lacks_comes_from_another(helper, body):
    code = f"def f(x):\n    return {body}\n"
    assert extract_program(f"First:\n```python\n{helper}```\nthen\n```python\n{code}```", "f") == f"{helper}\n{code}"
    assert extract_program(f"{helper}\nand then\n{code}", "f").split() == f"{helper}\n{code}".split()


NUMBERED = "1 | def f(x):\n2 |     return x + 1\n"
DISGUISES = {
    "no-break spaces": CODE.replace(" ", "\xa0"),
    "signs of another keyboard": CODE.replace("(x):", "（x）："),
    "line separators": CODE.replace("\n", "\u2028"),
    "a session": "```\n>>> def f(x):\n...     return x + 1\n```",
    "a notebook's session": "In [1]: def f(x):\n   ...:     return x + 1\n",
    "line numbers": f"```python\n{NUMBERED}```",
    "other line numbers": NUMBERED.replace(" |", ":"),
    "a quotation": "> ```python\n> def f(x):\n>     return x + 1\n> ```",
    "a diff": "```diff\n--- a\n+++ b\n@@ -1,2 +1,2 @@\n def f(x):\n-    return x\n+    return x + 1\n```",
    "HTML": "<pre><code>def f(x):\n    return x &#43; 1\n</code></pre>",
    "JSON": '{"thought": "add one", "code": "def f(x):\\n    return x + 1\\n"}',
    "escapes": "def f(x):\\n    return x + 1",
    "a notebook": '{"cells": [{"source": ["def f(x):\\n", "    return x + 1\\n"]}]}',
    "inline code": "Use `def f(x): return x + 1`.",
    "words before it": f"Sure! {CODE}",
    "indentation": "Here it is:\n\n    def f(x):\n        return x + 1\n\nDone.",
    "words after a fence": f"{CODE.rstrip()}``` Hope this helps!",
    "a marker before it": f"<s>{CODE}</s>",
    "colours": f"\x1b[32m{CODE}\x1b[0m",
    "magic": f"```python\n%time\n!pip install numpy\n{CODE}```",
}


@pytest.mark.parametrize("name", DISGUISES)
def test_programs_in_disguise(name):
    assert ast.unparse(ast.parse(extract_program(DISGUISES[name], "f"))) == CODE.strip()


def test_no_disguise_makes_a_program_of_chat():
    for reply in ("1. Hello\n2. World\n", "> nothing = 0\n", '{"answer": "x = 1"}', "Use `x = 1`.", "$ ls\n+ a\n- b"):
        assert extract_program(reply, "f") is None


def test_not_a_string():
    with pytest.raises(CourseError, match="as a string"):
        extract_program(None)


def test_other_ways_to_find_the_program():
    reply = "Try:\n```python\nf = \n```\nor better\n```python\ndef f(x):\n    return x\n```\n"
    found = {name: extract(reply, "f") for name, extract in EXTRACTIONS.items()}
    assert found == {"extract_program": "def f(x):\n    return x\n", "first_block": "f = \n", "whole_reply": reply}
    assert EXTRACTIONS["first_block"]("no code", "f") is None and EXTRACTIONS["whole_reply"](" \n") is None
