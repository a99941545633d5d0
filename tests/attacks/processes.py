"""New processes, signals, timers, the network, the file system, and the wall itself."""

_TOUCH = "'touch @CANARY@/here'"

ATTACKS = {
    "runs a command": f"import os\ndef f(x): return os.system({_TOUCH})",
    "runs a subprocess": f"import subprocess\ndef f(x): return subprocess.run({_TOUCH}, shell=True).returncode",
    "spawns": "import os\ndef f(x): return os.posix_spawn('/usr/bin/touch', ['touch', '@CANARY@/spawn'], {})",
    "becomes a shell": f"import os\ndef f(x): os.execv('/bin/sh', ['sh', '-c', {_TOUCH}])",
    "executes from memory": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    fd = libc.syscall(319, b'x', 0)
    libc.syscall(322, fd, b'', None, None, 0x1000)
    libc.execveat(-100, b'/bin/true', None, None, 0)
    return fd
""",
    "fork bomb": "import os\ndef f(x):\n    while True: os.fork()",
    "fork bomb at import": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "daemon that outlives it": """
import os, time
def f(x):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(1); open('@CANARY@/daemon', 'w').close()
            while True: time.sleep(1)
        os._exit(0)
    return 0
""",
    "vfork and clone by system call": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    me = os.getpid()
    for call in ((57,), (58,), (56, 17, 0, 0, 0, 0), (56, 0x8000 | 17, 0, 0, 0, 0), (435, bytes(88), 88)):
        libc.syscall(*call)
        if os.getpid() != me:
            try: open('@CANARY@/cloned', 'w').close()
            finally: os._exit(0)
    return 0
""",
    "multiprocessing": """
import multiprocessing
def work(x): open('@CANARY@/pool', 'w').close(); return x
def f(x):
    with multiprocessing.Pool(2) as pool: return pool.map(work, [1])
""",
    "kills its parent": "import os, signal\ndef f(x):\n    os.kill(os.getppid(), signal.SIGKILL)",
    "kills the supervisor": "import os, signal\ndef f(x):\n    os.kill(@SUPERVISOR@, signal.SIGTERM)",
    "kills everyone": "import os, signal\ndef f(x):\n    os.kill(-1, signal.SIGKILL)",
    "kills its group": "import os, signal\ndef f(x):\n    os.killpg(0, signal.SIGKILL)",
    "signals by file": """
import ctypes, os
libc = ctypes.CDLL(None)
def f(x):
    for pid in (os.getppid(), @SUPERVISOR@):
        libc.syscall(424, libc.syscall(434, pid, 0), 15, 0, 0)
        libc.syscall(129, pid, 15, bytes(128)); libc.syscall(200, pid, 15); libc.syscall(234, pid, pid, 15)
    return 0
""",
    "signals through an owned file": """
import fcntl, os, signal
def f(x):
    r, w = os.pipe()
    fcntl.fcntl(r, fcntl.F_SETOWN, @SUPERVISOR@); fcntl.fcntl(r, 10, signal.SIGTERM)
    fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    os.write(w, b'x')
    return 0
""",
    "timer that raises in the harness": """
import signal
def ring(*_): raise SystemExit(0)
signal.signal(signal.SIGALRM, ring); signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
def f(x): return 0
""",
    "ignores every signal": """
import signal
for n in range(1, 65):
    try: signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError): pass
def f(x): raise SystemExit
""",
    "stops itself": "import os, signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGSTOP)",
    "crashes": "import ctypes\ndef f(x): ctypes.string_at(0)",
    "aborts": "import os\ndef f(x): os.abort()",
    "thread that outlives the call": """
import threading
def f(x):
    def work():
        while True:
            try: open('@CANARY@/thread', 'w').close()
            except OSError: pass
    threading.Thread(target=work).start()
    return 0
""",
    "connects out": """
import socket
def f(x):
    s = socket.create_connection(('127.0.0.1', @PORT@), timeout=1); s.send(b'hello'); return 0
""",
    "connects by system call": """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    fd = libc.socket(2, 1, 0)
    libc.connect(fd, struct.pack('<H', 2) + struct.pack('>H', @PORT@) + bytes([127, 0, 0, 1]) + bytes(8), 16)
    return fd
""",
    "opens sockets of every kind": """
import socket
def f(x):
    for family in range(46):
        for kind in (1, 2, 3, 5):
            try: socket.socket(family, kind); open('@CANARY@/socket', 'w').close()
            except OSError: pass
    return 0
""",
    "fetches a page": "import urllib.request\ndef f(x): return urllib.request.urlopen('http://127.0.0.1:@PORT@').read()",
    "writes a file": "def f(x):\n    open('@CANARY@/file', 'w').write('x'); return 0",
    "writes where it was started": "def f(x):\n    open('file_of_an_attack', 'w').write('x'); return 0",
    "writes beside Python": "import os\ndef f(x):\n    open(os.__file__ + '.attack', 'w').close()",
    "changes Python": "import os\ndef f(x):\n    open(os.__file__, 'a').write(''); open('@CANARY@/x', 'w'); return 0",
    "deletes": """
import shutil
def f(x):
    shutil.rmtree('@CANARY@', ignore_errors=True); shutil.rmtree('/', ignore_errors=True)
""",
    "makes devices": "import os\ndef f(x):\n    os.mknod('/tmp/disk', 0o60666, os.makedev(8, 0)); return 0",
    "shared memory for later": """
import ctypes
from multiprocessing import shared_memory
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    if libc.shmget(4711, 4096, 0o1666) >= 0: open('@CANARY@/shm', 'w').close()
    shared_memory.SharedMemory('attack', create=True, size=10)
    open('@CANARY@/shm', 'w').close()
""",
    "climbs out of the root": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    libc.unshare(0x10000000); libc.unshare(0x20000)
    libc.mount(b'none', b'/tmp', b'proc', 0, None); libc.chroot(b'/tmp'); libc.syscall(308, 3, 0)
    for _ in range(20):
        try: os.chdir('..')
        except OSError: pass
    open('@CANARY@/root', 'w').close()
""",
    "takes its limits off": """
import resource
def f(x):
    for which in range(16):
        try: resource.setrlimit(which, (resource.RLIM_INFINITY,) * 2)
        except (OSError, ValueError): pass
    return len(bytearray(2**30))
""",
    "becomes root": "import os\ndef f(x):\n    os.setuid(0); open('@CANARY@/root', 'w'); return 0",
    "installs a filter of its own": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    libc.prctl(22, 2, bytes(16), 0, 0); libc.prctl(4, 1, 0, 0, 0); libc.syscall(317, 1, 0, bytes(16)); return 0
""",
    "uses the other calling conventions": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    libc.syscall(0x40000000 + 41, 2, 1, 0); libc.syscall(0x40000000 + 57)
    return 0
""",
    "asks for kernel toys": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    return [n for n in (321, 298, 323, 425, 250, 248, 175, 313, 246, 169, 155, 161, 165, 272, 300)
            if libc.syscall(n, 0, 0, 0, 0, 0) >= 0]
""",
}
