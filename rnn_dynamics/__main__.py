"""`python -m rnn_dynamics` is the command `rnn-dynamics`."""

import sys

from rnn_dynamics.cli import main

sys.exit(main())
