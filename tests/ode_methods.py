"""The methods that every test of the solver is run with."""

from rnn_dynamics.ode import AUTO, RODAS5P, TSIT5

METHODS = [TSIT5, AUTO, RODAS5P]
