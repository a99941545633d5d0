"""Using up time, memory, files, output and patience."""

ATTACKS = {
    "memory": "def f(x): return bytearray(10**10)",
    "memory in small pieces": "def f(x):\n    a = []\n    while True: a.append('x' * 10**6 + str(len(a)))",
    "memory at import": "a = []\nwhile True: a.append(bytearray(10**7))\ndef f(x): return 0",
    "memory outside the heap": """
import mmap
def f(x):
    keep = []
    while True: keep.append(mmap.mmap(-1, 1 << 26)); keep[-1][:] = b'x' * (1 << 26)
""",
    "files in memory": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    fd = libc.syscall(319, b'x', 0)
    while os.write(fd, bytes(1 << 20)): pass
""",
    "a huge number": "def f(x): return 1 << (1 << 24)",
    "a huge string": "def f(x): return 'x' * 10**8",
    "a huge list": "def f(x): return [0] * 10**7",
    "a wide result from little": """
def f(x):
    a = [1] * 10
    for _ in range(12): a = [a] * 10
    return a
""",
    "output": """
import sys
for _ in range(10_000): print('x' * 10_000)
def f(x): sys.stderr.write('y' * 10**7); return 0
""",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x) + 1",
    "recursion in C": """
import sys
sys.setrecursionlimit(10**9)
class A:
    def __getattr__(self, name): return getattr(self, name + 'x')
def f(x):
    a = []
    for _ in range(10**6): a = [a]
    return repr(a) == str(A().x)
""",
    "open files": "import os\ndef f(x):\n    return [os.dup(1) for _ in range(10**6)]",
    "pipes": """
import os
def f(x):
    return [(os.pipe(), os.write(os.pipe()[1], bytes(60000))) for _ in range(10**4)]
""",
    "fills its disk": """
def f(x):
    for i in range(100_000):
        with open(f'/tmp/{i}', 'wb') as file: file.write(bytes(1 << 20))
""",
    "a deep tree in its disk": "import os\ndef f(x):\n    while True: os.mkdir('d'); os.chdir('d')",
    "source that is deep": "x = " + "(" * 5000 + ")" * 5000,
    "source that is long": "f = " + "+".join(["1"] * 100_000),
    "source that folds": "f = ((((9**9)**9)**9)**9)",
    "not source at all": "\x00\x01\x02",
    "input": "def f(x): return int(input()) + int(open(0).read())",
    "loop": "def f(x):\n    while True: pass",
    "loop at import": "while True: pass",
    "loop that catches everything": """
def f(x):
    while True:
        try:
            while True: pass
        except: pass
""",
    "regular expression": "import re\ndef f(x): return re.match(r'(a+)+$', 'a' * 60 + 'b')",
    "power": "def f(x): return 7 ** (10 ** 9)",
    "threads that burn": """
import threading
def f(x):
    def burn():
        while True: pass
    for _ in range(8): threading.Thread(target=burn).start()
    burn()
""",
    "thread bomb": """
import threading, time
def f(x):
    lock = threading.Lock(); lock.acquire()
    while True:
        try: threading.Thread(target=lock.acquire, daemon=True).start()
        except RuntimeError: pass
""",
    "sleep": "import time\ntime.sleep(10**6)\ndef f(x):\n    time.sleep(10**6); return 0",
    "dead lock": "import threading\ndef f(x):\n    a = threading.Lock(); a.acquire(); a.acquire()",
    "waits for a pipe": "import os\ndef f(x): return os.read(os.pipe()[0], 1)",
    "waits now and then": """
import threading
def f(x):
    e = threading.Event()
    while True: e.wait(0.03)
""",
    "waits for a signal": "import signal\ndef f(x): signal.pause(); signal.sigwait([signal.SIGUSR1])",
    "never ends a generator": "def f(x):\n    while True: yield x",
}
SLOW = (
    "loop",
    "loop at import",
    "loop that catches everything",
    "regular expression",
    "power",
    "threads that burn",
    "dead lock",
    "waits for a pipe",
    "waits now and then",
    "waits for a signal",
    "thread bomb",
    "recursion in C",
    "a wide result from little",
    "a huge list",
    "a huge string",
    "memory in small pieces",
    "fills its disk",
    "memory outside the heap",
    "recursion",
    "never ends a generator",
)
