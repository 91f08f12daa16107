"""The methods that every test of the solver is run with, and how much their errors may exceed those
of a pair.
"""

from rnn_dynamics.ode import AUTO, DOP853, RKG3, RODAS5P, TSIT5

METHODS = [TSIT5, DOP853, RKG3, AUTO, RODAS5P]
# The pairs go on with the better of two solutions; RKG3 estimates the error of the only one it has.
SLACK = {TSIT5: 1.0, DOP853: 1.0, RKG3: 10.0, AUTO: 1.0, RODAS5P: 1.0}
