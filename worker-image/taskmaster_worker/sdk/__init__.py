"""What user code in Python meets: how a callable is found and how it is called. Standard library only."""
