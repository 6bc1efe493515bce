"""The agent: the half of a worker that talks to Kubernetes. The runner, its other half, runs user code without a token.

Data flows one way round::

                                        ┌──▶ HTTPCalls ──▶ anywhere (run.http)
    API server ──watch──▶ Attempts ──start, stop──▶ RunnerLink ──socket──▶ runner
         ▲  │               │   ▲                        │
         │  └─▶ Sources,    │   │                        │
         │      Parents ────┼───┤                        │
         └── StatusWriter ◀─┘   └── started, progress, checkpoint, stalled, exit ──┘
         └── WorkerLease  (sign of life; only while watch, runner and writes are well)

Invariants:

* the same (uid, attempt) is never started twice, and what runs never takes more slots than the worker has;
* what an attempt left behind is written until the API server has answered, however long that takes; what it said while
  it ran (`saves`) is written before its end or together with it, never after it;
* a checkpoint is acknowledged only when the API server has it;
* a value that comes from a Secret is in no log, message, metric or status;
* a life of the agent (its *incarnation*) is published only after the runner has confirmed that nothing runs, so a
  registered incarnation never has an unknown process.

Decisions are pure and apart (`assigned`, `stops`, `ending`, `http_answer`, `record`, `standing`); the rest is an event
loop around them.
"""
