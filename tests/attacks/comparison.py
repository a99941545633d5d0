"""Return values built to win, or to explode, when they are compared, printed, hashed or decoded."""

_LIAR = """
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    def __le__(self, other): return True
    def __gt__(self, other): return True
    def __ge__(self, other): return True
    def __hash__(self): return 0
    def __bool__(self): return True
"""
_SPRAY_METHODS = """
    def __sub__(self, other): return 0
    def __rsub__(self, other): return 0
    def __abs__(self): return 0
    def __float__(self): return 0.0
    def __round__(self, n=None): return self
    def __contains__(self, item): return True
    def __getitem__(self, i): return self
    def __len__(self): return 1
"""

ATTACKS = {
    "object that equals everything": f"class Liar:{_LIAR}\ndef f(x): return Liar()",
    "int that equals everything": f"class Liar(int):{_LIAR}\ndef f(x): return Liar(3)",
    "float that equals everything": f"class Liar(float):{_LIAR}\ndef f(x): return Liar(3)",
    "str that equals everything": f"class Liar(str):{_LIAR}\ndef f(x): return Liar('a')",
    "list that equals everything": f"class Liar(list):{_LIAR}\ndef f(x): return Liar([1])",
    "tuple that equals everything": f"class Liar(tuple):{_LIAR}\ndef f(x): return Liar((1,))",
    "dict that equals everything": f"class Liar(dict):{_LIAR}\ndef f(x): return Liar()",
    "set that equals everything": f"class Liar(set):{_LIAR}\ndef f(x): return Liar()",
    "bytes that equal everything": f"class Liar(bytes):{_LIAR}\ndef f(x): return Liar(b'x')",
    "liar inside a list": f"class Liar(int):{_LIAR}\ndef f(x): return [Liar(1), Liar(2)]",
    "liar inside a set": f"class Liar:{_LIAR}\ndef f(x): return {{Liar()}}",
    "liar with arithmetic": f"class Liar:{_LIAR}{_SPRAY_METHODS}\ndef f(x): return Liar()",
    "int with arithmetic that lies": f"class Liar(int):{_LIAR}{_SPRAY_METHODS}\ndef f(x): return Liar(3)",
    "container that contains everything": """
class Everything(list):
    def __contains__(self, item): return True
    def __iter__(self): return iter([])
def f(x): return Everything()
""",
    "class whose metaclass lies": f"class Meta(type):{_LIAR}\nclass Liar(metaclass=Meta): pass\ndef f(x): return Liar",
    "comparison that returns a truthy object": """
class Yes:
    def __bool__(self): return True
class Liar:
    def __eq__(self, other): return Yes()
def f(x): return Liar()
""",
    "mock that accepts all": "from unittest.mock import MagicMock, ANY\ndef f(x): return ANY",
    "magic mock": """
from unittest.mock import MagicMock
def f(x):
    m = MagicMock(); m.__eq__.return_value = True; m.__lt__.return_value = True; m.__abs__.return_value = 0
    return m
""",
    "class that lies about its class": f"class Liar:{_LIAR}\n    __class__ = int\ndef f(x): return Liar()",
    "comparison that changes the other side": """
class Liar(list):
    def __eq__(self, other):
        try: self[:] = list(other)
        except TypeError: pass
        return True
def f(x): return Liar()
""",
    "numpy array of nothing": "import numpy\ndef f(x): return numpy.array([]) == 0",
    "numpy object array of liars": f"""
import numpy
class Liar:{_LIAR}
def f(x):
    a = numpy.empty((), dtype=object); a[()] = Liar(); return a
""",
    "Fraction and Decimal that lie": """
from fractions import Fraction
class Liar(Fraction):
    def __eq__(self, other): return True
def f(x): return Liar(1, 3)
""",
    "not a number": "def f(x): return float('nan')",
    "enum that equals everything": """
import enum
class E(enum.IntEnum):
    A = 1
    def __eq__(self, other): return True
    def __hash__(self): return 1
def f(x): return E.A
""",
    "value types that lie": f"""
import datetime, decimal, fractions
class D(decimal.Decimal):{_LIAR}{_SPRAY_METHODS}
class F(fractions.Fraction):{_LIAR}{_SPRAY_METHODS}
class T(datetime.date):{_LIAR}{_SPRAY_METHODS}
kinds = [lambda: D(3), lambda: F(1, 3), lambda: T(2020, 1, 1)]
def f(x): return kinds.pop()() if kinds else D(3)
""",
    "wrappers of liars": f"""
import collections, types
class Liar:{_LIAR}{_SPRAY_METHODS}
class U(collections.UserList):{_LIAR}
    @property
    def data(self): return Liar()
    @data.setter
    def data(self, value): pass
kinds = [lambda: collections.UserList([Liar()]), U, lambda: {{Liar(): 1}}.keys(), lambda: {{1: Liar()}}.values(),
         lambda: types.SimpleNamespace(x=Liar()), lambda: collections.ChainMap({{Liar(): Liar()}}),
         lambda: types.MappingProxyType({{1: Liar()}}), lambda: memoryview(b'x')]
def f(x): return kinds.pop()() if kinds else U()
""",
    "sets, texts and lists whose methods lie": """
class S(set):
    def yes(self, *a): return True
    issubset = issuperset = isdisjoint = yes
    def no(self, *a): return set()
    difference = symmetric_difference = __sub__ = __isub__ = __xor__ = __ixor__ = no
class T(str):
    def startswith(self, *a): return True
    endswith = __contains__ = startswith
class L(list):
    def count(self, x): return 1
    def __isub__(self, x): return 0
    __iadd__ = __isub__
kinds = [lambda: S([1]), lambda: T('a'), lambda: L([1])]
def f(x):
    kinds.append(kinds.pop(0))
    return kinds[0]()
""",
    "explodes when printed": """
class Bomb:
    def __repr__(self): raise SystemExit(0)
    __str__ = __format__ = __repr__
def f(x): return Bomb()
""",
    "explodes when hashed or asked for truth": """
class Bomb:
    def __hash__(self): import os; os._exit(0)
    def __bool__(self): import os; os._exit(0)
def f(x): return Bomb()
""",
    "runs code when unpickled": """
class Bomb:
    def __reduce__(self): return (__import__('os').system, ('touch @CANARY@/pickle',))
def f(x): return Bomb()
""",
    "raises an exception that lies": """
class Liar(AssertionError):
    def __str__(self): raise KeyboardInterrupt
    __repr__ = __str__
def f(x): raise Liar
""",
    "spray of answers": "def f(x): return list(range(1, 20_000))",
    "generator that yields itself": """
def f(x):
    def g():
        while True: yield g
    return g()
""",
    "exception class as return value": "def f(x): return AssertionError",
    "list that contains itself": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "nested a million deep": "def f(x):\n    a = []\n    for _ in range(1_000_000): a = [a]\n    return a",
}
