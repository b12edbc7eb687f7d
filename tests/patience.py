"""The one bound on what a test waits for.

A test waits for an event: a log line, a call that a fake has heard, an answer. ``PATIENCE`` only
says when it is given up as stuck. It is no figure of the product's: on a machine with something
else to do, everything takes many times as long, and still comes about.
"""

from typing import Final

PATIENCE: Final = 60.0  # seconds; below pytest's own timeout, so that a test can say what it lacked
