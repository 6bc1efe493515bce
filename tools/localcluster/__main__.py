"""Command line of the local cluster: `python -m localcluster tools | control-plane | ...`."""

import sys

from localcluster.cli import main

sys.exit(main(sys.argv[1:]))
