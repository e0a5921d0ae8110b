"""Whole networks: pyquant against the other ways to run int8 on a CPU. See ../README.md.

One file per peer, with the best settings that its documentation names; ``registry`` lists them.
"""
