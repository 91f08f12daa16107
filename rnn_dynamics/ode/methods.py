"""The methods on offer: explicit ones, a stabilised one, these and an exponential one in turns, one for all that is stiff."""

from typing import TypeAlias

import numpy as np

from rnn_dynamics.ode.exponential import ExponentialMethod
from rnn_dynamics.ode.gegenbauer import StabilisedMethod
from rnn_dynamics.ode.pairs import DOP853, TSIT5
from rnn_dynamics.ode.switching import SwitchingMethod
from rnn_dynamics.ode.tableau import ExplicitMethod, RosenbrockMethod, strictly_lower

# Steinebach (2023), Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks
# within the Julia Differential Equations package, BIT Numerical Mathematics 63, 27.
_rodas5p_last = (
    -7.502846399306121,
    2.561846144803919,
    -11.627539656261098,
    -0.18268767659942256,
    0.030198172008377946,
)

RODAS5P = RosenbrockMethod(
    name="RODAS5P",
    order=5,
    embedded_order=4,
    gamma=0.21193756319429014,
    a=strictly_lower(
        (
            (3.0,),
            (2.849394379747939, 0.45842242204463923),
            (-6.954028509809101, 2.489845061869568, -10.358996098473584),
            (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
            _rodas5p_last,
            (*_rodas5p_last, 1.0),
            (*_rodas5p_last, 1.0, 1.0),
        )
    ),
    C=strictly_lower(
        (
            (-14.155112264123755,),
            (-17.97296035885952, -2.859693295451294),
            (147.12150275711716, -1.41221402718213, 71.68940251302358),
            (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
            (
                24.854864614690072,
                -3.0009227002832186,
                47.4931110020768,
                5.5814197821558125,
                -0.6610691825249471,
            ),
            (
                30.91273214028599,
                -3.1208243349937974,
                77.79954646070892,
                34.28646028294783,
                -19.097331116725623,
                -28.087943162872662,
            ),
            (
                37.80277123390563,
                -3.2571969029072276,
                112.26918849496327,
                66.9347231244047,
                -40.06618937091002,
                -54.66780262877968,
                -9.48861652309627,
            ),
        )
    ),
    c=np.array(
        (
            0.0,
            0.6358126895828704,
            0.4095798393397535,
            0.9769306725060716,
            0.4288403609558664,
            1.0,
            1.0,
            1.0,
        )
    ),
)

# Computed from what defines them: R(z) = exp(z) + O(z^4), and |R(-bound)| = 0.9.
RKG3 = StabilisedMethod(
    name="RKG3",
    shape=np.array(
        (
            (5, -3.915326, 11.051847, -0.034915),
            (6, -3.855711, 10.822222, -0.032312),
            (7, -3.835965, 10.694746, -0.031227),
            (8, -3.829312, 10.615853, -0.030717),
            (9, -3.827466, 10.563362, -0.030455),
            (10, -3.827475, 10.526565, -0.030312),
            (11, -3.828186, 10.499724, -0.030230),
            (13, -3.830089, 10.463923, -0.030150),
            (15, -3.831832, 10.441745, -0.030118),
            (17, -3.833231, 10.427042, -0.030105),
            (20, -3.834775, 10.412786, -0.030099),
            (23, -3.835847, 10.403781, -0.030098),
            (27, -3.836815, 10.396147, -0.030099),
            (31, -3.837460, 10.391285, -0.030100),
            (36, -3.838000, 10.387344, -0.030102),
            (42, -3.838419, 10.384349, -0.030104),
            (49, -3.838733, 10.382150, -0.030105),
            (57, -3.838962, 10.380563, -0.030107),
            (66, -3.839128, 10.379421, -0.030107),
            (77, -3.839258, 10.378533, -0.030108),
            (90, -3.839355, 10.377873, -0.030109),
            (105, -3.839426, 10.377396, -0.030109),
            (122, -3.839477, 10.377053, -0.030109),
            (142, -3.839515, 10.376797, -0.030110),
            (165, -3.839543, 10.376609, -0.030110),
            (192, -3.839564, 10.376469, -0.030110),
            (223, -3.839579, 10.376367, -0.030110),
            (260, -3.839591, 10.376289, -0.030110),
            (310, -3.839600, 10.376225, -0.030110),
            (370, -3.839607, 10.376180, -0.030110),
            (440, -3.839612, 10.376149, -0.030110),
            (520, -3.839615, 10.376128, -0.030110),
        )
    ),
)

# Radau's nodes, and such before them that all but one condition of order 5 is met.
EXPONENTIAL = ExponentialMethod(
    name="EXPONENTIAL",
    nodes=np.array((0.4, 0.4, 1.0, (6.0 - 6.0**0.5) / 10.0, (6.0 + 6.0**0.5) / 10.0)),
)

_TIGHT = SwitchingMethod("AUTO", DOP853, EXPONENTIAL, RKG3, tight=None)
AUTO = SwitchingMethod("AUTO", TSIT5, EXPONENTIAL, RKG3, tight=_TIGHT)

Method: TypeAlias = ExplicitMethod | StabilisedMethod | SwitchingMethod | RosenbrockMethod
