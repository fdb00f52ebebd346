"""What `sweep.h5` holds: the contract between the Rust program and the analysis scripts."""

TASK = ("temperature", "depth", "seed")

OBSERVABLES = (
    "energy",
    "magnetization_squared",
    "magnetization_fourth",
    "magnetization_absolute",
    "magnetization",
    "energy_squared",
    "structure_factor_k_min",
)

DERIVED = (
    "specific_heat",
    "binder_cumulant",
    "susceptibility",
    "susceptibility_connected",
    "correlation_length",
)

SAMPLERS = ("latent", "physical", "fourier", "independence")

#: Coordinate variables and their kind, as `numpy.dtype.kind`.
COORDINATES = {
    "temperature": "f",
    "depth": "i",
    "seed": "i",
    "sample": "i",
    "row": "i",
    "column": "i",
    "k_x": "f",
    "k_y": "f",
    "r_x": "i",
    "r_y": "i",
}

PER_TASK = (
    "free_energy",
    "free_energy_error",
    "gap",
    "gap_error",
    "gap_per_site",
    "gap_per_site_error",
    "relative_error",
    "relative_error_error",
    "importance_free_energy",
    "importance_free_energy_error",
    "effective_sample_size",
    "weighted_samples",
    "largest_weight_share",
    "forward_free_energy",
    "forward_free_energy_error",
    "forward_effective_sample_size",
    "forward_weight_mean",
    "bridge_free_energy",
    "bridge_free_energy_error",
    "ising_free_energy",
    "ising_free_energy_error",
    *(
        f"{observable}{ending}"
        for observable in OBSERVABLES
        for ending in (
            "",
            "_error",
            "_tau_int",
            "_tau_int_error",
            "_r_hat",
            "_ess_bulk",
            "_ess_tail",
        )
    ),
    *(f"{quantity}{ending}" for quantity in DERIVED for ending in ("", "_error")),
    "energy_pull",
    "specific_heat_pull",
    "importance_free_energy_pull",
    "bridge_free_energy_pull",
    "problems",
    "acceptance",
    "divergences",
    "warmup_divergences",
    "step_size",
    "trajectory_length",
    "leapfrog_steps",
    "e_bfmi",
    "longest_rejection",
    "ess_least",
    "ess_per_gradient",
    "replicas",
    "replica_gradients",
    "exchange_rate_least",
    "round_trips",
    "skipped_steps",
    "train_seconds",
    "evaluate_seconds",
    "hmc_seconds",
    *(f"{sampler}{ending}" for sampler in SAMPLERS for ending in ("_warmup_seconds", "_seconds")),
    "ess_per_second",
    "wall_seconds",
    "peak_memory_bytes",
    "finished_unix_seconds",
)

PER_TEMPERATURE = (
    "free_energy_exact",
    "ising_free_energy_exact",
    "energy_exact",
    "specific_heat_exact",
    "free_energy_gaussian",
    "relative_error_gaussian",
)

#: Every data variable and its dimensions.
VARIABLES = {
    "complete": TASK,
    **dict.fromkeys(PER_TASK, TASK),
    **dict.fromkeys(PER_TEMPERATURE, ("temperature",)),
    "structure_factor": (*TASK, "k_x", "k_y"),
    "structure_factor_error": (*TASK, "k_x", "k_y"),
    "correlation": (*TASK, "r_x", "r_y"),
    "correlation_error": (*TASK, "r_x", "r_y"),
    "samples": (*TASK, "sample", "row", "column"),
}

#: Root attributes.
ATTRIBUTES = (
    "format",
    "format_version",
    "name",
    "configuration",
    "code_version",
    "pulls",
)


def lattice_group(linear_size: int) -> str:
    """The group with the coordinates and variables of one lattice, and its `linear_size`."""
    return f"L{linear_size}"
