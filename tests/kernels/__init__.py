"""Every kernel of every engine against the NumPy operators of ``tests/reference``."""
