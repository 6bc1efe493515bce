"""What is on the wire: the kinds, their names, and the patches of the write protocol.

The pydantic models are the single source of `crds/`. The words of `status.phase` and `status.reason` and the built-in
defaults live one layer below, in `taskmaster.core`, because decisions are made of them.
"""
