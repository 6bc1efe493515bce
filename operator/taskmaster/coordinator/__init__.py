"""The coordinator: the shell around the pure core, hosted by kopf.

Low-rate kinds (WorkerPool) come through kopf handlers. Tasks, Leases and Pods come through informers of our own,
because a kopf handler costs a hundred times the CPU of an informer's event. `term` holds everything that exists only
while this process is the leader, so that losing leadership ends all of it at once.
"""
