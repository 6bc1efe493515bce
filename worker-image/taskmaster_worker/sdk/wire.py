"""What the SDK and the supervisor agree upon."""

MAX_CHECKPOINT_BYTES = 16 * 1024
"""Size of a checkpoint as compact JSON in UTF-8."""
