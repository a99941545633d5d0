"""Objects with attributes that libraries in another process would believe: pointers, buffers, numbers, pickles."""

_EVERYWHERE = """
    def __getattr__(self, name):
        if name.startswith(('__array', '__buffer', '__dlpack', '_as_parameter', '__index', '__float')):
            return self.answer(name)
        raise AttributeError(name)
"""
_INTERFACE = "{'version': 3, 'shape': (1,), 'typestr': '<i8', 'data': (%s, True)}"


def _interface(address: str) -> str:
    return f"""
class A:
    def answer(self, name):
        if name == '__array_interface__': return {_INTERFACE % address}
        raise AttributeError(name)
{_EVERYWHERE}
def f(x): return A()
"""


ATTACKS = {
    "array interface that names an address of its own process": _interface("id(A)"),
    "array interface that names the zero page": _interface("1"),
    "array interface with addresses by chance": "import random\n" + _interface("random.randrange(2**46, 2**47) & ~15"),
    "array interface with a property": f"""
class A:
    @property
    def __array_interface__(self): return {_INTERFACE % "id(self)"}
    def __len__(self): return 1
def f(x): return A()
""",
    "array interface inside a list": f"""
class A:
    __array_interface__ = {_INTERFACE % "id(int)"}
def f(x): return [A(), A()]
""",
    "array struct": """
import ctypes
class A:
    __array_struct__ = ctypes.py_object(3)
def f(x): return A()
""",
    "array that is computed by the liar": """
class A:
    def __array__(self, *a, **k): return self
    def __array_ufunc__(self, *a, **k): return True
    def __array_function__(self, *a, **k): return True
    __array_priority__ = 10**9
    def __bool__(self): return True
    def all(self, *a, **k): return True
def f(x): return A()
""",
    "buffer and capsule": """
class A:
    def __buffer__(self, flags): return memoryview(b'12345678')
    def __dlpack__(self, **k): return self
    def __dlpack_device__(self): return (1, 0)
def f(x): return A()
""",
    "index, float and complex that lie": """
class A:
    calls = 0
    def __float__(self): A.calls += 1; return float('nan')
    def __index__(self): return 10**8
    def __complex__(self): return 0j
    def __int__(self): return 10**8
    def __round__(self, n=0): return self
    def __trunc__(self): return 3
def f(x): return A()
""",
    "ndarray of the program's own class": """
import numpy
class A(numpy.ndarray):
    def __eq__(self, other): return True
    def __array_ufunc__(self, *a, **k): return True
    def all(self): return True
def f(x): return numpy.zeros(3).view(A)
""",
    "structured array with a liar inside": """
import numpy
class Liar:
    def __eq__(self, other): return True
def f(x):
    a = numpy.empty(1, dtype=[('a', object)]); a['a'][0] = Liar(); return a
""",
    "object array of liars in a list": """
import numpy
class Liar:
    def __eq__(self, other): return True
    def __sub__(self, other): return 0
    def __abs__(self): return 0
def f(x):
    a = numpy.empty(1, dtype=object); a[0] = Liar(); return [a]
""",
    "pickle and copy that run code": """
class A:
    def __reduce_ex__(self, protocol): return (__import__('os').system, ('touch @CANARY@/reduce',))
    def __deepcopy__(self, memo): return 3
    def __getstate__(self): return {}
def f(x): return A()
""",
    "instance that claims every class": """
class Meta(type):
    def __instancecheck__(cls, value): return True
    def __subclasscheck__(cls, value): return True
class A(metaclass=Meta):
    __class__ = float
    __name__ = 'int'
def f(x): return A()
""",
    "subclass whose base value is hidden": """
class A(tuple):
    def __iter__(self): raise RuntimeError
    def __eq__(self, other): return True
    def __len__(self): return 10**9
class B(float):
    def __float__(self): return 0.0
    def __sub__(self, other): return 0
    __rsub__ = __sub__
    def __eq__(self, other): return True
def f(x): return A((B(1), B(2)))
""",
    "context manager that swallows": """
class A:
    def __enter__(self): return self
    def __exit__(self, *a): return True
    def __iter__(self): return iter([])
def f(x): return A()
""",
    "exception with the class of a failed check": """
class A(AssertionError):
    from_program = None
    program_number = 0
def f(x): raise A
""",
    "exception that ends a test early": "def f(x): raise SystemExit(0)",
}
