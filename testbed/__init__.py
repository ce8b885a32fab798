"""The project's own test bed: a real control plane, real monitoring and sample services, without containers.

Tests use it through the fixtures of `tests/e2e/conftest.py`; people start it with
`python -m testbed up`. It is no part of the product and never installed with it.
"""

from __future__ import annotations


class TestbedError(Exception):
    """The test bed cannot do what was asked; the message says what was seen and how to fix it."""

    __test__ = False
