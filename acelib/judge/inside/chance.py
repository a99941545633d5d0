"""What a program may depend on and should not: seeds and clocks. A second run with others tells.

The hash seed is fixed when the interpreter starts, so the second run is in another zygote; the rest changes here.
"""

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
    import datetime

    real, day, delta = datetime.datetime, datetime.date, datetime.timedelta(seconds=shift)

    class Instances(type):
        """An object of the real class is one of the class that stands in for it."""

        def __instancecheck__(cls, value):
            return isinstance(value, cls._real)

        def __subclasscheck__(cls, kind):
            return issubclass(kind, cls._real)

        def __call__(cls, *args, **kwargs):
            return cls._real(*args, **kwargs)

        def __getattr__(cls, name):
            return getattr(cls._real, name)

    class ShiftedDatetime(metaclass=Instances):
        _real = real
        now = staticmethod(lambda tz=None: real.now(tz) + delta)
        today = staticmethod(lambda: real.today() + delta)
        utcnow = staticmethod(lambda: real.utcnow() + delta)

    class ShiftedDate(metaclass=Instances):
        _real = day
        today = staticmethod(lambda: (real.today() + delta).date())

    datetime.datetime, datetime.date = ShiftedDatetime, ShiftedDate
