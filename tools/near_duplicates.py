"""Which programs of a collection are nearly the same."""

import zlib

import numpy as np

from acelib.core import digest
from tools.overlap import code_ngrams


class NearDuplicates:
    """MinHash over token 5-grams with locality-sensitive hashing, one program after the other.

    Programs whose estimated Jaccard similarity reaches `threshold` count as duplicates (0.7, as in The Stack,
    arXiv 2211.15533). With 24 bands of 5 rows a pair at 0.7 is compared with probability 0.99. Written out
    here because `datasketch` would bring SciPy for these few lines. Memory: about 6 KB per program that is kept.
    """

    def __init__(self, threshold: float = 0.7, bands: int = 24, rows: int = 5):
        draw = np.random.default_rng(0)
        self.threshold, self.bands = threshold, bands
        self._factor = draw.integers(2**63, size=bands * rows, dtype=np.uint64) * 2 + 1
        self._shift = draw.integers(2**63, size=bands * rows, dtype=np.uint64)
        self._buckets: dict[int, list[tuple[str, np.ndarray]]] = {}
        self._codes: dict[str, str] = {}

    def same(self, name: str, code: str) -> bool:
        """Whether `code` is, to the letter, the program that was kept under that name."""
        return self._codes[name] == digest(code)

    def add(self, name: str, code: str) -> str | None:
        """The name of an earlier program that is nearly the same; when there is none, None, and this one is kept."""
        grams = np.array([zlib.crc32(gram.encode()) for gram in code_ngrams(code)], dtype=np.uint64)
        hashes = (grams[:, None] * self._factor + self._shift) >> np.uint64(32)  # multiply-shift, modulo 2^64
        minima = hashes.min(axis=0, initial=2**32 - 1).astype(np.uint32)
        buckets = [hash((band, part.tobytes())) for band, part in enumerate(np.split(minima, self.bands))]
        if known := dict(one for bucket in buckets for one in self._buckets.get(bucket, ())):
            alike = np.mean(np.stack(list(known.values())) == minima, axis=1)
            if alike.max() >= self.threshold:
                return list(known)[alike.argmax()]
        self._codes[name], kept = digest(code), (name, minima)
        for bucket in buckets:
            self._buckets.setdefault(bucket, []).append(kept)
        return None
