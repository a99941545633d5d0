"""Caches stay in the checkout: said before any library looks for its own."""

from acelib.course import contain

contain()
