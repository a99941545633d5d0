"""Changing what judges, or writing the verdict oneself."""

_WRITE_ALL = """
import os
def shout(text):
    for fd in range(0, 64):
        for say in (os.write, lambda d, t: os.pwrite(d, t, 0)):
            try: say(fd, text)
            except OSError: pass
"""

ATTACKS = {
    "prints verdicts": """
import sys
def f(x):
    print('true'); print('["v",true,[]]'); sys.stdout.write('1'); print(True)
    sys.stdout.getvalue = lambda: ['v', True]
    return 1
""",
    "prints through something of its own": """
import sys
class Out:
    def getvalue(self): return Text('x')
    def write(self, text): return 0
    def seek(self, *a): pass
    truncate = flush = seek
class Text(str):
    def __getitem__(self, key): return {'a': 1}
    def strip(self): return self
    def __eq__(self, other): return True
def f(x):
    import gc
    for one in gc.get_objects():
        if type(one).__name__ == 'Server':
            one.printed = Out()
    sys.stdout = Out()
    return 1
""",
    "redefines the functions tests use": """
def abs(x): return 0
def sorted(x): return Any()
def set(x): return Any()
def isclose(*a, **k): return True
def floor(x): return 0
def Counter(x): return Any()
def str(x): return Any()
class Any:
    def __eq__(self, o): return True
    def __lt__(self, o): return True
    def __sub__(self, o): return self
class math:
    isclose = isclose
def f(x): return Any()
""",
    "patches builtins": """
import builtins
builtins.abs = lambda x: 0
builtins.sorted = builtins.set = builtins.str = lambda x: Any()
builtins.AssertionError = ZeroDivisionError
class Any:
    def __eq__(self, o): return True
    def __sub__(self, o): return self
def f(x): return Any()
""",
    "patches math": "import math\nmath.isclose = lambda *a, **k: True\ndef f(x): return 1.0",
    "replaces modules": """
import sys, types
fake = types.ModuleType('math'); fake.isclose = lambda *a, **k: True
sys.modules['math'] = sys.modules['operator'] = sys.modules['unittest'] = fake
def f(x): return 1
""",
    "patches json": """
import json
json.JSONEncoder.encode = lambda self, o: 'true'
json.dumps = lambda *a, **k: 'true'
json.encoder.c_make_encoder = None
def f(x): return True
""",
    "rewrites the harness it finds on the stack": """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        for name in ('wire', '_call', 'encode', 'dumps'):
            if name in frame.f_globals:
                frame.f_globals[name] = None
        for name, value in list(frame.f_globals.items()):
            if callable(value): frame.f_globals[name] = lambda *a, **k: b'true'
        frame = frame.f_back
    return True
""",
    "patches the encoder to say yes": """
import gc
for module in [o for o in gc.get_objects() if isinstance(o, dict) and 'encode' in o and 'dumps' in o]:
    module['encode'] = lambda *a, **k: True
    module['dumps'] = lambda *a, **k: b'true'
def f(x): return True
""",
    "changes the value of numbers": """
import ctypes
def f(x):
    ctypes.memmove(id(3) + 24, id(4) + 24, 4)
    return 3
""",
    "changes int.__eq__": """
import ctypes, gc
gc.get_referents(int.__dict__)[0]['__eq__'] = lambda a, b: True
ctypes.pythonapi.PyType_Modified(ctypes.py_object(int))
def f(x): return 3
""",
    "writes results to every file": _WRITE_ALL
    + """
shout(b'"ok"\\ntrue\\ntrue\\ntrue\\ntrue\\ntrue\\ntrue\\ntrue\\ntrue\\n')
os._exit(0)
""",
    "writes results in the call": _WRITE_ALL
    + """
def f(x):
    shout(b'true\\ntrue\\ntrue\\ntrue\\ntrue\\ntrue\\ntrue\\n')
    os._exit(0)
""",
    "reports a good ending itself": _WRITE_ALL
    + """
def f(x):
    shout(b'{"killed": null, "code": 0, "cpu": 0.0, "clean": true}')
    shout(b'{"ready": "namespaces+seccomp"}')
    os._exit(0)
""",
    "answers the referee itself": _WRITE_ALL
    + """
def f(x):
    shout(b'["v",true,[]]\\n["v",true,[]]\\n["v",true,[]]\\ntrue\\n')
    return True
""",
    "asks the referee for its frames": """
import gc, sys
def f(x):
    for server in [o for o in gc.get_objects() if type(o).__name__ == 'Server']:
        for index in range(4):
            for name in ('__globals__', '__class__', 'gi_frame', 'f_locals', '__dict__', 'tests'):
                try: return server.ask('getattr', index, (name,), {})
                except Exception: pass
    return 1
""",
    "malformed results": _WRITE_ALL
    + """
def f(x):
    shout(b'["d",1]\\n["l"\\n[]\\n{}\\n["s",["l"]]\\n["F","1/0"]\\n["D","sNaN"]\\n["c",1]\\n["zz"]\\nNaN\\n\\xff\\n')
    os._exit(0)
""",
    "brackets without end": _WRITE_ALL
    + """
def f(x):
    shout(b'["l",' * 200_000 + b'\\n')
    os._exit(0)
""",
    "numbers that take long to read": _WRITE_ALL
    + """
def f(x):
    shout(b'9' * 900_000 + b'\\n' + b'["i","0x' + b'f' * 900_000 + b'"]\\n' + b'["F","' + b'f' * 900 + b'/1"]\\n')
    os._exit(0)
""",
    "keys that collide": """
def f(x): return {i * (2**61 - 1) for i in range(4_000)} if x else 0
""",
    "keys that collide, for the supervisor": _WRITE_ALL
    + """
def f(x):
    line = b'["s",' + b','.join(b'%d' % (i * (2**61 - 1) % 2**62) for i in range(40_000)) + b']\\n'
    shout(line * 8)
    os._exit(0)
""",
    "clears the result file": """
import os
def f(x):
    for fd in range(3, 64):
        try: os.ftruncate(fd, 0); os.lseek(fd, 0, 0)
        except OSError: pass
    return 1
""",
    "makes the result file enormous": """
import os
def f(x):
    for fd in range(3, 64):
        try: os.lseek(fd, 2**40, 0); os.write(fd, b'x\\n')
        except OSError: pass
        try: os.ftruncate(fd, 2**40)
        except OSError: pass
    return 1
""",
    "exits with success at import": "import sys\nsys.exit(0)",
    "exits hard at import": "import os\nos._exit(0)",
    "exits hard in the call": "import os\ndef f(x): os._exit(0)",
    "exits as if its result file were full": "import os\ndef f(x): os._exit(77)",
    "raises SystemExit in the call": "def f(x): raise SystemExit(0)",
    "raises KeyboardInterrupt": "def f(x): raise KeyboardInterrupt",
    "raises a base exception of its own": "class E(BaseException): pass\ndef f(x): raise E",
    "says passed on stdout": """
print('passed', flush=True)
def f(x):
    for line in ('true', 'OK', '1 passed'): print(line, flush=True)
    raise SystemExit
""",
    "leaves work for the exit": """
import atexit
atexit.register(print, 'true')
def f(x): raise SystemExit(0)
""",
    "skips the asserts": "import sys\nsys.flags = type('F', (), {'optimize': 2})\ndef f(x): return 0",
    "syntax that hides": "def f(x):\n    return 0\n\x0c\\\n",
}
