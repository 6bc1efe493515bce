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
everything below a supervisor that has lost its parent is a direct child of that supervisor, and when a supervisor has
no child, nothing of its attempt is left. `descendants` says how a tree is killed that keeps growing meanwhile.

What ends what:

* the task ends: its supervisor ends what is left of the tree, reports, exits;
* the tree has more memory than the attempt may have: its supervisor kills it before the kernel picks a victim among
  all attempts of the container;
* the agent's connection ends, or the runner dies: the supervisors' control sockets reach their end; each kills its
  tree;
* a supervisor is killed: what was below it becomes a child of the zygote, which kills it (the process of a callable has
  a parent-death signal as well);
* a zygote is killed: its supervisors become children of the runner, which kills every child that it does not know;
* no process can be made (the limit of the container is reached, perhaps by a neighbour): nothing has begun, and the
  attempt is given back as `exhausted`.

What a task says goes up the same way. Output: pipes to the runner. Progress and checkpoints: to the supervisor, by
files in the attempt's directory or by the SDK on a socket there, and on to the runner as frames; the supervisor numbers
the checkpoints and thins out the progress, so that a task that reports in a loop wakes nobody else up. Acknowledgements
of checkpoints come down to the very connection that asked. Silence is noticed by the runner, which sees both.

A plain short attempt pays for a socket that nobody connects to and for one file of two bytes. There is no thread, and
no timer is due within its first half second, unless its memory is watched.
"""
