"""How a batch becomes forward passes. Imports nothing heavy: the plan of a run reckons with it, too."""


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` up to `limit`: the examples of one forward pass, of `number` per process."""
    return next(size for size in range(min(number, limit), 0, -1) if number % size == 0)
