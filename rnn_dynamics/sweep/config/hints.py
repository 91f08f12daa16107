"""What a misspelt key or word may mean. JAX is not needed."""

import difflib
import re
from collections.abc import Iterable

# names that other libraries and papers give to what is a key here
SYNONYMS = {
    "learning_rate": ("lr", "eta", "step_size", "stepsize", "rate", "alpha"),
    "num_steps": (
        *("steps", "n_steps", "max_steps", "epochs", "num_epochs", "n_epochs", "iterations"),
        *("n_iter", "iters", "num_iterations", "max_iter", "updates"),
    ),
    "train_time": (
        "t_end",
        "t_max",
        "t_final",
        "end_time",
        "total_time",
        "max_time",
        "t1",
        "duration",
    ),
    "optimizer": ("opt", "optim", "optimiser", "algorithm"),
    "optimizer_arguments": ("optimizer_kwargs", "optimizer_args", "opt_args", "hyperparameters"),
    "schedule": ("scheduler", "lr_schedule", "lr_scheduler", "learning_rate_schedule"),
    "clip_norm": (
        *("clip", "grad_clip", "gradient_clip", "clipnorm", "max_norm", "max_grad_norm"),
        *("gradient_clip_val", "clip_grad_norm"),
    ),
    "weight_decay": ("wd", "l2", "l2_penalty", "weight_decay_rate"),
    "batch_size": ("batch", "bs", "minibatch", "mini_batch", "num_trials", "trials"),
    "time_step": ("dt", "delta_t", "timestep", "step_time", "h"),
    "horizon": ("t", "sequence_length", "seq_len", "seq_length", "length"),
    "warmup_steps": ("warmup", "num_warmup_steps", "n_warmup"),
    "solver": ("integrator", "ode_solver", "stepper"),
    "rtol": ("tol", "tolerance", "reltol", "relative_tolerance"),
    "atol": ("abstol", "absolute_tolerance"),
    "num_units": (
        *("n", "units", "n_units", "hidden", "hidden_size", "hidden_dim", "num_neurons"),
        *("n_neurons", "neurons", "size", "width", "dim", "num_hidden", "n_hidden"),
    ),
    "num_seeds": ("seeds", "n_seeds", "repeats", "num_repeats", "n_runs", "replicates", "members"),
    "weight_scale": ("g", "gain", "sigma", "std", "init_scale", "init_std", "spectral_radius"),
    "seed": ("random_seed", "random_state", "rng", "rng_seed", "prng", "key"),
    "dtype": ("precision", "float", "data_type"),
    "chunk_size": ("chunk", "chunks", "chunksize"),
    "every": ("log_every", "log_interval", "save_every", "record_every", "interval"),
    "num": ("num_records", "n_records", "count", "number"),
    "weights": ("save_weights", "checkpoints", "parameters"),
    "observables": ("metrics", "log", "variables"),
    "models": ("theories", "names"),
    "decay": ("lambda", "lam", "leak", "decay_rate", "gamma"),
    "frequency": ("freq", "omega", "angular_frequency"),
    "phase": ("phi", "phase_shift"),
    "amplitude": ("amp", "coefficient"),
    "b1": ("beta1", "beta_1", "betas"),
    "b2": ("beta2", "beta_2"),
    "eps": ("epsilon",),
    "end_factor": ("final_factor", "end_value", "min_factor"),
    "patience": ("wait", "num_patience"),
}
_MEANT = {word: name for name, words in SYNONYMS.items() for word in words}


def meant(word: str) -> str:
    """A word without capitals and hyphens, and by the name that it has here if that is another."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).lower().replace("-", "_")
    return _MEANT.get(plain, plain)


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that another may mean, or None: the same, a synonym, or of like letters."""
    word = word[:60]  # longer ones take long to compare
    by_plain = {name.lower(): name for name in known}
    for candidate in (meant(word), word.lower()):
        if candidate in by_plain:
            return by_plain[candidate]
    close = difflib.get_close_matches(word.lower(), by_plain, n=1, cutoff=cutoff)
    return by_plain[close[0]] if close else None
