"""`python -m taskmaster_worker.runner`: start again in isolated mode, then run.

The container's PYTHONPATH holds the user's code, which may well contain a `json.py` or an `asyncio/`. Only this small
module is loaded with that path in place; the process then replaces itself (same process id) by `python -I -S`, where
the standard library comes first and nothing of the user's is importable.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BOOT = f"import sys; sys.path.append({ROOT!r}); from taskmaster_worker.runner.server import main; sys.exit(main())"

if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", BOOT])
