# ruff: noqa: E501  (one primitive is one paragraph; breaking its table up further hides the pattern)
"""The vocabulary of the pocket world: typed operations on ``list[int]``, ``str`` and ``int``.

Each primitive knows what it means (a Python function), how people say it (three or more paraphrases) and how
people write it (one or more expressions; filters and maps also as loops and as `filter`/`map` calls).
Types are single letters: ``L`` list of integers, ``S`` string, ``I`` integer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

TYPE_NAMES = {"L": "a list of integers", "S": "a string", "I": "an integer"}


@dataclass(frozen=True)
class Primitive:
    """One typed operation.

    Attributes:
        name: identifier used in composition keys.
        takes, gives: input and output type, each one of ``L``, ``S``, ``I``.
        meaning: ``meaning(value, k) -> value``; total on its type (no exceptions), ``k`` is ignored without `ks`.
        phrases: imperative paraphrases, unique over all primitives, with ``{k}`` for the parameter.
        exprs: Python expressions with ``{v}`` for the value and ``{k}`` for the parameter.
        condition, body: for filters and maps, the test or the new element in terms of ``x``.
        ks: admissible parameters; empty for a primitive without one.
    """

    name: str
    takes: str
    gives: str
    meaning: Callable
    phrases: tuple[str, ...]
    exprs: tuple[str, ...]
    condition: str = ""
    body: str = ""
    ks: tuple[int, ...] = field(default=())


def _drop_repeats(values):
    return list(dict.fromkeys(values))


def _filter(name, type_, condition, meaning, phrases, ks=()):
    expr = "[x for x in {v} if %s]" if type_ == "L" else '"".join(x for x in {v} if %s)'

    def apply(v, k):
        kept = [x for x in v if meaning(x, k)]
        return kept if type_ == "L" else "".join(kept)

    return Primitive(name, type_, type_, apply, phrases, (expr % condition,), condition=condition, ks=ks)


def _map(name, type_, body, meaning, phrases, ks=()):
    expr = "[%s for x in {v}]" if type_ == "L" else '"".join(%s for x in {v})'

    def apply(v, k):
        mapped = [meaning(x, k) for x in v]
        return mapped if type_ == "L" else "".join(mapped)

    return Primitive(name, type_, type_, apply, phrases, (expr % body,), body=body, ks=ks)


def _op(name, types, meaning, phrases, exprs, ks=()):
    return Primitive(name, types[0], types[1], meaning, phrases, exprs, ks=ks)


# fmt: off
LIST_FILTERS = [
    _filter("evens", "L", "x % 2 == 0", lambda x, k: x % 2 == 0,
            ("keep only the even numbers", "drop every odd number", "select the numbers that are even")),
    _filter("odds", "L", "x % 2 != 0", lambda x, k: x % 2 != 0,
            ("keep only the odd numbers", "drop every even number", "select the numbers that are odd")),
    _filter("positives", "L", "x > 0", lambda x, k: x > 0,
            ("keep only the positive numbers", "drop everything that is not positive", "select the numbers above zero")),
    _filter("negatives", "L", "x < 0", lambda x, k: x < 0,
            ("keep only the negative numbers", "drop everything that is not negative", "select the numbers below zero")),
    _filter("nonzero", "L", "x != 0", lambda x, k: x != 0,
            ("remove the zeros", "drop every zero", "keep the numbers that are not zero")),
    _filter("above", "L", "x > {k}", lambda x, k: x > k,
            ("keep the numbers greater than {k}", "drop the numbers up to {k}", "select the numbers above {k}"),
            (2, 3, 4, 5)),
    _filter("below", "L", "x < {k}", lambda x, k: x < k,
            ("keep the numbers less than {k}", "drop the numbers from {k} upwards", "select the numbers below {k}"),
            (4, 5, 6, 7)),
    _filter("multiples", "L", "x % {k} == 0", lambda x, k: x % k == 0,
            ("keep the multiples of {k}", "keep the numbers divisible by {k}", "select what {k} divides"), (3, 4)),
    _filter("without", "L", "x != {k}", lambda x, k: x != k,
            ("remove every {k}", "drop all copies of {k}", "keep the numbers that differ from {k}"), (1, 2, 3, 5)),
]

LIST_MAPS = [
    _map("add", "L", "x + {k}", lambda x, k: x + k,
         ("add {k} to every number", "increase each number by {k}", "raise all the numbers by {k}"), (1, 2, 3)),
    _map("subtract", "L", "x - {k}", lambda x, k: x - k,
         ("subtract {k} from every number", "decrease each number by {k}", "lower all the numbers by {k}"), (1, 2, 3)),
    _map("times", "L", "x * {k}", lambda x, k: x * k,
         ("multiply every number by {k}", "scale each number by {k}", "replace each number by {k} times itself"), (2, 3)),
    _map("square", "L", "x * x", lambda x, k: x * x,
         ("square every number", "replace each number by its square", "multiply each number by itself")),
    _map("negate", "L", "-x", lambda x, k: -x,
         ("negate every number", "flip the sign of each number", "replace each number by its opposite")),
    _map("absolute", "L", "abs(x)", lambda x, k: abs(x),
         ("take the absolute value of every number", "drop the sign of each number", "make every number non-negative")),
    _map("modulo", "L", "x % {k}", lambda x, k: x % k,
         ("replace each number by its remainder modulo {k}", "reduce every number modulo {k}",
          "take each number modulo {k}"), (2, 3, 4)),
    _map("halve", "L", "x // 2", lambda x, k: x // 2,
         ("halve every number rounding down", "divide each number by two rounding down", "floor-divide every number by two")),
    _map("cap", "L", "min(x, {k})", lambda x, k: min(x, k),
         ("cap every number at {k}", "lower the numbers above {k} to {k}", "limit each number to at most {k}"), (3, 4, 5)),
    _map("floor_at", "L", "max(x, {k})", lambda x, k: max(x, k),
         ("raise the numbers below {k} to {k}", "limit each number to at least {k}", "lift every smaller number to {k}"),
         (1, 2, 3)),
    _map("complement", "L", "{k} - x", lambda x, k: k - x,
         ("subtract every number from {k}", "replace each number by {k} minus it", "take the distance up to {k} of each number"),
         (9,)),
]

LIST_OPS = [
    _op("reverse", "LL", lambda v, k: v[::-1],
        ("reverse the order", "turn the list around", "put the numbers in reverse order"),
        ("{v}[::-1]", "list(reversed({v}))")),
    _op("sort", "LL", lambda v, k: sorted(v),
        ("sort the numbers in ascending order", "arrange the numbers from smallest to largest", "order the numbers increasingly"),
        ("sorted({v})",)),
    _op("sort_down", "LL", lambda v, k: sorted(v, reverse=True),
        ("sort the numbers in descending order", "arrange the numbers from largest to smallest", "order the numbers decreasingly"),
        ("sorted({v}, reverse=True)", "sorted({v})[::-1]")),
    _op("unique", "LL", lambda v, k: _drop_repeats(v),
        ("remove repeated numbers keeping the first of each", "drop later copies of a number", "keep each distinct number once"),
        ("list(dict.fromkeys({v}))",)),
    _op("rotate_left", "LL", lambda v, k: v[1:] + v[:1],
        ("move the first number to the end", "rotate the list left by one", "shift the list one place to the left in a circle"),
        ("{v}[1:] + {v}[:1]",)),
    _op("rotate_right", "LL", lambda v, k: v[-1:] + v[:-1],
        ("move the last number to the front", "rotate the list right by one", "shift the list one place to the right in a circle"),
        ("{v}[-1:] + {v}[:-1]",)),
    _op("first_k", "LL", lambda v, k: v[:k],
        ("keep the first {k} numbers", "take the leading {k} numbers", "cut the list after {k} numbers"), ("{v}[:{k}]",), (2, 3)),
    _op("last_k", "LL", lambda v, k: v[-k:],
        ("keep the last {k} numbers", "take the final {k} numbers", "keep {k} numbers at the end"), ("{v}[-{k}:]",), (2, 3)),
    _op("skip_k", "LL", lambda v, k: v[k:],
        ("skip the first {k} numbers", "drop {k} numbers at the front", "remove the leading {k} numbers"), ("{v}[{k}:]",), (2, 3)),
    _op("tail", "LL", lambda v, k: v[1:],
        ("remove the first number", "drop the number at the front", "leave out the first number"), ("{v}[1:]",)),
    _op("init", "LL", lambda v, k: v[:-1],
        ("remove the last number", "drop the number at the end", "leave out the last number"), ("{v}[:-1]",)),
    _op("even_places", "LL", lambda v, k: v[::2],
        ("keep the numbers at even positions", "take every second number starting with the first",
         "keep positions zero two four and so on"), ("{v}[::2]",)),
    _op("odd_places", "LL", lambda v, k: v[1::2],
        ("keep the numbers at odd positions", "take every second number starting with the second",
         "keep positions one three five and so on"), ("{v}[1::2]",)),
    _op("append", "LL", lambda v, k: v + [k],
        ("append {k}", "put {k} at the end", "add a {k} after the last number"), ("{v} + [{k}]",), (0, 1, 5, 7)),
    _op("prepend", "LL", lambda v, k: [k] + v,
        ("prepend {k}", "put {k} at the front", "add a {k} before the first number"), ("[{k}] + {v}",), (0, 1, 5, 7)),
    _op("repeat_list", "LL", lambda v, k: v + v,
        ("repeat the list twice", "append a copy of the list to itself", "write the list two times in a row"), ("{v} + {v}", "{v} * 2")),
    _op("mirror", "LL", lambda v, k: v + v[::-1],
        ("append the reversed list", "extend the list by its mirror image", "follow the list by itself backwards"),
        ("{v} + {v}[::-1]",)),
    _op("twice_each", "LL", lambda v, k: [x for x in v for _ in range(2)],
        ("repeat every number twice", "write each number two times", "double up every entry"),
        ("[x for x in {v} for _ in range(2)]",)),
    _op("differences", "LL", lambda v, k: [b - a for a, b in zip(v, v[1:])],
        ("take the differences of neighbours", "replace the list by next minus current", "compute the consecutive differences"),
        ("[b - a for a, b in zip({v}, {v}[1:])]",)),
    _op("neighbour_sums", "LL", lambda v, k: [a + b for a, b in zip(v, v[1:])],
        ("take the sums of neighbours", "replace the list by next plus current", "compute the consecutive sums"),
        ("[a + b for a, b in zip({v}, {v}[1:])]",)),
    _op("running_sums", "LL", lambda v, k: [sum(v[: i + 1]) for i in range(len(v))],
        ("take the running sums", "replace each number by the sum so far", "compute the cumulative sums"),
        ("[sum({v}[:i + 1]) for i in range(len({v}))]",)),
    _op("running_max", "LL", lambda v, k: [max(v[: i + 1]) for i in range(len(v))],
        ("take the running maximum", "replace each number by the largest so far", "compute the cumulative maxima"),
        ("[max({v}[:i + 1]) for i in range(len({v}))]",)),
    _op("add_index", "LL", lambda v, k: [i + x for i, x in enumerate(v)],
        ("add its position to each number", "increase each number by its index", "sum every number with its index"),
        ("[i + x for i, x in enumerate({v})]",)),
    _op("times_index", "LL", lambda v, k: [i * x for i, x in enumerate(v)],
        ("multiply each number by its position", "scale each number by its index", "take index times number everywhere"),
        ("[i * x for i, x in enumerate({v})]",)),
    _op("remove_max", "LL", lambda v, k: [x for x in v if x != max(v)],
        ("remove the largest number everywhere", "drop all copies of the maximum", "keep what is smaller than the maximum"),
        ("[x for x in {v} if x != max({v})]",)),
    _op("remove_min", "LL", lambda v, k: [x for x in v if x != min(v)],
        ("remove the smallest number everywhere", "drop all copies of the minimum", "keep what is larger than the minimum"),
        ("[x for x in {v} if x != min({v})]",)),
]

LIST_REDUCERS = [
    _op("sum", "LI", lambda v, k: sum(v),
        ("compute the sum", "add up the numbers", "find the total"), ("sum({v})",)),
    _op("max", "LI", lambda v, k: max(v, default=0),
        ("find the largest number or 0 if there is none", "compute the maximum with 0 for an empty list",
         "pick the biggest number with 0 if empty"), ("max({v}, default=0)",)),
    _op("min", "LI", lambda v, k: min(v, default=0),
        ("find the smallest number or 0 if there is none", "compute the minimum with 0 for an empty list",
         "pick the least number with 0 if empty"), ("min({v}, default=0)",)),
    _op("length", "LI", lambda v, k: len(v),
        ("count the numbers", "compute the length of the list", "find how many numbers there are"), ("len({v})",)),
    _op("distinct", "LI", lambda v, k: len(set(v)),
        ("count the distinct numbers", "find how many different numbers there are", "compute the number of unique values"),
        ("len(set({v}))",)),
    _op("count_even", "LI", lambda v, k: sum(x % 2 == 0 for x in v),
        ("count the even numbers", "find how many numbers are even", "compute the number of even entries"),
        ("sum(1 for x in {v} if x % 2 == 0)", "len([x for x in {v} if x % 2 == 0])")),
    _op("count_positive", "LI", lambda v, k: sum(x > 0 for x in v),
        ("count the positive numbers", "find how many numbers are positive", "compute the number of entries above zero"),
        ("sum(1 for x in {v} if x > 0)", "len([x for x in {v} if x > 0])")),
    _op("count_of", "LI", lambda v, k: v.count(k),
        ("count how often {k} occurs", "find the number of times {k} appears", "compute the frequency of {k}"),
        ("{v}.count({k})",), (0, 1, 2, 3)),
    _op("first", "LI", lambda v, k: v[0] if v else 0,
        ("take the first number or 0 if empty", "read the leading number with 0 by default", "get the number at the start or 0"),
        ("{v}[0] if {v} else 0", "next(iter({v}), 0)")),
    _op("last", "LI", lambda v, k: v[-1] if v else 0,
        ("take the last number or 0 if empty", "read the final number with 0 by default", "get the number at the end or 0"),
        ("{v}[-1] if {v} else 0",)),
    _op("spread", "LI", lambda v, k: max(v) - min(v) if v else 0,
        ("compute the maximum minus the minimum or 0", "find the spread of the numbers", "take largest minus smallest or 0 if empty"),
        ("max({v}) - min({v}) if {v} else 0",)),
    _op("sum_squares", "LI", lambda v, k: sum(x * x for x in v),
        ("add up the squares", "compute the sum of squares", "find the total of the squared numbers"),
        ("sum(x * x for x in {v})",)),
    _op("ends_sum", "LI", lambda v, k: v[0] + v[-1] if v else 0,
        ("add the first and the last number or 0 if empty", "compute first plus last with 0 by default",
         "find the sum of both ends or 0"), ("{v}[0] + {v}[-1] if {v} else 0",)),
    _op("index_max", "LI", lambda v, k: v.index(max(v)) if v else 0,
        ("find the position of the largest number or 0", "compute the index of the maximum with 0 by default",
         "locate the biggest number or give 0"), ("{v}.index(max({v})) if {v} else 0",)),
]

STRING_OPS = [
    _filter("no_vowels", "S", 'x not in "aeiouAEIOU"', lambda x, k: x not in "aeiouAEIOU",
            ("remove the vowels", "drop every vowel", "keep the characters that are not vowels")),
    _filter("only_vowels", "S", 'x in "aeiouAEIOU"', lambda x, k: x in "aeiouAEIOU",
            ("keep only the vowels", "drop everything but vowels", "select the vowels")),
    _filter("only_upper", "S", "x.isupper()", lambda x, k: x.isupper(),
            ("keep only the capital letters", "drop everything but capitals", "select the upper case letters")),
    _filter("only_lower", "S", "x.islower()", lambda x, k: x.islower(),
            ("keep only the small letters", "drop everything but small letters", "select the lower case letters")),
    _filter("no_digits", "S", "not x.isdigit()", lambda x, k: not x.isdigit(),
            ("remove the digits", "drop every digit", "keep the characters that are not digits")),
    _map("double_chars", "S", "x * 2", lambda x, k: x * 2,
         ("write every character twice", "double each character", "repeat each character once more")),
    _map("mask_digits", "S", '"#" if x.isdigit() else x', lambda x, k: "#" if x.isdigit() else x,
         ("replace every digit by #", "mask each digit with #", "turn the digits into #")),
    _map("dash_after", "S", 'x + "-"', lambda x, k: x + "-",
         ("put a dash after every character", "follow each character by a dash", "add a dash behind each character")),
    _op("reverse_text", "SS", lambda v, k: v[::-1],
        ("reverse the string", "turn the text around", "write the text backwards"), ("{v}[::-1]", '"".join(reversed({v}))')),
    _op("upper", "SS", lambda v, k: v.upper(),
        ("convert the text to upper case", "make all letters capital", "write everything in capitals"), ("{v}.upper()",)),
    _op("lower", "SS", lambda v, k: v.lower(),
        ("convert the text to lower case", "make all letters small", "write everything in small letters"), ("{v}.lower()",)),
    _op("swapcase", "SS", lambda v, k: v.swapcase(),
        ("swap upper and lower case", "flip the case of every letter", "exchange capitals and small letters"), ("{v}.swapcase()",)),
    _op("capitalize", "SS", lambda v, k: v.capitalize(),
        ("capitalize the text", "make the first character a capital and the rest small", "write the text like a name"),
        ("{v}.capitalize()",)),
    _op("first_chars", "SS", lambda v, k: v[:k],
        ("keep the first {k} characters", "take the leading {k} characters", "cut the text after {k} characters"),
        ("{v}[:{k}]",), (2, 3)),
    _op("last_chars", "SS", lambda v, k: v[-k:],
        ("keep the last {k} characters", "take the final {k} characters", "keep {k} characters at the end"), ("{v}[-{k}:]",), (2, 3)),
    _op("skip_char", "SS", lambda v, k: v[1:],
        ("remove the first character", "drop the character at the front", "leave out the first character"), ("{v}[1:]",)),
    _op("drop_char", "SS", lambda v, k: v[:-1],
        ("remove the last character", "drop the character at the end", "leave out the last character"), ("{v}[:-1]",)),
    _op("every_other", "SS", lambda v, k: v[::2],
        ("keep the characters at even positions", "take every second character starting with the first",
         "skip every other character"), ("{v}[::2]",)),
    _op("sort_chars", "SS", lambda v, k: "".join(sorted(v)),
        ("sort the characters", "arrange the characters in order", "put the characters in sorted order"), ('"".join(sorted({v}))',)),
    _op("unique_chars", "SS", lambda v, k: "".join(dict.fromkeys(v)),
        ("remove repeated characters keeping the first of each", "drop later copies of a character",
         "keep each distinct character once"), ('"".join(dict.fromkeys({v}))',)),
    _op("mirror_text", "SS", lambda v, k: v + v[::-1],
        ("append the reversed text", "extend the text by its mirror image", "follow the text by itself backwards"),
        ("{v} + {v}[::-1]",)),
    _op("repeat_text", "SS", lambda v, k: v * 2,
        ("repeat the text twice", "append a copy of the text to itself", "write the text two times in a row"), ("{v} * 2", "{v} + {v}")),
    _op("rotate_text", "SS", lambda v, k: v[1:] + v[:1],
        ("move the first character to the end", "rotate the text left by one", "shift the text one place to the left in a circle"),
        ("{v}[1:] + {v}[:1]",)),
    _op("a_to_b", "SS", lambda v, k: v.replace("a", "b"),
        ("replace every a by b", "turn each a into b", "write b for every a"), ('{v}.replace("a", "b")',)),
    _op("exclaim", "SS", lambda v, k: v + "!",
        ("append an exclamation mark", "put an exclamation mark at the end", "finish the text by an exclamation mark"),
        ('{v} + "!"',)),
]

STRING_READERS = [
    _op("text_length", "SI", lambda v, k: len(v),
        ("count the characters", "compute the length of the text", "find how many characters there are"), ("len({v})",)),
    _op("count_vowels", "SI", lambda v, k: sum(x in "aeiouAEIOU" for x in v),
        ("count the vowels", "find how many vowels there are", "compute the number of vowels"),
        ('sum(1 for x in {v} if x in "aeiouAEIOU")',)),
    _op("count_upper", "SI", lambda v, k: sum(x.isupper() for x in v),
        ("count the capital letters", "find how many capitals there are", "compute the number of upper case letters"),
        ("sum(1 for x in {v} if x.isupper())",)),
    _op("count_digits", "SI", lambda v, k: sum(x.isdigit() for x in v),
        ("count the digits", "find how many digits there are in the text", "compute the number of digit characters"),
        ("sum(1 for x in {v} if x.isdigit())",)),
    _op("count_a", "SI", lambda v, k: v.count("a"),
        ("count how often a occurs", "find the number of times a appears", "compute the frequency of a"), ('{v}.count("a")',)),
    _op("distinct_chars", "SI", lambda v, k: len(set(v)),
        ("count the distinct characters", "find how many different characters there are",
         "compute the number of unique characters"), ("len(set({v}))",)),
    _op("digit_list", "SL", lambda v, k: [int(x) for x in v if x in "0123456789"],
        ("list the digits as numbers", "collect the digits of the text in a list", "read off each digit as a number"),
        ("[int(x) for x in {v} if x.isdigit()]",)),
    _op("vowel_places", "SL", lambda v, k: [i for i, x in enumerate(v) if x in "aeiouAEIOU"],
        ("list the positions of the vowels", "collect the index of every vowel", "find where the vowels are"),
        ('[i for i, x in enumerate({v}) if x in "aeiouAEIOU"]',)),
]

INT_OPS = [
    _op("plus", "II", lambda v, k: v + k,
        ("add {k} to the number", "increase the number by {k}", "raise the number by {k}"), ("{v} + {k}",), (1, 2, 3, 5)),
    _op("minus", "II", lambda v, k: v - k,
        ("subtract {k} from the number", "decrease the number by {k}", "lower the number by {k}"), ("{v} - {k}",), (1, 2, 3, 5)),
    _op("scaled", "II", lambda v, k: v * k,
        ("multiply the number by {k}", "scale the number by {k}", "take {k} times the number"), ("{v} * {k}",), (2, 3)),
    _op("squared", "II", lambda v, k: v * v,
        ("square the number", "multiply the number by itself", "take the square of the number"), ("{v} * {v}", "{v} ** 2")),
    _op("halved", "II", lambda v, k: v // 2,
        ("halve the number rounding down", "divide the number by two rounding down", "floor-divide the number by two"), ("{v} // 2",)),
    _op("mod", "II", lambda v, k: v % k,
        ("take the remainder modulo {k}", "reduce the number modulo {k}", "find what is left after dividing by {k}"),
        ("{v} % {k}",), (3, 4, 5, 7)),
    _op("opposite", "II", lambda v, k: -v,
        ("negate the number", "flip the sign of the number", "take the opposite of the number"), ("-{v}",)),
    _op("magnitude", "II", lambda v, k: abs(v),
        ("take the absolute value", "drop the sign of the number", "make the number non-negative"), ("abs({v})",)),
    _op("capped", "II", lambda v, k: min(v, k),
        ("cap the number at {k}", "lower the number to {k} if it is above", "limit the number to at most {k}"),
        ("min({v}, {k})",), (5, 8)),
    _op("at_least", "II", lambda v, k: max(v, k),
        ("raise the number to {k} if it is below", "limit the number to at least {k}", "lift a smaller number to {k}"),
        ("max({v}, {k})",), (2, 4)),
    _op("digit_sum", "II", lambda v, k: sum(int(d) for d in str(abs(v))),
        ("compute the sum of its digits", "add up the digits of the number", "find the digit sum"),
        ("sum(int(d) for d in str(abs({v})))",)),
    _op("digit_count", "II", lambda v, k: len(str(abs(v))),
        ("count its digits", "find how many digits the number has", "compute the number of digits of the number"),
        ("len(str(abs({v})))",)),
    _op("reverse_digits", "II", lambda v, k: int(str(abs(v))[::-1]),
        ("reverse its digits", "read the digits of the number backwards", "turn the digits around"),
        ("int(str(abs({v}))[::-1])",)),
    _op("last_digit", "II", lambda v, k: abs(v) % 10,
        ("take its last digit", "keep only the final digit", "find the ones digit"), ("abs({v}) % 10",)),
    _op("digits", "IL", lambda v, k: [int(d) for d in str(abs(v))],
        ("list its digits", "split the number into digits", "write the digits as a list"), ("[int(d) for d in str(abs({v}))]",)),
    _op("countup", "IL", lambda v, k: list(range(min(abs(v), 9))),
        ("list the numbers from 0 up to but excluding its absolute value and at most nine of them",
         "count up from 0 below the absolute value with at most nine numbers",
         "make the range of the absolute value limited to nine numbers"), ("list(range(min(abs({v}), 9)))",)),
    _op("countdown", "IL", lambda v, k: list(range(min(abs(v), 9), 0, -1)),
        ("count down from its absolute value or nine to 1", "list the numbers from the absolute value or nine down to 1",
         "make the countdown from the absolute value limited to nine"), ("list(range(min(abs({v}), 9), 0, -1))",)),
    _op("divisors", "IL", lambda v, k: [d for d in range(1, min(abs(v), 99) + 1) if v % d == 0],
        ("list its divisors up to 99", "collect the divisors of the number up to 99", "find every divisor from 1 to 99"),
        ("[d for d in range(1, min(abs({v}), 99) + 1) if {v} % d == 0]",)),
    _op("letters", "IS", lambda v, k: "a" * (abs(v) % 7),
        ("write the letter a as often as the absolute value modulo 7", "make a text of a with length modulo 7",
         "repeat a according to the absolute value modulo 7"), ('"a" * (abs({v}) % 7)',)),
    _op("to_text", "IS", lambda v, k: str(v),
        ("convert the number to text", "write the number as a string", "make a string of the number"), ("str({v})",)),
]

# fmt: on
PRIMITIVES: dict[str, Primitive] = {
    p.name: p
    for group in (LIST_FILTERS, LIST_MAPS, LIST_OPS, LIST_REDUCERS, STRING_OPS, STRING_READERS, INT_OPS)
    for p in group
}
