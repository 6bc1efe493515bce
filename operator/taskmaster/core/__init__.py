"""Pure decisions of the scheduler: functions of values that return values.

Nothing here does I/O, reads a clock, logs or draws a random number: `now` and `random` are arguments. That is what lets
the same code decide in the coordinator, in the agent and in a simulation with virtual time.
"""
