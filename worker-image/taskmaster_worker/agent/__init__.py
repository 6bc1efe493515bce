"""The agent: the half of a worker that talks to Kubernetes. The runner, its other half, runs user code without a token.

Data flows one way round::

    API server ──watch──▶ Attempts ──start, stop──▶ RunnerLink ──socket──▶ runner
         ▲                  │   ▲                        │
         └── StatusWriter ◀─┘   └───── started, exit ────┘
         └── WorkerLease  (sign of life; only while watch, runner and writes are well)

Invariants:

* the same (uid, attempt) is never started twice, and never more processes run than the worker has slots;
* what an attempt left behind is written until the API server has answered, however long that takes;
* a life of the agent (its *incarnation*) is published only after the runner has confirmed that nothing runs, so a
  registered incarnation never has an unknown process.

Decisions are pure and apart (`assigned`, `ending`, `record`, `standing`); the rest is an event loop around them.
"""
