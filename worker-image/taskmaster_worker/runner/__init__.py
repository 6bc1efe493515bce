"""The runner: the container that runs user code, without a token and without any package but the standard library.

Five kinds of process, each the parent of the next::

    runner          asyncio; the Unix socket, the output, the frames; PID 1 of its container
      zygote        two small single-threaded fork servers: `plain` for command and script, `python` for callables
        supervisor  one per attempt; owns everything that the task starts
          task      the user's process, in a session of its own
            ...     whatever it starts: double forks and `setsid` included

Why so many: the runner must not fork (its memory and its event loop are not the task's business, and forking gets dear
as a process grows), and an attempt needs an owner of its own so that the end of one task is the end of all it started.

Runner, zygotes and supervisors are *subreapers*: a process whose parent dies becomes a child of the nearest of them. So
everything below a supervisor that has lost its parent is a direct child of that supervisor, and killing direct children
until there are none (see `descendants`) ends the whole tree without ever signalling a process id that could have been
reused.

What ends what:

* the task ends: its supervisor ends what is left of the tree, reports, exits;
* the agent's connection ends, or the runner dies: the supervisors' control sockets reach their end; each kills its
  tree;
* a supervisor is killed: what was below it becomes a child of the zygote, which kills it (the process of a callable has
  a parent-death signal as well);
* a zygote is killed: its supervisors become children of the runner, which kills every child that it does not know.
"""
