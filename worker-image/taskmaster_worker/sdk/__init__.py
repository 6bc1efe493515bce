"""What user code in Python meets: the SDK, and how a callable is found and called. Standard library only.

Its names are exported by `taskmaster_worker`. Arguments are validated by pydantic where the image has it.
"""
