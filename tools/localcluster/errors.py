"""The one error that this package raises for anything a user can understand or repair.

Command line entry points print its message and exit with 1; every other exception is a defect and keeps its traceback.
"""


class LocalClusterError(Exception):
    """Something outside of this package is missing or went wrong; the message says what, where and what to do."""
