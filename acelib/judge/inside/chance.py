"""What a program may depend on and should not: seeds and clocks. A second run with others tells.

The hash seed is fixed when the interpreter starts, so the second run is in another zygote; the rest changes here.
"""

import gc
import random
import sys
import time

SHIFT = 86400 * 400 + 12345  # seconds, an odd number: another year, day, hour, minute and second


def seed(which: str, *args) -> None:
    """Seed the generator of `random` or of `numpy.random`, as a test asked for."""
    module = random if which == "random" else sys.modules.get("numpy.random")
    if module is not None:
        original = getattr(module.seed, "original", module.seed)
        original(*args)


def change(number: int) -> None:
    """Other seeds, and a clock that is `number` times SHIFT ahead."""
    random.seed(number)
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed(number)
    shift = number * SHIFT
    _shift_time(shift)
    _shift_dates(shift)


def _shift_time(shift: float) -> None:
    now, local, utc = time.time, time.localtime, time.gmtime
    nanoseconds, text, write = time.time_ns, time.ctime, time.strftime
    time.time = lambda: now() + shift
    time.time_ns = lambda: nanoseconds() + int(shift * 1e9)
    time.localtime = lambda seconds=None: local(time.time() if seconds is None else seconds)
    time.gmtime = lambda seconds=None: utc(time.time() if seconds is None else seconds)
    time.ctime = lambda seconds=None: text(time.time() if seconds is None else seconds)
    time.strftime = lambda form, when=None: write(form, time.localtime() if when is None else when)
    for name in ("perf_counter", "monotonic", "process_time"):
        setattr(time, name, _ahead(getattr(time, name), shift))


def _ahead(clock, shift: float):
    return lambda: clock() + shift


def _shift_dates(shift: float) -> None:
    """`date.today` asks `time.time`, but `datetime.now` and `utcnow` ask the system: they are changed in the class
    itself, of which programs derive their own and to which they compare types."""
    import datetime

    methods, delta = gc.get_referents(vars(datetime.datetime))[0], datetime.timedelta(seconds=shift)
    for name in ("now", "utcnow"):
        methods[name] = classmethod(_later(methods[name], delta))
    sys._clear_type_cache()


def _later(method, delta):
    return lambda cls, *args, **kwargs: method.__get__(None, cls)(*args, **kwargs) + delta
